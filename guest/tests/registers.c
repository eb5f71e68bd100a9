// Registers over faults and calls: the interrupted code finds all of them unchanged, whatever the server and the task's
// own handler do in between.
#include <cpuid.h>

#include "test.h"

#define GENERAL 16

/// All registers of a task. The assembly below knows the offsets.
struct registers {
  uint64_t general[GENERAL];  // by their numbers; RSP and R11 cannot be chosen here
  uint64_t flags;
  uint32_t vector_control;
  uint16_t x87_control, unused;
  uint64_t masks[8];
  uint8_t vectors[32][64];
};
_Static_assert(offsetof(struct registers, flags) == 128, "flags");
_Static_assert(offsetof(struct registers, vector_control) == 136, "vector_control");
_Static_assert(offsetof(struct registers, x87_control) == 140, "x87_control");
_Static_assert(offsetof(struct registers, masks) == 144, "masks");
_Static_assert(offsetof(struct registers, vectors) == 208, "vectors");

// One function for each vector size: loads all registers from (RDI), accesses the byte at RSI or calls the server,
// and stores all registers at (RDI).
__asm__(
    ".macro each_general operation\n"
    "  \\operation 0, %rax\n \\operation 8, %rcx\n \\operation 16, %rdx\n \\operation 24, %rbx\n"
    "  \\operation 40, %rbp\n \\operation 48, %rsi\n"
    "  \\operation 64, %r8\n \\operation 72, %r9\n \\operation 80, %r10\n"
    "  \\operation 96, %r12\n \\operation 104, %r13\n \\operation 112, %r14\n \\operation 120, %r15\n"
    ".endm\n"
    ".macro load offset, register\n mov \\offset(%rdi), \\register\n .endm\n"
    ".macro store offset, register\n mov \\register, \\offset(%rdi)\n .endm\n"

    ".macro vectors_sse operation\n"
    " .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "  \\operation movups, \\number, xmm\\number\n .endr\n .endm\n"
    ".macro vectors_avx operation\n"
    " .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "  \\operation vmovups, \\number, ymm\\number\n .endr\n .endm\n"
    ".macro vectors_avx512 operation\n"
    " .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "  \\operation vmovups, \\number, zmm\\number\n .endr\n"
    " .irp number, 0,1,2,3,4,5,6,7\n"
    "  \\operation\\()_mask \\number\n .endr\n .endm\n"
    ".macro load_vector move, number, register\n \\move 208+64*\\number(%rdi), %\\register\n .endm\n"
    ".macro store_vector move, number, register\n \\move %\\register, 208+64*\\number(%rdi)\n .endm\n"
    ".macro load_vector_mask number\n kmovq 144+8*\\number(%rdi), %k\\number\n .endm\n"
    ".macro store_vector_mask number\n kmovq %k\\number, 144+8*\\number(%rdi)\n .endm\n"

    ".macro survive name, vectors, access:vararg\n"
    ".section .text.\\name, \"ax\", @progbits\n"
    ".globl \\name\n"
    "\\name:\n"
    " push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " push %rdi\n"
    " mov %rsi, %r11\n"
    " ldmxcsr 136(%rdi)\n"
    " fldcw 140(%rdi)\n"
    " \\vectors load_vector\n"
    " push 128(%rdi)\n"
    " popf\n"
    " each_general load\n"
    " mov 56(%rdi), %rdi\n"
    " \\access\n"
    // The state pointer is on the stack; RDI goes through the stack too, since no other register is free.
    " push %rdi\n"
    " mov 8(%rsp), %rdi\n"
    " each_general store\n"
    " popq 56(%rdi)\n"
    " pushf\n"
    " popq 128(%rdi)\n"
    " cld\n"
    " stmxcsr 136(%rdi)\n"
    " fnstcw 140(%rdi)\n"
    " \\vectors store_vector\n"
    " pop %rdi\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
    " ret\n"
    ".endm\n"
    "survive write_sse, vectors_sse, movb $1, (%r11)\n"
    "survive write_avx, vectors_avx, movb $1, (%r11)\n"
    "survive write_avx512, vectors_avx512, movb $1, (%r11)\n"
    "survive read_sse, vectors_sse, mov (%r11), %r11\n"
    "survive call_sse, vectors_sse, out %al, $0x50\n"
    "survive call_avx512, vectors_avx512, out %al, $0x50\n"
    "survive spin_sse, vectors_sse, call spin\n"
    "survive spin_avx, vectors_avx, call spin\n"
    "survive spin_avx512, vectors_avx512, call spin\n"
    // Loops without using a register or a flag, until the jump's target is changed.
    ".text\n"
    "spin: jmp *spin_target\n"
    "spin_end: ret\n");
