// Forbidden accesses: rights, the supervisor half, wild pointers, wild jumps.
#include "test.h"

static volatile uint64_t sink;
static const volatile int constant = 42;

static void read_at(uint64_t address) { sink = *(volatile uint8_t *)address; }
static void write_at(uint64_t address) { *(volatile uint8_t *)address = 1; }

// Indirect, so that the compiler cannot see the target; not a tail call, which would leave no frame for a report.
static void jump_to(uint64_t address) { __asm__ volatile("call *%0" ::"r"(address) : "memory"); }

/// A page whose first bytes are `mov $42, %eax; ret`, mapped with these rights.
static void map_code(void *address, uint32_t rights) {
  static const uint8_t code[] = {0xb8, 42, 0, 0, 0, 0xc3};
  pm_container_t container = map_fresh(address, 1);
  memcpy(address, code, sizeof code);
  CHECK_OK(pm_container_map(container, 0, 1, address, rights));
}

// ---- the image --------------------------------------------------------------------

PM_TEST(write_text, DIES_OF_PAGE_FAULT, 1, "Safety: text cannot be written") { write_at((uint64_t)&read_at); }
PM_TEST(write_constants, DIES_OF_PAGE_FAULT, 1, "Safety: constants cannot be written") {
  write_at((uint64_t)&constant);
}
PM_TEST(execute_constants, DIES_OF_PAGE_FAULT, 1, "Safety: constants cannot be executed") {
  jump_to((uint64_t)&constant);
}
PM_TEST(execute_data, DIES_OF_PAGE_FAULT, 1, "Safety: data cannot be executed") {
  static uint8_t code[] = {0xc3};
  jump_to((uint64_t)code);
}
PM_TEST(execute_bss, DIES_OF_PAGE_FAULT, 1, "Safety: zeroed data cannot be executed") { jump_to((uint64_t)&sink); }
PM_TEST(execute_stack, DIES_OF_PAGE_FAULT, 1, "Safety: the stack cannot be executed") {
  volatile uint8_t code[] = {0xc3};
  jump_to((uint64_t)code);
}
PM_TEST(execute_heap, DIES_OF_PAGE_FAULT, 1, "Safety: the heap cannot be executed") {
  uint8_t *code = malloc(1);
  *code = 0xc3;
  jump_to((uint64_t)code);
}

// ---- a mapping's rights -----------------------------------------------------------

PM_TEST(code_made_at_run_time, 0, 1, "R25: code written, then mapped for execution, runs") {
  map_code(REGION, PM_MAP_READ | PM_MAP_EXECUTE | PM_MAP_LAZY);
  CHECK_EQ(((int (*)(void))REGION)(), 42);
  map_code(REGION_2, PM_MAP_EXECUTE);
  CHECK_EQ(((int (*)(void))REGION_2)(), 42);
}
PM_TEST(write_read_only, DIES_OF_PAGE_FAULT, 1, "R25: a read-only mapping cannot be written") {
  map_code(REGION, PM_MAP_READ);
  CHECK_EQ((uint8_t)*REGION, 0xb8);
  write_at((uint64_t)REGION);
}
PM_TEST(write_read_only_untouched, DIES_OF_PAGE_FAULT, 1,
        "R25: a read-only lazy mapping cannot be written as its first access") {
  pm_container_t container = make_container(1);
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_READ | PM_MAP_LAZY));
  write_at((uint64_t)REGION);
}
PM_TEST(write_executable, DIES_OF_PAGE_FAULT, 1, "R25: a mapping for reading and execution cannot be written") {
  map_code(REGION, PM_MAP_READ | PM_MAP_EXECUTE);
  CHECK_EQ(((int (*)(void))REGION)(), 42);
  write_at((uint64_t)REGION);
}
PM_TEST(execute_read_write, DIES_OF_PAGE_FAULT, 1, "R25: a mapping without the right cannot be executed") {
  map_code(REGION, PM_MAP_READ | PM_MAP_WRITE);
  jump_to((uint64_t)REGION);
}
PM_TEST(execute_untouched, DIES_OF_PAGE_FAULT, 1,
        "R25: a lazy mapping without the right cannot be executed as its first access") {
  map_fresh(REGION, 1);
  jump_to((uint64_t)REGION);
}
PM_TEST(right_taken_away, DIES_OF_PAGE_FAULT, 1, "R25: mapping a page again without a right removes the right") {
  pm_container_t container = map_fresh(REGION, 1);
  for (int i = 0; i < 1000; i++) *(volatile char *)REGION = (char)i;
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_READ));
  write_at((uint64_t)REGION);
}

// ---- wild pointers ----------------------------------------------------------------

