// Parts of <linux/kvm.h> and glibc that Swift cannot import: ioctl numbers (function-like macros), the
// variadic ioctl, calls behind _GNU_SOURCE, and atomic accesses to memory that a guest or the kernel shares.
// All calls return 0 or a positive result, or -errno; all but ckvm_run are retried after a signal.
#ifndef CKVM_H
#define CKVM_H

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#pragma clang assume_nonnull begin

// glibc declares it only under _GNU_SOURCE, which the importer does not define.
extern int memfd_create(const char *name, unsigned int flags);
static const unsigned int CKVM_MFD_CLOEXEC = 1;
extern int fallocate(int fd, int mode, long offset, long length);
extern int ftruncate(int fd, long length);
extern int open(const char *path, int flags, ...);

// A system call's result, or -errno; retried after EINTR.
#define CKVM_RETRIED(call)                              \
  ({                                                    \
    int ckvm_result;                                    \
    do ckvm_result = (call);                            \
    while (ckvm_result < 0 && errno == EINTR);          \
    ckvm_result < 0 ? -errno : ckvm_result;             \
  })
static inline int ckvm_open(const char *path, int flags) { return CKVM_RETRIED(open(path, flags)); }
static inline int ckvm_truncate(int fd, int64_t length) { return CKVM_RETRIED(ftruncate(fd, length)); }
static inline int ckvm_advise(void *start, size_t length, int advice) {
  return CKVM_RETRIED(madvise(start, length, advice));
}
static inline int ckvm_punch_hole(int fd, int64_t offset, int64_t length) {
  const int keep_size = 1, punch_hole = 2;
  return CKVM_RETRIED(fallocate(fd, keep_size | punch_hole, offset, length));
}
static const int CKVM_MADV_POPULATE_WRITE = 23;
static const int CKVM_MADV_COLLAPSE = 25;

static const unsigned long CKVM_GET_API_VERSION = KVM_GET_API_VERSION;
static const unsigned long CKVM_CREATE_VM = KVM_CREATE_VM;
static const unsigned long CKVM_CHECK_EXTENSION = KVM_CHECK_EXTENSION;
static const unsigned long CKVM_GET_VCPU_MMAP_SIZE = KVM_GET_VCPU_MMAP_SIZE;
static const unsigned long CKVM_GET_SUPPORTED_CPUID = KVM_GET_SUPPORTED_CPUID;
static const unsigned long CKVM_SET_USER_MEMORY_REGION = KVM_SET_USER_MEMORY_REGION;
static const unsigned long CKVM_CREATE_VCPU = KVM_CREATE_VCPU;
static const unsigned long CKVM_SET_CPUID2 = KVM_SET_CPUID2;
static const unsigned long CKVM_GET_SREGS = KVM_GET_SREGS;
static const unsigned long CKVM_SET_SREGS = KVM_SET_SREGS;
static const unsigned long CKVM_GET_REGS = KVM_GET_REGS;
static const unsigned long CKVM_SET_REGS = KVM_SET_REGS;
static const unsigned long CKVM_SET_XCRS = KVM_SET_XCRS;
static const unsigned long CKVM_SET_XSAVE = KVM_SET_XSAVE;
static const unsigned long CKVM_GET_XSAVE = KVM_GET_XSAVE;
static const unsigned long CKVM_SET_DEBUGREGS = KVM_SET_DEBUGREGS;
static const unsigned long CKVM_SET_VCPU_EVENTS = KVM_SET_VCPU_EVENTS;
static const unsigned long CKVM_SET_MSRS = KVM_SET_MSRS;
static const unsigned long CKVM_GET_TSC_KHZ = KVM_GET_TSC_KHZ;
static const unsigned long CKVM_INTERRUPT = KVM_INTERRUPT;

static const uint64_t CKVM_SYNC_REGS = KVM_SYNC_X86_REGS;
static const uint64_t CKVM_SYNC_SREGS = KVM_SYNC_X86_SREGS;
static const uint64_t CKVM_SYNC_EVENTS = KVM_SYNC_X86_EVENTS;