typedef void survive_t(struct registers *registers, void *address);
survive_t write_sse, write_avx, write_avx512, read_sse, call_sse, call_avx512, spin_sse, spin_avx, spin_avx512;
extern const char spin[], spin_end[];
const char *volatile spin_target = spin;

// ---- features of the processor and the server -----------------------------------------------

static uint64_t enabled_state(void) {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 0;
  __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (uint64_t)edx << 32 | eax;
}

static bool has_avx(void) { return (enabled_state() & 6) == 6; }
static bool has_avx512(void) {
  unsigned eax, ebx = 0, ecx, edx;
  __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
  // The 64-bit masks need AVX512BW.
  return (enabled_state() & 0xe6) == 0xe6 && (ebx & bit_AVX512BW) != 0;
}

// ---- the comparison ----------------------------------------------------------------------------

static void randomise(struct registers *registers, uint64_t *state) {
  for (size_t i = 0; i < sizeof *registers / 8; i++) ((uint64_t *)registers)[i] = next_random(state);
  // Carry, parity, adjust, zero, sign, direction, overflow; interrupts are always on, bit 1 is always set.
  registers->flags = (registers->flags & 0xcd5) | 0x202;
  // Exceptions masked; rounding, flags and precision random.
  registers->vector_control = (registers->vector_control & 0xe03f) | 0x1f80;
  registers->x87_control = (uint16_t)((registers->x87_control & 0xc00) | 0x37f);
}

/// Runs `survive` on pages of REGION, each accessed for the first time, with random registers.
static void check_survival(survive_t *survive, int rounds, size_t vectors, size_t vector_size, bool masks) {
  static struct registers before, after;
  static uint64_t state = 12345;
  for (int round = 0; round < rounds; round++) {
    randomise(&before, &state);
    if (survive == call_sse || survive == call_avx512) before.general[0] = PM_CALL_NULL;
    after = before;
    survive(&after, PAGE(REGION, round));
    for (int i = 0; i < GENERAL; i++)
      if (i != 4 && i != 11) CHECK_EQ(after.general[i], before.general[i]);
    CHECK_EQ(after.flags, before.flags);
    CHECK_EQ(after.vector_control, before.vector_control);
    CHECK_EQ(after.x87_control, before.x87_control);
    for (size_t i = 0; i < vectors; i++) CHECK(!memcmp(after.vectors[i], before.vectors[i], vector_size));
    if (masks) CHECK(!memcmp(after.masks, before.masks, sizeof before.masks));
    __asm__ volatile("ldmxcsr %0\n\tfninit" ::"m"((const uint32_t){0x1f80}));
  }
}

static void check_accesses(survive_t *sse) {
  check_survival(sse, 100, 16, 16, false);
}

static void check_wide(void) {
  if (has_avx()) check_survival(write_avx, 100, 16, 32, false);
  else printf("no AVX here\n");
}

static void check_widest(void) {
  if (has_avx512()) check_survival(write_avx512, 100, 32, 64, true);
  else printf("no AVX-512 here\n");
}

PM_TEST(write_fault, 0, 1, "R25: all registers survive a write fault that the server serves") {
  map_fresh(REGION, 100);
  check_accesses(write_sse);
}
PM_TEST(read_fault, 0, 1, "R25: all registers survive a read fault that the server serves") {
  map_fresh(REGION, 100);
  check_accesses(read_sse);
}
PM_TEST(write_fault_avx, 0, 1, "R25: AVX registers survive a fault") {
  map_fresh(REGION, 100);
  check_wide();
}
PM_TEST(write_fault_avx512, 0, 1, "R25: AVX-512 registers and masks survive a fault") {
  map_fresh(REGION, 100);
  check_widest();
}
PM_TEST(call, 0, 1, "A call changes only RAX") {
  check_survival(call_sse, 200, 16, 16, false);
  if (has_avx512()) check_survival(call_avx512, 200, 32, 64, true);
}

