// The library restores mappings that a server without a mapping cache has forgotten (R25, R27). Here each page is
// unmapped behind the library's back, which has the same effect.
#include "test.h"

static pm_container_t container;
static volatile int calls;

/// From here on the library records mappings, with a server that keeps mappings too.
static void set_up(uint32_t count) {
  pm_start_flags |= PM_START_NO_MAPPING_CACHE;
  container = map_numbered(REGION, count, 100);
}

static void forget(void *address, uint32_t count) {
  CHECK_OK(raw_call(PM_CALL_UNMAP, (uint64_t)address, count, 0, 0, 0));
}

PM_TEST(data_stays, 0, 1, "R25: every page is mapped again at its next access, with its data, in any order") {
  set_up(50);
  uint64_t state = 3;
  for (int round = 0; round < 20; round++) {
    forget(PAGE(REGION, next_random(&state) % 40), 10);
    for (int i = 0; i < 10; i++) {
      uint32_t page = next_random(&state) % 50;
      CHECK_EQ(WORD(REGION, page), 100 + page);
      WORD(REGION, page) = 100 + page;
    }
  }
  forget(REGION, 50);
  check_numbered(REGION, 50, 100);
}

PM_TEST(what_is_mapped_now, 0, 1, "R25: a mapping that was replaced or partly unmapped is not restored") {
  set_up(10);
  pm_container_t other = make_container(3);
  map_lazily(other, 0, 3, PAGE(REGION, 4));
  for (uint32_t i = 4; i < 7; i++) WORD(REGION, i) = 500 + i;
  CHECK_OK(pm_unmap(PAGE(REGION, 8), 1));
  forget(REGION, 10);
  check_numbered(REGION, 4, 100);
  check_numbered(PAGE(REGION, 4), 3, 504);
  CHECK_EQ(WORD(REGION, 7), 107);
  CHECK_EQ(WORD(REGION, 9), 109);
  CHECK(read_faults(PAGE(REGION, 8)));
}

PM_TEST(rights_stay, 0, 1, "R25: a page keeps its rights: a write to a read-only page is a fault") {
  set_up(1);
  CHECK_OK(pm_container_map(container, 0, 1, REGION_2, PM_MAP_READ | PM_MAP_LAZY));
  forget(REGION_2, 1);
  CHECK(write_faults(REGION_2));
  CHECK_EQ(probed.present, 1);
  check_numbered(REGION, 1, 100);
}

PM_TEST(read_only_untouched, DIES_OF_PAGE_FAULT, 1,
        "R25: a write to a read-only page before any access is a fault that ends the task") {
  set_up(1);
  CHECK_OK(pm_container_map(container, 0, 1, REGION_2, PM_MAP_READ | PM_MAP_LAZY));
  forget(REGION_2, 1);
  WORD(REGION_2, 0) = 1;
}

PM_TEST(copies_nothing, 0, 1, "R26: a PM_MAP_FORCE_WRITE page that became shared is copied by a write only") {
  set_up(2);
  CHECK_OK(pm_container_map(container, 0, 2, REGION_2, PM_MAP_FORCE_WRITE));
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, 2, NULL));
  map_lazily(copies, 0, 2, PAGE(REGION, 10));
  check_numbered(PAGE(REGION, 10), 2, 100);
  forget(REGION_2, 2);
  check_numbered(REGION_2, 2, 100);
  for (int i = 0; i < 2; i++)
    CHECK_SAME_FRAME(mapping_at(PAGE(REGION_2, i)).physical, mapping_at(PAGE(REGION, 10 + i)).physical);
  WORD(REGION_2, 0) = 1;
  CHECK_EQ(WORD(REGION_2, 0), 1);
  check_numbered(PAGE(REGION, 10), 2, 100);
}

/// Unmaps a page that it uses, and one that an argument of its call points to.
static int loses_pages(const struct pm_fault *fault) {
  calls++;
  register double kept __asm__("xmm5") = 7.0;
  __asm__ volatile("" : "+x"(kept));
  forget(REGION_2, 2);
  WORD(REGION_2, 0) += 1;
  forget(REGION_2, 2);
  if (pm_task_info((struct pm_task_info *)PAGE(REGION_2, 1))) return 1;
  __asm__ volatile("" : "+x"(kept));
  if (kept != 7.0) return 1;
  return pm_container_map(container, 0, 1, (void *)(fault->address & -(uint64_t)PM_PAGE_SIZE), LAZY_READ_WRITE);
}

PM_TEST(in_the_handler, 0, 1,
        "R25, R37: if the server keeps no mappings, pages that the fault handler uses are restored") {
  // Only such a server enters a handler again, and reports faults of a call's pointer.
  if (!(pm_start_flags & PM_START_NO_MAPPING_CACHE)) return;
  set_up(1);
  pm_container_t used = map_fresh(REGION_2, 2);
  CHECK(used != 0);
  CHECK_OK(pm_on_fault(loses_pages));
  for (int i = 0; i < 10; i++) CHECK_EQ(WORD(REGION, 100 + i), 100);
  CHECK_EQ(calls, 10);
  CHECK_EQ(WORD(REGION_2, 0), 10);
}

static int faults_itself(const struct pm_fault *fault) {
  calls++;
  *(volatile char *)(fault->address + PM_PAGE_SIZE) = 1;
  return 0;
}

PM_TEST(fault_in_handler, DIES_OF_PAGE_FAULT, 1,
        "R37: a fault in the handler at an address that was never mapped ends the task") {
  set_up(1);
  CHECK_OK(pm_on_fault(faults_itself));
  *(volatile char *)PAGE(REGION, 100) = 1;
}