PM_TEST(read_null, DIES_OF_PAGE_FAULT, 1, "Safety: the null page cannot be read") { read_at(0); }
PM_TEST(write_null, DIES_OF_PAGE_FAULT, 1, "Safety: the null page cannot be written") { write_at(0xfff); }
PM_TEST(read_below_image, DIES_OF_PAGE_FAULT, 1, "Safety: nothing is mapped below the image") {
  read_at(PM_IMAGE_START - 1);
}
PM_TEST(read_heap_unused, DIES_OF_PAGE_FAULT, 1, "Safety: nothing is mapped at an unused heap") {
  read_at(PM_HEAP_START);
}
PM_TEST(read_last_page, DIES_OF_PAGE_FAULT, 1, "Safety: the last page of the user half") { read_at(0x7ffffffff000); }
PM_TEST(read_above_stack, DIES_OF_PAGE_FAULT, 1, "Safety: nothing is mapped above the stack") { read_at(PM_STACK_TOP); }
PM_TEST(read_supervisor_first, DIES_OF_PAGE_FAULT, 1, "Safety: the supervisor's first page cannot be read") {
  read_at(0xffff800000000000);
}
PM_TEST(write_supervisor_first, DIES_OF_PAGE_FAULT, 1, "Safety: the supervisor's first page cannot be written") {
  write_at(0xffff800000000000);
}
PM_TEST(read_supervisor_middle, DIES_OF_PAGE_FAULT, 1, "Safety: the middle of the supervisor half") {
  read_at(0xffffffff80000000);
}
PM_TEST(write_supervisor_last, DIES_OF_PAGE_FAULT, 1,
        "Safety: the last byte of the address space") { write_at(UINT64_MAX); }
PM_TEST(read_descriptor_table, 141 or 142, 1, "Safety: the descriptor table cannot be read") {
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) table = {0, 0xffff800000000000};
  // With UMIP the instruction itself is a protection fault.
  __asm__ volatile("sidt %0" : "=m"(table));
  read_at(table.base | 0xffff800000000000);
}
PM_TEST(write_descriptor_table, 141 or 142, 1, "Safety: the descriptor table cannot be written") {
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) table = {0, 0xffff800000000000};
  __asm__ volatile("sgdt %0" : "=m"(table));
  write_at(table.base | 0xffff800000000000);
}
PM_TEST(read_non_canonical, DIES_OF_PROTECTION_FAULT, 1, "Safety: reading a non-canonical address") {
  read_at(0x0000800000000000);
}
PM_TEST(write_non_canonical, DIES_OF_PROTECTION_FAULT, 1, "Safety: writing a non-canonical address") {
  write_at(0xdeadbeefdeadbeef);
}
PM_TEST(push_non_canonical, DIES_OF_STACK_FAULT, 1, "Safety: a non-canonical stack pointer") {
  __asm__ volatile("mov %0, %%rsp\n\tpush %%rax" ::"r"(0x4141414141414141));
}
PM_TEST(push_supervisor, DIES_OF_PAGE_FAULT, 1, "Safety: a stack in the supervisor half") {
  __asm__ volatile("mov %0, %%rsp\n\tpush %%rax" ::"r"(0xffff800000001000));
}
PM_TEST(call_with_wild_stack, 7, 1, "Safety: a call needs no stack, and the server does not use the task's") {
  __asm__ volatile(
      "mov $0x4141414141414141, %%rsp\n\t"
      "mov $7, %%edi\n\t"
      "mov %0, %%eax\n\t"
      "out %%al, %1" ::"i"(PM_CALL_EXIT),
      "i"(PM_CALL_PORT));
}

// ---- wild jumps -------------------------------------------------------------------

PM_TEST(jump_null, DIES_OF_PAGE_FAULT, 1, "Safety: a call of a null function") { jump_to(0); }
PM_TEST(jump_unmapped, DIES_OF_PAGE_FAULT, 1, "Safety: a jump to an unmapped address") { jump_to((uint64_t)REGION); }
PM_TEST(jump_supervisor, DIES_OF_PAGE_FAULT, 1, "Safety: a jump into the supervisor half") {
  jump_to(0xffff800000000000);
}
PM_TEST(jump_supervisor_high, DIES_OF_PAGE_FAULT, 1, "Safety: a jump to the top of the address space") {
  jump_to(0xffffffff80000000);
}
PM_TEST(jump_non_canonical, DIES_OF_PROTECTION_FAULT, 1, "Safety: a jump to a non-canonical address") {
  jump_to(0x0000900000000000);
}
PM_TEST(return_non_canonical, DIES_OF_PROTECTION_FAULT, 1, "Safety: a return to a non-canonical address") {
  __asm__ volatile("push %0\n\tret" ::"r"(0x8000000000000000));
}
PM_TEST(runs_off_the_half, 141 or 142, 1, "Safety: execution that continues beyond the user half") {
  // The last bytes of the user half: the next instruction would be at a non-canonical address.
  char *last = (char *)(PM_USER_END - PM_PAGE_SIZE);
  pm_container_t container = map_fresh(last, 1);
  memset(last, 0x90, PM_PAGE_SIZE);
  CHECK_OK(pm_container_map(container, 0, 1, last, PM_MAP_READ | PM_MAP_EXECUTE));
  jump_to((uint64_t)last);
}
PM_TEST(runs_off_a_page, DIES_OF_PAGE_FAULT, 1, "Safety: an instruction that ends in an unmapped page") {
  pm_container_t container = map_fresh(REGION, 1);
  memset(REGION, 0x90, PM_PAGE_SIZE);
  REGION[PM_PAGE_SIZE - 1] = (char)0xb8;
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_READ | PM_MAP_EXECUTE));
  jump_to((uint64_t)REGION);
}