// ---- the task's own handler, which changes all registers ---------------------------------------

static pm_container_t container;

/// Returns false if the direction flag was set: the handler's code needs a clear one.
static bool leave_nothing(uint64_t seed) {
  static struct registers garbage;
  uint64_t state = seed | 1, flags;
  randomise(&garbage, &state);
  garbage.general[0] = PM_CALL_NULL;
  call_sse(&garbage, NULL);
  if (has_avx512()) call_avx512(&garbage, NULL);
  else if (has_avx()) __asm__ volatile("vzeroall" ::: "memory");
  __asm__ volatile("fninit\n\tfld1\n\tfldpi\n\tldmxcsr %1\n\tpushf\n\tpop %0"
                   : "=r"(flags)
                   : "m"((const uint32_t){0x1fbf}));
  return !(flags & 0x400);
}

static int destroy_registers(const struct pm_fault *fault) {
  if (!leave_nothing(fault->address)) return 1;
  uint32_t frame = (uint32_t)((fault->address - (uint64_t)REGION) / PM_PAGE_SIZE);
  return pm_container_map(container, frame, 1, PAGE(REGION, frame), LAZY_READ_WRITE);
}

static void set_up(void) {
  container = make_container(200);
  CHECK_OK(pm_on_fault(destroy_registers));
}

PM_TEST(own_write_fault, 0, 1, "R37: all registers survive a write fault that the task's handler serves") {
  set_up();
  check_accesses(write_sse);
}
PM_TEST(own_read_fault, 0, 1, "R37: all registers survive a read fault that the task's handler serves") {
  set_up();
  check_accesses(read_sse);
}
PM_TEST(own_fault_avx, 0, 1, "R37: AVX registers survive the task's handler") {
  set_up();
  check_wide();
}
PM_TEST(own_fault_avx512, 0, 1, "R37: AVX-512 registers and masks survive the task's handler") {
  set_up();
  check_widest();
}
PM_TEST(own_fault_x87, 0, 1, "R37: the x87's stack survives the task's handler") {
  set_up();
  double values[3];
  __asm__ volatile("fninit\n\tfld1\n\tfldl2t\n\tfldpi\n\tmovb $1, (%1)\n\tfstpl (%0)\n\tfstpl 8(%0)\n\tfstpl 16(%0)"
                   ::"r"(values), "r"(REGION)
                   : "memory");
  CHECK(values[0] > 3.14159 && values[0] < 3.14160);
  CHECK(values[1] > 3.32192 && values[1] < 3.32193);
  CHECK(values[2] == 1);
}

// ---- pm_return_pages, in the middle of a loop ---------------------------------------------------------

static void destroy_and_give_back(uint32_t count) {
  count_and_give_back(count);
  CHECK(leave_nothing(count + upcalls));
  spin_target = spin_end;
}

#define UPCALL_ROUNDS 100

/// In the asker: an upcall some time after every second question. After the first question it holds no frames.
static void serve_upcalls(void) {
  for (int round = 0; round < UPCALL_ROUNDS; round++) {
    for (int i = 0; i < 2; i++) {
      struct pm_message question = next_question();
      answer(&question, 0, PM_CAP_NONE);
    }
    pm_sleep(200);
    demand_frames();
  }
}

/// In the victim: `spin` loops from now on until the upcall has come.
static void await_upcall(void) {
  ask(0, PM_CAP_NONE);
  hoard_frames();
  spin_target = spin;
  ask(0, PM_CAP_NONE);
}

