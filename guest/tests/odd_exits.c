// Unusual exits of a task: strings to and from the call port, flags that affect the next instruction, privilege levels
// and modes that tasks must not reach. They may end the task, but must not affect others.
#include "processor.h"
#include "test.h"

static char bytes[2 * PM_PAGE_SIZE] __attribute__((aligned(PM_PAGE_SIZE))) = {[0 ... 2 * PM_PAGE_SIZE - 1] = 0x5a};

// ---- reading the call port: the I/O bitmap does not distinguish reads from writes ----------------

#define READS(name, summary, count, to, instruction)                                               \
  PM_TEST(name, DIES_OF_PROTECTION_FAULT, 1, summary) {                                            \
    __asm__ volatile(instruction ::"a"(0), "c"(count), "d"(PM_CALL_PORT), "D"(to) : "memory", "cc"); \
  }
READS(in_byte, "Safety: reading the call port", 0, 0, "in %%dx, %%al")
READS(in_string, "Safety: a string of one byte from the call port", 1, bytes, "insb")
READS(in_strings, "Safety: a string of 8 bytes from the call port", 8, bytes, "rep insb")
READS(in_pages, "Safety: a string of more than a page from the call port", 5000, bytes, "rep insb")
READS(in_endless, "Safety: a string without end from the call port", -1, bytes, "rep insb")
READS(in_down, "Safety: a string from the call port, downwards", 5000, bytes + 5000, "std\n\trep insb")
READS(in_unmapped, "Safety: a string from the call port to an unmapped address", 8, REGION, "rep insb")
READS(in_supervisor, "Safety: a string from the call port to the supervisor half", 8, 0xffff800000200000,
      "rep insb")
READS(in_text, "Safety: a string from the call port to text", 8, &test_in_byte, "rep insb")
READS(in_word, "Safety: a word from the call port", 1, bytes, "insw")
READS(in_double_words, "Safety: double words from the call port", 100, bytes, "rep insl")

// ---- writing strings to it: each byte is a call ------------------------------------------------------

static void out_string(const void *from, uint64_t count, uint64_t number) {
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count), "+a"(number) : "d"(PM_CALL_PORT), "D"(7) : "memory");
}

PM_TEST(out_strings, 0, 1, "A string to the call port: each byte is a call, and then the next instruction runs") {
  uint64_t count = 100, result = PM_CALL_NULL;
  const char *from = bytes;
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count), "+a"(result) : "d"(PM_CALL_PORT) : "memory");
  CHECK_EQ(count, 0);
  CHECK_EQ(from, bytes + 100);
  CHECK_EQ(result, PM_OK);
}
PM_TEST(out_string_exit, 7, 1, "Safety: a task that ends in the middle of a string") {
  out_string(bytes, 5000, PM_CALL_EXIT);
}
PM_TEST(out_string_exit_endless, 7, 1, "Safety: a task that ends in the middle of a string without end") {
  out_string(bytes, UINT64_MAX, PM_CALL_EXIT);
}
PM_TEST(out_string_unmapped, DIES_OF_PAGE_FAULT, 1, "Safety: a string to the call port from an unmapped address") {
  out_string(REGION, 100, PM_CALL_NULL);
}
PM_TEST(out_string_supervisor, DIES_OF_PAGE_FAULT, 1, "Safety: a string to the call port from the supervisor half") {
  out_string((void *)0xffff800000000000, 100, PM_CALL_NULL);
}
PM_TEST(out_string_non_canonical, DIES_OF_PROTECTION_FAULT, 1,
        "Safety: a string to the call port from a non-canonical address") {
  out_string((void *)0x4141414141414141, 100, PM_CALL_NULL);
}
PM_TEST(out_string_lazy, 0, 1, "R25: a string to the call port from untouched pages") {
  map_fresh(REGION, 3);
  out_string(REGION + 100, 2 * PM_PAGE_SIZE, PM_CALL_NULL);
}

// ---- calls at the boundary of two pages ------------------------------------------------------------------