static inline int ckvm_ioctl(int fd, unsigned long request, void *argument) {
  return CKVM_RETRIED(ioctl(fd, request, argument));
}
static inline int ckvm_ioctl_value(int fd, unsigned long request, unsigned long value) {
  return CKVM_RETRIED(ioctl(fd, request, value));
}
// KVM returns the number of registers it has set: 0 if it does not know this one.
static inline int ckvm_set_msr(int fd, uint32_t index, uint64_t value) {
  // A struct kvm_msrs with one entry.
  uint64_t list[] = {1, index, value};
  _Static_assert(offsetof(struct kvm_msrs, entries) == 8 && sizeof(struct kvm_msr_entry) == 16, "layout");
  return ckvm_ioctl(fd, CKVM_SET_MSRS, list);
}
static inline int ckvm_run(int fd) { return ioctl(fd, KVM_RUN, 0) < 0 ? -errno : 0; }

static inline struct kvm_regs *ckvm_sync_regs(struct kvm_run *run) { return &run->s.regs.regs; }
static inline struct kvm_sregs *ckvm_sync_sregs(struct kvm_run *run) { return &run->s.regs.sregs; }
static inline struct kvm_vcpu_events *ckvm_sync_events(struct kvm_run *run) { return &run->s.regs.events; }
static inline struct kvm_cpuid_entry2 *ckvm_cpuid_entries(struct kvm_cpuid2 *cpuid) { return cpuid->entries; }
// Written by the thread that kicks, read by the kernel when the vCPU's own thread enters KVM_RUN.
static inline void ckvm_set_immediate_exit(struct kvm_run *run, uint8_t value) {
  __atomic_store_n(&run->immediate_exit, value, __ATOMIC_RELEASE);
}

// Page-table entries: the CPU and KVM set accessed and dirty bits in them while the host rewrites them.
static inline uint64_t ckvm_load(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void ckvm_store(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
static inline uint64_t ckvm_exchange(uint64_t *at, uint64_t value) {
  return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);
}
static inline uint64_t ckvm_or(uint64_t *at, uint64_t bits) { return __atomic_fetch_or(at, bits, __ATOMIC_SEQ_CST); }
static inline uint64_t ckvm_and(uint64_t *at, uint64_t mask) { return __atomic_fetch_and(at, mask, __ATOMIC_SEQ_CST); }

// The rings of a device's queue, which a driver in the guest reads and writes concurrently.
static inline uint16_t ckvm_load16(const uint16_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void ckvm_store16(uint16_t *at, uint16_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
static inline void ckvm_store32(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
static inline uint8_t ckvm_load8(const uint8_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void ckvm_store8(uint8_t *at, uint8_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
static inline void ckvm_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// Instead of <cpuid.h>, whose module would claim glibc's types in the importer.
struct ckvm_cpuid {
  uint32_t a, b, c, d;
};
static inline struct ckvm_cpuid ckvm_cpuid(uint32_t leaf) {
  struct ckvm_cpuid result;
  __asm__("cpuid" : "=a"(result.a), "=b"(result.b), "=c"(result.c), "=d"(result.d) : "0"(leaf), "2"(0));
  return result;
}
static inline int ckvm_cpu_is_tcg(void) {
  if (!(ckvm_cpuid(1).c >> 31)) return 0;
  struct ckvm_cpuid signature = ckvm_cpuid(0x40000000);
  // "TCGTCGTCGTCG"
  return signature.b == 0x54474354 && signature.c == 0x43544743 && signature.d == 0x47435447;
}

// Sets the calling thread's data selectors to null, as every Linux thread starts with. A KVM that does not switch them
// lets a guest at CPL3 read and change them. The kernel clears FS and GS and keeps their bases: loading a null
// selector here may zero the base (Intel) that thread-local storage needs.
extern long syscall(long number, ...);
static inline void ckvm_clear_selectors(void) {
  const long arch_prctl = 158, set_gs = 0x1001, set_fs = 0x1002, get_fs = 0x1003, get_gs = 0x1004;
  unsigned int ds, es, fs, gs;
  unsigned long base;
  __asm__ volatile("mov %%ds, %0\n\tmov %%es, %1\n\tmov %%fs, %2\n\tmov %%gs, %3"
                   : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
  if (ds | es) __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" ::"r"(0));
  if (fs && syscall(arch_prctl, get_fs, &base) == 0) syscall(arch_prctl, set_fs, base);
  if (gs && syscall(arch_prctl, get_gs, &base) == 0) syscall(arch_prctl, set_gs, base);
}

#pragma clang assume_nonnull end
#endif