static void check_upcalls(survive_t *survive, size_t vectors, size_t vector_size, bool masks) {
  if (!join(2)) return serve_upcalls();
  CHECK_OK(pm_on_return_pages(destroy_and_give_back));
  for (uint32_t round = 0; round < UPCALL_ROUNDS; round++) {
    await_upcall();
    check_survival(survive, 1, vectors, vector_size, masks);
    CHECK_EQ(upcalls, round + 1);
  }
}

PM_TEST_CONTRACT(upcall, 0, 2, 900, 8, "R28: all registers and flags survive an upcall") {
  check_upcalls(spin_sse, 16, 16, false);
}
PM_TEST_CONTRACT(upcall_avx, 0, 2, 900, 8, "R28: AVX registers survive an upcall") {
  if (has_avx()) check_upcalls(spin_avx, 16, 32, false);
  else printf("no AVX here\n");
}
PM_TEST_CONTRACT(upcall_avx512, 0, 2, 900, 8, "R28: AVX-512 registers and masks survive an upcall") {
  if (has_avx512()) check_upcalls(spin_avx512, 32, 64, true);
  else printf("no AVX-512 here\n");
}
PM_TEST_CONTRACT(upcall_x87, 0, 2, 900, 8, "R28: the x87's stack survives an upcall") {
  if (!join(2)) return serve_upcalls();
  CHECK_OK(pm_on_return_pages(destroy_and_give_back));
  for (uint32_t round = 0; round < UPCALL_ROUNDS; round++) {
    await_upcall();
    double values[3];
    __asm__ volatile(
        "fninit\n\tfld1\n\tfldl2t\n\tfldpi\n\tcall spin\n\tfstpl (%0)\n\tfstpl 8(%0)\n\tfstpl 16(%0)" ::"r"(values)
        : "memory");
    CHECK(values[0] > 3.14159 && values[0] < 3.14160);
    CHECK(values[1] > 3.32192 && values[1] < 3.32193);
    CHECK(values[2] == 1);
    CHECK_EQ(upcalls, round + 1);
  }
}

// ---- preemption --------------------------------------------------------------------------------------

PM_TEST(preempted, 0, 8, "Vector registers are each task's own while 8 tasks compute") {
  uint64_t state = (uint64_t)pm_clock_us() | 1, end = pm_clock_us() + 300000;
  static struct registers before, after;
  while (pm_clock_us() < end) {
    randomise(&before, &state);
    before.general[0] = PM_CALL_NULL;
    after = before;
    for (int i = 0; i < 20; i++) {
      call_sse(&after, NULL);
      after.general[0] = PM_CALL_NULL;
      CHECK(!memcmp(after.vectors, before.vectors, sizeof before.vectors));
    }
    __asm__ volatile("ldmxcsr %0\n\tfninit" ::"m"((const uint32_t){0x1f80}));
  }
}

PM_TEST(start_clean, 0, 16, "Safety: a task starts with clean vector and x87 state and general registers") {
  uint8_t vectors[16][16];
  uint32_t control;
  uint16_t x87_control, x87_status;
  __asm__ volatile("stmxcsr %0\n\tfnstcw %1\n\tfnstsw %2" : "=m"(control), "=m"(x87_control), "=m"(x87_status));
  CHECK_EQ(control, 0x1f80);
  CHECK_EQ(x87_control, 0x37f);
  CHECK_EQ(x87_status, 0);
  // The library has used none of the last eight.
  __asm__ volatile(
      "movups %%xmm8, (%0)\n\tmovups %%xmm9, 16(%0)\n\tmovups %%xmm10, 32(%0)\n\tmovups %%xmm11, 48(%0)\n\t"
      "movups %%xmm12, 64(%0)\n\tmovups %%xmm13, 80(%0)\n\tmovups %%xmm14, 96(%0)\n\tmovups %%xmm15, 112(%0)"
      ::"r"(vectors)
      : "memory");
  CHECK(is_zero(vectors, 128));
  // Leaves marks for the next task on this processor.
  __asm__ volatile(
      "pcmpeqd %%xmm8, %%xmm8\n\tpcmpeqd %%xmm15, %%xmm15\n\tfninit\n\tfldpi\n\tldmxcsr %0"
      ::"m"((const uint32_t){0x7fbf}));
}
