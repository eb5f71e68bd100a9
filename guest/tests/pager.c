// The task's own fault handler (R37): the faults that it serves, and the information that it gets.
#include "test.h"

static pm_container_t container;
static struct pm_fault seen;
static volatile int calls;

/// Maps the page of the fault to the frame of the same index in REGION, and allocates the frame if necessary.
static int map_page(const struct pm_fault *fault) {
  seen = *fault;
  calls++;
  uint32_t frame = (uint32_t)((fault->address - (uint64_t)REGION) / PM_PAGE_SIZE), one = 1;
  pm_error_t error = pm_container_allocate(container, frame, &one, 0);
  if (error && error != PM_EEXIST) return 1;
  return pm_container_map(container, frame, 1, PAGE(REGION, frame), LAZY_READ_WRITE);
}

static void set_up(int (*handler)(const struct pm_fault *)) {
  container = make_container(0);
  CHECK_OK(pm_on_fault(handler));
}

// ---- serving ------------------------------------------------------------------------

PM_TEST(serves_a_write, 0, 1, "R37: the handler maps the page, and the write is retried") {
  set_up(map_page);
  *(volatile uint64_t *)(REGION + 128) = 0x1122334455667788;
  CHECK_EQ(*(volatile uint64_t *)(REGION + 128), 0x1122334455667788);
  CHECK_EQ(calls, 1);
}

PM_TEST(serves_a_read, 0, 1, "R37: the handler maps the page, and the read is retried") {
  set_up(map_page);
  CHECK_EQ(*(volatile uint64_t *)(REGION + 128), 0);
  CHECK_EQ(calls, 1);
}

static int instruction_handler(const struct pm_fault *fault) {
  static const uint8_t code[] = {0xb8, 42, 0, 0, 0, 0xc3};
  seen = *fault;
  calls++;
  container = map_fresh(REGION_2, 1);
  memcpy(REGION_2, code, sizeof code);
  return pm_container_map(container, 0, 1, REGION, PM_MAP_EXECUTE);
}

PM_TEST(serves_an_instruction, 0, 1, "R37: the handler maps the page, and the instruction fetch is retried") {
  set_up(instruction_handler);
  CHECK_EQ(((int (*)(void))REGION)(), 42);
  CHECK_EQ(calls, 1);
  CHECK_EQ(seen.access, PM_ACCESS_EXECUTE);
  CHECK_EQ(seen.address, (uint64_t)REGION);
  CHECK_EQ(seen.rip, (uint64_t)REGION);
}

PM_TEST(page_by_page, 0, 1, "R37: 1,000 pages in order, one fault each") {
  set_up(map_page);
  for (uint32_t i = 0; i < 1000; i++) *(uint32_t *)PAGE(REGION, i) = i;
  CHECK_EQ(calls, 1000);
  for (uint32_t i = 0; i < 1000; i++) CHECK_EQ(*(uint32_t *)PAGE(REGION, i), i);
  CHECK_EQ(calls, 1000);
}

PM_TEST(any_order, 0, 1, "R37: pages in random order, many of them repeatedly, with pages unmapped in between") {
  set_up(map_page);
  static uint64_t written[256];
  uint64_t state = 7;
  for (uint64_t i = 1; i < 4000; i++) {
    uint32_t page = next_random(&state) % 256;
    uint64_t *word = (uint64_t *)PAGE(REGION, page) + page;
    CHECK_EQ(*word, written[page]);
    *word = written[page] = i;
    if (i % 3 == 0) CHECK_OK(pm_unmap(PAGE(REGION, next_random(&state) % 256), 1));
  }
}

PM_TEST(across_pages, 0, 1, "R37: an access across two pages is two faults") {
  set_up(map_page);
  *(volatile uint64_t *)(PAGE(REGION, 1) - 3) = UINT64_MAX;
  CHECK_EQ(calls, 2);
  CHECK_EQ(*(volatile uint64_t *)(PAGE(REGION, 1) - 3), UINT64_MAX);
}

PM_TEST(string_instruction, 0, 1, "R37: a repeated instruction continues where it was interrupted") {
  set_up(map_page);
  char *to = REGION + 100;
  uint64_t count = 20 * PM_PAGE_SIZE;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x5a) : "memory");
  CHECK_EQ(calls, 21);
  CHECK_EQ(to, REGION + 100 + 20 * PM_PAGE_SIZE);
  for (uint64_t i = 0; i < 20 * PM_PAGE_SIZE; i++) CHECK_EQ(REGION[100 + i], 0x5a);
  CHECK_EQ(REGION[99] | REGION[100 + 20 * PM_PAGE_SIZE], 0);
}