/// Two pages of code at REGION with `out %al, $0x50; ret` placed so that `tail` bytes of the first page follow its
/// first byte. Maps `pages` of them.
static void (*call_at_border(size_t tail, uint32_t pages, uint32_t flags))(void) {
  static const uint8_t code[] = {0xe6, PM_CALL_PORT, 0xc3};
  pm_container_t container = map_fresh(REGION_2, 2);
  char *at = PAGE(REGION_2, 1) - 1 - tail;
  memcpy(at, code, sizeof code);
  CHECK_OK(pm_container_map(container, 0, pages, REGION, PM_MAP_EXECUTE | flags));
  return (void (*)(void))(uintptr_t)(REGION + (at - REGION_2));
}

static uint64_t call_code(void (*code)(void)) {
  uint64_t result;
  __asm__ volatile("call *%1" : "=a"(result) : "r"(code), "0"(PM_CALL_NULL | 0x1234500000000) : "memory");
  return result;
}

PM_TEST(border_through, 0, 1, "A call whose instruction crosses two pages") {
  CHECK_EQ(call_code(call_at_border(0, 2, 0)), PM_OK);
}
PM_TEST(border_through_lazy, 0, 1, "R25: a call whose instruction crosses two untouched pages") {
  CHECK_EQ(call_code(call_at_border(0, 2, PM_MAP_LAZY)), PM_OK);
}
PM_TEST(border_missing, DIES_OF_PAGE_FAULT, 1, "Safety: a call whose instruction's second half is not mapped") {
  call_code(call_at_border(0, 1, 0));
}
PM_TEST(border_before, DIES_OF_PAGE_FAULT, 1, "Safety: a call that is the last instruction before an unmapped page") {
  call_code(call_at_border(1, 1, 0));
}
PM_TEST(border_before_lazy, 0, 1, "R25: a call that is the last instruction before an untouched page") {
  CHECK_EQ(call_code(call_at_border(1, 2, PM_MAP_LAZY)), PM_OK);
}
PM_TEST(border_exit, 7, 1, "A task whose last call ends at its last mapped byte") {
  void (*code)(void) = call_at_border(1, 1, 0);
  __asm__ volatile("jmp *%0" ::"r"(code), "a"(PM_CALL_EXIT), "D"(7));
}

PM_TEST(code_through_another_mapping, 0, 1, "R25: a change of code through a second mapping takes effect at once") {
  pm_container_t container = map_fresh(REGION_2, 1);
  uint8_t *code = (uint8_t *)REGION_2;
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_EXECUTE));
  for (int i = 0; i < 1000; i++) {
    // Alternates a call with an instruction of the same length that loads a constant, at the same address.
    memcpy(code, i % 2 ? (uint8_t[]){0xe6, PM_CALL_PORT, 0xc3} : (uint8_t[]){0xb0, 0x77, 0xc3}, 3);
    CHECK_EQ(call_code((void (*)(void))(uintptr_t)REGION), i % 2 ? (uint64_t)PM_OK : 0x1234500000077);
  }
}

// ---- flags and bases that a fault must not change ------------------------------------------------------

#define NESTED_TASK 0x4000u
#define ALIGNMENT_CHECK 0x40000u
#define IDENTIFICATION 0x200000u
#define IO_PRIVILEGE 0x3000u

/// The flags after a write to `address` with `flags` set.
static uint64_t flags_over_write(void *address, uint64_t flags) {
  uint64_t after;
  __asm__ volatile(
      "pushf\n\tor %1, (%%rsp)\n\tpopf\n\tmovb $1, (%2)\n\tpushf\n\tpop %0\n\tpush $0x202\n\tpopf"
      : "=&r"(after)
      : "r"(flags), "r"(address)
      : "memory", "cc");
  return after;
}

