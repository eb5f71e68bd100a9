// Random instructions, biased to those that tasks have no use for: flags, segments, strings to ports, state
// that is loaded and saved, returns to other privilege levels. The machine's own tests pass a number after the case's
// name as the seed. Only the task may be affected.
#include "test.h"

#define CODE ((uint8_t *)0x100000000000)
#define DATA ((uint8_t *)0x200000000000)
#define PAGES 4
#define BYTES (PAGES * PM_PAGE_SIZE)

static const struct {
  uint8_t size, bytes[5];
} instructions[] = {
    {2, {0xe6, 0x50}},                    // out %al, $0x50
    {1, {0xee}},                          // out %al, %dx
    {1, {0x6e}},                          // outsb
    {2, {0xf3, 0x6e}},                    // rep outsb
    {2, {0xe4, 0x50}},                    // in $0x50, %al
    {1, {0x6c}},                          // insb
    {2, {0xf3, 0x6c}},                    // rep insb
    {2, {0x66, 0xef}},                    // out %ax, %dx
    {1, {0x9c}},                          // pushf
    {1, {0x9d}},                          // popf
    {2, {0x48, 0xcf}},                    // iretq
    {2, {0x48, 0xcb}},                    // lretq
    {1, {0xcb}},                          // lret
    {2, {0x8e, 0xd8}},                    // mov %eax, %ds
    {2, {0x8e, 0xc0}},                    // mov %eax, %es
    {2, {0x8e, 0xe0}},                    // mov %eax, %fs
    {2, {0x8e, 0xe8}},                    // mov %eax, %gs
    {2, {0x8e, 0xd0}},                    // mov %eax, %ss
    {5, {0xf3, 0x48, 0x0f, 0xae, 0xd0}},  // wrfsbase %rax
    {5, {0xf3, 0x48, 0x0f, 0xae, 0xd8}},  // wrgsbase %rax
    {4, {0x48, 0x0f, 0xae, 0x2f}},        // xrstor64 (%rdi)
    {4, {0x48, 0x0f, 0xae, 0x27}},        // xsave64 (%rdi)
    {4, {0x48, 0x0f, 0xae, 0x0f}},        // fxrstor64 (%rdi)
    {3, {0x0f, 0xae, 0x17}},              // ldmxcsr (%rdi)
    {2, {0xd9, 0x2f}},                    // fldcw (%rdi)
    {2, {0xd9, 0x27}},                    // fldenv (%rdi)
    {2, {0x0f, 0x05}},                    // syscall
    {2, {0x0f, 0x34}},                    // sysenter
    {3, {0x0f, 0x01, 0xc1}},              // vmcall
    {3, {0x0f, 0x01, 0xd9}},              // vmmcall
    {2, {0x0f, 0xa2}},                    // cpuid
    {3, {0x0f, 0x01, 0xd0}},              // xgetbv
    {3, {0x0f, 0x01, 0xf9}},              // rdtscp
    {1, {0xfd}},                          // std
    {1, {0xfc}},                          // cld
    {3, {0xf3, 0x48, 0xab}},              // rep stosq
    {2, {0xf3, 0xa4}},                    // rep movsb
    {1, {0x50}},                          // push %rax
    {1, {0x5c}},                          // pop %rsp
    {1, {0xc3}},                          // ret
    {2, {0xff, 0xe0}},                    // jmp *%rax
    {2, {0xff, 0xd0}},                    // call *%rax
    {4, {0xf0, 0x48, 0xff, 0x07}},        // lock incq (%rdi)
    {5, {0xf0, 0x48, 0x0f, 0xc7, 0x0f}},  // lock cmpxchg16b (%rdi)
    {1, {0xf1}},                          // int1
    {1, {0xcc}},                          // int3
    {2, {0xcd, 0x80}},                    // int $0x80
};

static uint64_t state;

/// A register value that an instruction can use.
static uint64_t random_value(void) {
  uint64_t random = next_random(&state);
  const uint64_t values[] = {random % 0x80,
                             (uint64_t)DATA + random % BYTES,
                             (uint64_t)CODE + random % BYTES,
                             random,
                             0xffff800000000000 + random % 0x300000,
                             PM_CALL_PORT,
                             random & 0xfff};
  return values[(random >> 56) % 7];
}

static size_t put(size_t at, const void *bytes, size_t size) {
  if (size > BYTES - at) size = BYTES - at;
  memcpy(CODE + at, bytes, size);
  return at + size;
}

static void fill_code(void) {
  for (size_t at = 0; at < BYTES;) {
    uint64_t random = next_random(&state);
    if (random % 8 < 5) {
      size_t index = (random >> 8) % (sizeof instructions / sizeof *instructions);
      at = put(at, instructions[index].bytes, instructions[index].size);
    } else if (random % 8 == 5) {
      // mov $value, %r64
      uint8_t load[10] = {0x48, (uint8_t)(0xb8 + (random >> 8) % 8)};
      uint64_t value = random_value();
      memcpy(load + 2, &value, 8);
      at = put(at, load, sizeof load);
    } else {
      at = put(at, (uint8_t[]){(uint8_t)(random >> 8)}, 1);
    }
  }
}

static int sometimes_retry(const struct pm_fault *fault) {
  (void)fault;
  return next_random(&state) % 3 == 0;
}

// The program of the default seed divides, faults, or ends by another exception: which one depends on the processor.
PM_TEST(run, 0 or 128 or 129 or 131 or 134 or 140 or 141 or 142, 1, "Safety: 16 KiB of random instructions") {
  state = 88172645463325252;
  for (const char *digit = pm_argument(2); digit && *digit; digit++) state = state * 31 + (uint8_t)*digit;
  for (int i = 0; i < 10; i++) next_random(&state);
  pm_container_t container = make_container(2 * PAGES);
  CHECK_OK(pm_container_map(container, 0, PAGES, CODE, LAZY_READ_WRITE));
  CHECK_OK(pm_container_map(container, PAGES, PAGES, DATA, LAZY_READ_WRITE));
  fill_code();
  for (size_t i = 0; i < BYTES; i += 8) *(uint64_t *)(DATA + i) = next_random(&state);
  uint32_t flags = next_random(&state) % 2 ? PM_MAP_EXECUTE : PM_MAP_EXECUTE | PM_MAP_LAZY;
  CHECK_OK(pm_container_map(container, 0, PAGES, CODE, flags));
  if (next_random(&state) % 2) CHECK_OK(pm_on_fault(sometimes_retry));
  __asm__ volatile("mov %%rdi, %%rsi\n\tmov %0, %%edx\n\txor %%eax, %%eax\n\tjmp *%%rcx" ::"i"(PM_CALL_PORT),
                   "c"(CODE + next_random(&state) % BYTES), "D"(DATA + next_random(&state) % BYTES)
                   : "memory");
}