PM_TEST(server_comes_first, 0, 1, "R25, R37: faults on lazy mappings never reach the handler") {
  set_up(map_page);
  map_fresh(REGION_2, 100);
  fill_pages(REGION_2, 100, 1);
  check_pages(REGION_2, 100, 1);
  CHECK_EQ(calls, 0);
}

PM_TEST(after_deallocation, 0, 1, "R18, R37: faults on a deallocated frame's page reach the handler again") {
  set_up(map_page);
  *(volatile char *)REGION = 1;
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &one, 0));
  CHECK_EQ(*(volatile char *)REGION, 0);
  CHECK_EQ(calls, 2);
}

PM_TEST(pointers_are_not_accesses, 0, 1, "R37: the server does not call the handler for a bad pointer in a call") {
  set_up(map_page);
  CHECK_ERROR(pm_task_info((void *)REGION), PM_EFAULT);
  CHECK_EQ(calls, 0);
}

// ---- information about the fault -----------------------------------------------------------

PM_TEST(told_of_a_read, 0, 1, "R37: address to the byte, instruction and kind of a read") {
  set_up(map_page);
  uint64_t rip, value;
  __asm__ volatile("lea 1f(%%rip), %0\n1:\tmovb (%2), %b1" : "=&r"(rip), "=q"(value) : "r"(REGION + 1234) : "memory");
  CHECK_EQ(seen.address, (uint64_t)REGION + 1234);
  CHECK_EQ(seen.rip, rip);
  CHECK_EQ(seen.access, PM_ACCESS_READ);
  CHECK_EQ(seen.present, 0);
}

PM_TEST(told_of_a_write, 0, 1, "R37: address to the byte, instruction and kind of a write") {
  set_up(map_page);
  uint64_t rip;
  __asm__ volatile("lea 1f(%%rip), %0\n1:\tmovb $1, (%1)" : "=&r"(rip) : "r"(REGION + 4095) : "memory");
  CHECK_EQ(seen.address, (uint64_t)REGION + 4095);
  CHECK_EQ(seen.rip, rip);
  CHECK_EQ(seen.access, PM_ACCESS_WRITE);
  CHECK_EQ(seen.present, 0);
}

PM_TEST(told_of_a_right, 0, 1, "R37: a write to a page mapped read-only, which the handler then allows") {
  set_up(map_page);
  uint32_t one = 1;
  CHECK_OK(pm_container_allocate(container, 0, &one, 0));
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_READ | PM_MAP_LAZY));
  CHECK_EQ(*(volatile char *)REGION, 0);
  CHECK_EQ(calls, 0);
  *(volatile char *)REGION = 5;
  CHECK_EQ(calls, 1);
  CHECK_EQ(seen.access, PM_ACCESS_WRITE);
  CHECK_EQ(seen.present, 1);
  CHECK_EQ(*(volatile char *)REGION, 5);
}

static int allow_execution(const struct pm_fault *fault) {
  seen = *fault;
  calls++;
  return pm_container_map(container, 0, 1, REGION, PM_MAP_READ | PM_MAP_EXECUTE);
}

PM_TEST(told_of_execution, 0, 1, "R37: a jump into a page mapped without the right to execute") {
  CHECK_OK(pm_on_fault(allow_execution));
  container = map_fresh(REGION, 1);
  *(volatile uint8_t *)REGION = 0xc3;
  ((void (*)(void))REGION)();
  CHECK_EQ(calls, 1);
  CHECK_EQ(seen.access, PM_ACCESS_EXECUTE);
  CHECK_EQ(seen.present, 1);
}

static int skip_to_exit(const struct pm_fault *fault) {
  pm_exit(fault->address == 0xffff800000000010u && fault->access == PM_ACCESS_READ ? 9 : 1);
}

PM_TEST(told_of_the_supervisor, 9, 1, "R37: an access to the supervisor half reaches the handler") {
  CHECK_OK(pm_on_fault(skip_to_exit));
  (void)*(volatile char *)0xffff800000000010u;
}