static void check_flags(void *address) {
  // The nested-task flag has no effect in 64-bit code, and kvm_pvm drops it.
  const uint64_t flags = ALIGNMENT_CHECK | IDENTIFICATION;
  uint64_t after = flags_over_write(address, flags | NESTED_TASK | IO_PRIVILEGE);
  CHECK_EQ(after & flags, flags);
  CHECK_EQ(after & IO_PRIVILEGE, 0);
  CHECK_EQ(after & 0x202, 0x202);
}

PM_TEST(odd_flags, 0, 1, "R25: unusual flags survive a fault, and none grants a privilege") {
  map_fresh(REGION, 1);
  check_flags(REGION);
}

static uint64_t handler_flags;

static int map_region(const struct pm_fault *fault) {
  (void)fault;
  __asm__ volatile("pushf\n\tpop %0" : "=r"(handler_flags)::"memory");
  map_fresh(REGION, 1);
  return 0;
}

PM_TEST(odd_flags_own, 0, 1, "R37: the task's own handler neither sees nor changes unusual flags") {
  CHECK_OK(pm_on_fault(map_region));
  check_flags(REGION);
  CHECK_EQ(handler_flags & (NESTED_TASK | ALIGNMENT_CHECK | IDENTIFICATION | IO_PRIVILEGE | 0x500), 0);
}

PM_TEST(traced_fault, DIES_OF_DEBUG_TRAP, 1, "R37: the trap flag is clear in a handler and restored on return") {
  CHECK_OK(pm_on_fault(map_region));
  flags_over_write(REGION, 0x100);
}

/// Sets both bases behind null selectors, writes to an untouched page, and calls.
PM_TEST(bases, 0, 4, "R25: the bases of FS and GS, and null selectors, survive faults and calls") {
  if (!has_fs_gs_base()) return;
  map_fresh(REGION, 50);
  for (uint64_t i = 0; i < 50; i++) {
    uint64_t fs = 0x1234500000 + i, gs = 0x7edcba987654 - i, fs_after, gs_after;
    __asm__ volatile(
        "xor %%eax, %%eax\n\tmov %%eax, %%ds\n\tmov %%eax, %%es\n\tmov %%eax, %%fs\n\tmov %%eax, %%gs\n\t"
        "wrfsbase %[fs]\n\twrgsbase %[gs]\n\tmovb $1, (%[page])\n\tmov %[null], %%eax\n\tout %%al, %[port]\n\t"
        "rdfsbase %[fs_after]\n\trdgsbase %[gs_after]"
        : [fs_after] "=&r"(fs_after), [gs_after] "=&r"(gs_after)
        : [fs] "r"(fs), [gs] "r"(gs), [page] "r"(PAGE(REGION, i)), [null] "i"(PM_CALL_NULL), [port] "i"(PM_CALL_PORT)
        : "rax", "memory");
    CHECK_EQ(fs_after, fs);
    CHECK_EQ(gs_after, gs);
  }
}

// ---- returns from a handler that was cleared or left -------------------------------------------------------------

static volatile int faults;

static int count_and_map(const struct pm_fault *fault) {
  faults++;
  pm_container_t container = make_container(1);
  if (pm_container_map(container, 0, 1, (void *)(fault->address & -PM_PAGE_SIZE), LAZY_READ_WRITE)) return 1;
  // No handler from here on; this fault still returns.
  return pm_on_fault(NULL);
}

PM_TEST(handler_gone, DIES_OF_PAGE_FAULT, 1, "R37: a handler that clears itself still returns, once") {
  CHECK_OK(pm_on_fault(count_and_map));
  *(volatile char *)REGION = 1;
  CHECK_EQ(faults, 1);
  CHECK_ERROR(raw_call(PM_CALL_FAULT_RETURN, 0, 0, 0, 0, 0), PM_EINVAL);
  *(volatile char *)PAGE(REGION, 1) = 1;
}

/// Leaves the handler by a jump: the task continues as if inside it.
static void *stack_before;
static int jump_out(const struct pm_fault *fault) {
  (void)fault;
  if (faults++) return 1;
  __asm__ volatile("mov %0, %%rsp\n\tjmp landed" ::"r"(stack_before) : "memory");
  return 1;
}

