// The task's own fault handler (R37): how it runs, what it may do, and how it fails.
#include "test.h"

static pm_container_t container;
static volatile int calls;

/// Maps the page of the fault to the frame of the same index in REGION, and allocates the frame if necessary.
static int map_page(const struct pm_fault *fault) {
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

// ---- the handler itself ---------------------------------------------------------------------

static int busy_handler(const struct pm_fault *fault) {
  char text[200];
  snprintf(text, sizeof text, "fault at %#lx", fault->address);
  char *copy = malloc(100000);
  if (!copy) return 1;
  memset(copy, 1, 100000);
  strcpy(copy, text);
  free(copy);
  struct pm_task_info info;
  if (pm_task_info(&info)) return 1;
  pm_sleep(100);
  return map_page(fault);
}

PM_TEST(handler_works, 0, 1, "R37: the handler may call the server, allocate, and touch lazy memory") {
  set_up(busy_handler);
  for (uint32_t i = 0; i < 50; i++) *(volatile char *)PAGE(REGION, i) = 1;
  CHECK_EQ(calls, 50);
}

static int on_own_stack(const struct pm_fault *fault) {
  uint64_t here = (uint64_t)__builtin_frame_address(0);
  // 20 KiB of locals: the handler's stack must be large enough.
  volatile char large[20 << 10];
  for (size_t i = 0; i < sizeof large; i += 512) large[i] = (char)i;
  bool on_main_stack = here < PM_STACK_TOP && here > PM_STACK_TOP - PM_STACK_PAGES * PM_PAGE_SIZE;
  return on_main_stack || large[512] ? 1 : map_page(fault);
}

PM_TEST(own_stack, 0, 1, "R37: the handler runs on a stack of its own, of at least 20 KiB") {
  set_up(on_own_stack);
  *(volatile char *)REGION = 1;
  CHECK_EQ(calls, 1);
}

static int exit_with_7(const struct pm_fault *fault) { pm_exit(fault->access == PM_ACCESS_WRITE ? 7 : 1); }

static uint64_t recurse(uint64_t levels) {
  volatile char frame[1024];
  frame[0] = (char)levels;
  return (levels ? recurse(levels - 1) : 0) + (uint64_t)frame[0];
}

PM_TEST(stack_overflow, 7, 1, "R37: the handler can handle a stack overflow, since it runs on another stack") {
  CHECK_OK(pm_on_fault(exit_with_7));
  CHECK(recurse(1000000) == 1);
}

static int hundred_times(const struct pm_fault *fault) { return calls < 100 ? (calls++, 0) : map_page(fault); }

PM_TEST(retries, 0, 1, "R37: a handler that returns retry without mapping the page is called again") {
  set_up(hundred_times);
  *(volatile char *)REGION = 1;
  CHECK_EQ(calls, 101);
}

static int refuse(const struct pm_fault *fault) {
  (void)fault;
  return 1;
}

PM_TEST(refuses, DIES_OF_PAGE_FAULT, 1, "R37: a handler that gives up lets the task die of the fault") {
  CHECK_OK(pm_on_fault(refuse));
  *(volatile char *)REGION = 1;
}

static int faults_itself(const struct pm_fault *fault) {
  *(volatile char *)(fault->address + PM_PAGE_SIZE) = 1;
  return 0;
}

PM_TEST(fault_in_handler, DIES_OF_PAGE_FAULT, 1,
        "R37: a fault in the handler that the server does not serve ends the task") {
  CHECK_OK(pm_on_fault(faults_itself));
  *(volatile char *)REGION = 1;
}

/// Overflows the handler's stack, page by page.
static int overflows(const struct pm_fault *fault) {
  volatile char large[112 << 10];
  for (size_t i = sizeof large; i > 0; i -= 512) large[i - 1] = 1;
  return map_page(fault);
}

PM_TEST(handler_overflows, DIES_OF_PAGE_FAULT, 1, "R37: a handler that overflows its stack overwrites nothing") {
  set_up(overflows);
  *(volatile char *)REGION = 1;
}

static int uses_32_KiB(const struct pm_fault *fault) {
  volatile char large[31 << 10];
  for (size_t i = sizeof large; i > 0; i -= 512) large[i - 1] = 1;
  return map_page(fault);
}

PM_TEST(handler_has_32_KiB, 0, 1, "R37: a handler has 32 KiB of stack") {
  set_up(uses_32_KiB);
  *(volatile char *)REGION = 1;
  CHECK_EQ(calls, 1);
}

static int executes_nothing(const struct pm_fault *fault) {
  (void)fault;
  __builtin_trap();
}

PM_TEST(exception_in_handler, DIES_OF_INVALID_INSTRUCTION, 1, "R37: another exception in the handler ends the task") {
  CHECK_OK(pm_on_fault(executes_nothing));
  *(volatile char *)REGION = 1;
}

PM_TEST(only_page_faults, DIES_OF_INVALID_INSTRUCTION, 1, "R37: other exceptions never reach the handler") {
  set_up(map_page);
  __builtin_trap();
}

PM_TEST(only_page_faults_2, DIES_OF_PROTECTION_FAULT, 1, "R37: a non-canonical address never reaches the handler") {
  set_up(map_page);
  *(volatile char *)0x0000a00000000000 = 1;
}

PM_TEST(no_handler, DIES_OF_PAGE_FAULT, 1, "R37: null clears the handler") {
  set_up(map_page);
  *(volatile char *)REGION = 1;
  CHECK_OK(pm_on_fault(NULL));
  *(volatile char *)PAGE(REGION, 1) = 1;
}

static int hand_over(const struct pm_fault *fault) {
  (void)fault;
  return pm_on_fault(map_page);
}

PM_TEST(hands_over, 0, 1, "R37: a handler may set another handler") {
  set_up(hand_over);
  *(volatile char *)REGION = 1;
  *(volatile char *)PAGE(REGION, 1) = 1;
  CHECK_EQ(calls, 2);
}

// ---- the bare call -----------------------------------------------------------------------------

PM_TEST(return_without_fault, 0, 1, "Safety: a fault return outside a handler fails") {
  CHECK_ERROR(raw_call(PM_CALL_FAULT_RETURN, 0, 0, 0, 0, 0), PM_EINVAL);
  CHECK_ERROR(raw_call(PM_CALL_FAULT_RETURN, 1, 0, 0, 0, 0), PM_EINVAL);
}

PM_TEST(wild_entries, 0, 1, "Safety: an entry or stack outside the user half is rejected") {
  const uint64_t bad[] = {0xffff800000000000, 0x0000800000000000, UINT64_MAX, PM_USER_END + 16, 0x4141414141414141};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_ERROR(raw_call(PM_CALL_ON_FAULT, bad[i], (uint64_t)REGION, 0, 0, 0), PM_EINVAL);
    CHECK_ERROR(raw_call(PM_CALL_ON_FAULT, (uint64_t)REGION, bad[i], 0, 0, 0), PM_EINVAL);
  }
}

PM_TEST(entry_unmapped, DIES_OF_PAGE_FAULT, 1, "Safety: an entry that cannot be executed is a fault in the handler") {
  CHECK_OK(raw_call(PM_CALL_ON_FAULT, (uint64_t)REGION_2, PM_STACK_TOP - PM_PAGE_SIZE, 0, 0, 0));
  *(volatile char *)REGION = 1;
}

PM_TEST(stack_unmapped, DIES_OF_PAGE_FAULT, 1, "Safety: an unmapped fault stack is a fault in the handler") {
  CHECK_OK(raw_call(PM_CALL_ON_FAULT, (uint64_t)&refuse, (uint64_t)REGION_2, 0, 0, 0));
  *(volatile char *)REGION = 1;
}
