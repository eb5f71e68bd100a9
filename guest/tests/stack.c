// The stack: its size, its guard, and its contents at the start.
#include "test.h"

#define STACK_BOTTOM (PM_STACK_TOP - PM_STACK_PAGES * PM_PAGE_SIZE)

static volatile char sink;

PM_TEST(whole_stack, 0, 1, "R16: every page of the stack can be used, from the top down") {
  for (uint64_t address = (uint64_t)__builtin_frame_address(0) & -PM_PAGE_SIZE; address > STACK_BOTTOM;) {
    address -= PM_PAGE_SIZE;
    CHECK_EQ(*(volatile uint64_t *)address, 0);
    *(volatile uint64_t *)address = address;
  }
  CHECK_EQ(*(volatile uint64_t *)STACK_BOTTOM, STACK_BOTTOM);
}

PM_TEST(whole_stack_upwards, 0, 1, "R16: every page of the stack can be used, from the bottom up") {
  uint64_t used = (uint64_t)__builtin_frame_address(0) & -PM_PAGE_SIZE;
  for (uint64_t address = STACK_BOTTOM; address < used; address += PM_PAGE_SIZE)
    *(volatile uint64_t *)address = address;
  for (uint64_t address = STACK_BOTTOM; address < used; address += PM_PAGE_SIZE)
    CHECK_EQ(*(volatile uint64_t *)address, address);
}

static uint64_t depth(uint64_t levels) {
  volatile char frame[2048];
  frame[0] = frame[2047] = (char)levels;
  uint64_t below = levels ? depth(levels - 1) : 0;
  return below + (frame[0] == (char)levels && frame[2047] == (char)levels);
}

PM_TEST(recursion, 0, 1, "R16: recursion over most of the stack, and back") { CHECK_EQ(depth(55), 56); }

PM_TEST(overflow, DIES_OF_PAGE_FAULT, 1, "Safety: endless recursion ends in the guard") { sink = (char)depth(100000); }
PM_TEST(guard_read, DIES_OF_PAGE_FAULT, 1, "Safety: the guard's first byte") {
  sink = *(volatile char *)(STACK_BOTTOM - 1);
}
PM_TEST(guard_write, DIES_OF_PAGE_FAULT, 1, "Safety: the guard's last page") {
  *(volatile char *)(STACK_BOTTOM - PM_STACK_GUARD_PAGES * PM_PAGE_SIZE) = 1;
}
PM_TEST(above_top, DIES_OF_PAGE_FAULT, 1, "Safety: the first byte above the stack") {
  *(volatile char *)PM_STACK_TOP = 1;
}

PM_TEST(red_zone, 0, 1, "Safety: calls and faults push nothing below the task's stack pointer") {
  map_fresh(REGION, 64);
  uint64_t wrong = 0;
  for (int i = 0; i < 64; i++) {
    __asm__ volatile(
        "movq $0x1234567, -8(%%rsp)\n\tmovq $0x89abcde, -128(%%rsp)\n\t"
        "mov %[number], %%eax\n\tout %%al, %[port]\n\tmovb $1, (%[page])\n\t"
        "xorq $0x1234567, -8(%%rsp)\n\txorq $0x89abcde, -128(%%rsp)\n\t"
        "or -8(%%rsp), %[wrong]\n\tor -128(%%rsp), %[wrong]"
        : [wrong] "+r"(wrong)
        : [number] "i"(PM_CALL_NULL), [port] "i"(PM_CALL_PORT), [page] "r"(PAGE(REGION, i))
        : "rax", "cc", "memory");
  }
  CHECK_EQ(wrong, 0);
}