PM_TEST(left_by_jump, DIES_OF_PAGE_FAULT, 1, "R37: a task that jumps out of its handler cannot handle another fault") {
  CHECK_OK(pm_on_fault(jump_out));
  __asm__ volatile("mov %%rsp, %0\n\tmovabs %1, %%rax\n\tmovb $1, (%%rax)\n.globl landed\nlanded:"
                   : "=m"(stack_before)
                   : "i"(REGION)
                   : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                     "memory", "cc");
  CHECK_EQ(faults, 1);
  *(volatile char *)PAGE(REGION, 1) = 1;
}

// ---- one instruction for all calls ---------------------------------------------------------------------

/// `out %al, $0x50; ret` at REGION, mapped there only by the handler, which returns through the same instruction.
static pm_container_t stub_container;

__attribute__((naked, noreturn)) static void return_through_stub(void) {
  __asm__(
      "call map_stub\n\t"
      "mov %0, %%eax\n\t"
      "xor %%edi, %%edi\n\t"
      "movabs %1, %%rcx\n\t"
      "jmp *%%rcx" ::"i"(PM_CALL_FAULT_RETURN),
      "i"(REGION));
}

__attribute__((used)) static void map_stub(void) {
  faults++;
  CHECK_OK(pm_container_map(stub_container, 0, 1, REGION, PM_MAP_EXECUTE));
}

PM_TEST(returns_through_faulting_call, 0, 1,
        "R37: the handler of a fault at a call returns through that same instruction") {
  stub_container = map_fresh(REGION_2, 1);
  memcpy(REGION_2, (uint8_t[]){0xe6, PM_CALL_PORT, 0xc3}, 3);
  static uint8_t stack[8192] __attribute__((aligned(16)));
  CHECK_OK(raw_call(PM_CALL_ON_FAULT, (uint64_t)return_through_stub, (uint64_t)(stack + sizeof stack), 0, 0, 0));
  uint64_t time = 0, result = PM_CALL_CLOCK;
  __asm__ volatile("call *%2" : "+a"(result) : "D"(&time), "r"(REGION) : "memory", "rcx");
  CHECK_EQ(faults, 1);
  CHECK_EQ(result, PM_OK);
  CHECK(time != 0);
}

/// For a server that keeps no mappings: each of these calls asks the handler about its pointer.
static int give_up(const struct pm_fault *fault) {
  (void)fault;
  return 1;
}

PM_TEST(wild_pointers_forever, 0, 1, "Safety: calls with wild pointers; with one more argument, endless") {
  CHECK_OK(pm_on_fault(give_up));
  for (int i = 0; i < 100 || pm_argument_count() > 2; i++)
    CHECK_ERROR(raw_call(PM_CALL_CLOCK, (uint64_t)REGION, 0, 0, 0, 0), PM_EFAULT);
}

// ---- calls that take long ------------------------------------------------------------------------------

PM_TEST(long_write, 0, 1,
        "Safety: a text of many GiB, mapped to the same few frames; without more arguments, of 16 MiB") {
  pm_container_t container = make_container(4096);
  uint32_t times = pm_argument_count() > 2 ? 500 : 1;
  for (uint32_t i = 0; i < times; i++)
    CHECK_OK(pm_container_map(container, 0, 4096, PAGE(REGION, i * 4096), PM_MAP_READ | PM_MAP_LAZY));
  CHECK_OK(pm_write(REGION, (size_t)times * 4096 * PM_PAGE_SIZE));
}

// ---- other tasks ---------------------------------------------------------------------------------------

PM_TEST(untouched, 0, 1, "Safety: unfinished writes of other tasks do not land in this one's memory") {
  for (uint64_t end = pm_clock_us() + 300; pm_clock_us() < end;)
    for (size_t i = 0; i < sizeof bytes; i++) CHECK_EQ(bytes[i], 0x5a);
}
