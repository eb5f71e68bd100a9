// Maps and unmaps that fail and change nothing (R25).
#include "test.h"

static pm_container_t container;

static pm_error_t map(uint32_t start, uint32_t count, uint64_t address, uint32_t flags) {
  return pm_container_map(container, start, count, (void *)address, flags);
}

// Mappings that no failed call may change.
static void set_up(void) {
  container = map_fresh(REGION, 8);
  fill_pages(REGION, 8, 1);
}

static void tear_down(void) {
  check_pages(REGION, 8, 1);
  CHECK_EQ(mapping_at(REGION).container, container);
}

PM_TEST(addresses, 0, 1, "R25: addresses that are unaligned, outside the user half, or reach out of it") {
  set_up();
  const uint64_t page = PM_PAGE_SIZE, last = PM_USER_END - PM_PAGE_SIZE;
  const uint64_t bad[] = {0,
                          PM_USER_START - page,
                          PM_USER_END,
                          PM_USER_END + page,
                          0x0000800000000000,
                          0x0000800000000000 - page,
                          0x4000000000000000,
                          0xffff7ffffffff000,
                          0xffff800000000000,
                          0xffffffff80000000,
                          0xfffffffffffff000,
                          (uint64_t)REGION + 1,
                          (uint64_t)REGION + 8,
                          (uint64_t)REGION + 4095,
                          (uint64_t)REGION + 0x800};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_ERROR(map(0, 1, bad[i], LAZY_READ_WRITE), PM_EINVAL);
    CHECK_ERROR(map(0, 1, bad[i], PM_MAP_READ), PM_EINVAL);
    CHECK_ERROR(pm_unmap((void *)bad[i], 1), PM_EINVAL);
  }
  CHECK_OK(map(0, 1, last, LAZY_READ_WRITE));
  CHECK_ERROR(map(0, 2, last, LAZY_READ_WRITE), PM_EINVAL);
  CHECK_ERROR(map(0, 8, last - 6 * page, LAZY_READ_WRITE), PM_EINVAL);
  CHECK_ERROR(pm_unmap((void *)last, 2), PM_EINVAL);
  CHECK_OK(map(0, 1, PM_USER_START, LAZY_READ_WRITE));
  tear_down();
}

PM_TEST(counts, 0, 1, "R25: count 0, and counts whose pages or ids overflow") {
  set_up();
  CHECK_ERROR(map(0, 0, (uint64_t)REGION, LAZY_READ_WRITE), PM_EINVAL);
  CHECK_ERROR(pm_unmap(REGION, 0), PM_EINVAL);
  CHECK_ERROR(map(1, UINT32_MAX, (uint64_t)REGION, LAZY_READ_WRITE), PM_ENOENT);
  CHECK_ERROR(map(2, UINT32_MAX, (uint64_t)REGION, LAZY_READ_WRITE), PM_EINVAL);
  CHECK_ERROR(map(UINT32_MAX, UINT32_MAX, (uint64_t)REGION, LAZY_READ_WRITE), PM_EINVAL);
  CHECK_ERROR(map(0, UINT32_MAX, PM_USER_END - PM_PAGE_SIZE, LAZY_READ_WRITE), PM_EINVAL);
  CHECK_ERROR(pm_unmap((void *)(PM_USER_END - PM_PAGE_SIZE), UINT32_MAX), PM_EINVAL);
  tear_down();
}

PM_TEST(flags, 0, 1, "R25: no rights, and unknown flags") {
  set_up();
  CHECK_ERROR(map(0, 1, (uint64_t)REGION, 0), PM_EINVAL);
  CHECK_ERROR(map(0, 1, (uint64_t)REGION, PM_MAP_LAZY), PM_EINVAL);
  for (int bit = 5; bit < 32; bit++)
    CHECK_ERROR(map(0, 1, (uint64_t)REGION, LAZY_READ_WRITE | 1u << bit), PM_EINVAL);
  tear_down();
}

PM_TEST(frames_not_in_use, 0, 1, "R25: unused ids fail with PM_ENOENT, anywhere in the range") {
  set_up();
  CHECK_ERROR(map(0, 9, (uint64_t)REGION, LAZY_READ_WRITE), PM_ENOENT);
  CHECK_ERROR(map(8, 1, (uint64_t)REGION, LAZY_READ_WRITE), PM_ENOENT);
  CHECK_ERROR(map(UINT32_MAX, 1, (uint64_t)REGION, PM_MAP_READ), PM_ENOENT);
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(container, 4, &one, 0));
  CHECK_ERROR(map(0, 8, (uint64_t)REGION_2, LAZY_READ_WRITE), PM_ENOENT);
  CHECK_OK(map(0, 4, (uint64_t)REGION_2, LAZY_READ_WRITE));
  CHECK_OK(map(5, 3, (uint64_t)PAGE(REGION_2, 5), LAZY_READ_WRITE));
  CHECK_EQ(*(uint64_t *)PAGE(REGION_2, 5), *(uint64_t *)PAGE(REGION, 5));
}

PM_TEST(unmap_nothing, 0, 1, "R27: unmapping an unmapped page is no error: the server may have forgotten it") {
  set_up();
  CHECK_OK(pm_unmap(REGION_2, 1));
  CHECK_OK(pm_unmap(REGION_2, 100000));
  CHECK_OK(pm_unmap(PAGE(REGION, 8), 10));
  tear_down();
  CHECK_OK(pm_unmap(PAGE(REGION, 2), 2));
  CHECK_OK(pm_unmap(PAGE(REGION, 2), 2));
  check_pages(REGION, 2, 1);
  check_pages(PAGE(REGION, 4), 4, 1);
}

PM_TEST(unmap_everything_below, 0, 1, "R25: the cost of a huge unmap depends only on the mappings in it") {
  set_up();
  // 16 TiB of addresses, all mappings of REGION among them. Visiting each page would exceed the case's time limit.
  for (int i = 0; i < 100; i++) CHECK_OK(pm_unmap((void *)((uint64_t)REGION - 0x10000000), UINT32_MAX));
  struct pm_mapping mapping;
  CHECK_ERROR(pm_mapping(REGION, &mapping), PM_ENOENT);
}

PM_TEST(unmapped_read, DIES_OF_PAGE_FAULT, 1, "R25: an unmapped page cannot be read") {
  set_up();
  CHECK_OK(pm_unmap(PAGE(REGION, 3), 1));
  (void)*(volatile char *)PAGE(REGION, 3);
}

PM_TEST(unmapped_write, DIES_OF_PAGE_FAULT, 1, "R25: an unmapped page cannot be written") {
  set_up();
  CHECK_OK(pm_unmap(REGION, 8));
  *(volatile char *)PAGE(REGION, 7) = 1;
}

PM_TEST(deallocated, DIES_OF_PAGE_FAULT, 1, "R18: a deallocated frame's mapping is gone") {
  set_up();
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(container, 5, &one, 0));
  check_pages(REGION, 5, 1);
  check_pages(PAGE(REGION, 6), 2, 1);
  (void)*(volatile char *)PAGE(REGION, 5);
}

PM_TEST(deallocated_untouched, DIES_OF_PAGE_FAULT, 1,
        "R18: a deallocated frame's mapping is gone, even if never touched") {
  container = map_fresh(REGION, 2);
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(container, 1, &one, 0));
  *REGION = 1;
  *(volatile char *)PAGE(REGION, 1) = 1;
}

PM_TEST(reallocated_is_fresh, 0, 1, "R18 R25: a mapping shows the id's current frame: a fresh one, not the old data") {
  set_up();
  uint32_t one = 1;
  *(volatile char *)PAGE(REGION, 5) = 1;
  CHECK_OK(pm_container_deallocate(container, 5, &one, 0));
  CHECK_OK(pm_container_allocate(container, 5, &one, 0));
  CHECK_EQ(*(volatile char *)PAGE(REGION, 5), 0);
}

PM_TEST(destroyed, DIES_OF_PAGE_FAULT, 1, "R15: a destroyed container's mappings are gone") {
  set_up();
  CHECK_OK(pm_container_destroy(container));
  (void)*(volatile char *)REGION;
}

PM_TEST(frees_its_own_text, DIES_OF_PAGE_FAULT, 1, "Safety: a task may free its own image, and harms only itself") {
  uint32_t count = 1;
  (void)pm_container_deallocate(PM_CAP_CONTAINER, mapping_at((const void *)&pm_container_deallocate).frame, &count, 0);
}

PM_TEST(frees_its_own_stack, DIES_OF_PAGE_FAULT, 1, "Safety: a task may free its own stack, and harms only itself") {
  static uint32_t count = 1;
  (void)pm_container_deallocate(PM_CAP_CONTAINER, mapping_at(__builtin_frame_address(0)).frame, &count, 0);
}

PM_TEST(maps_over_its_stack, DIES_OF_PAGE_FAULT, 1,
        "Safety: a task may map zeros over its own stack: it returns to address 0") {
  container = make_container(PM_STACK_PAGES);
  // The return address reads as 0 then.
  (void)map(0, PM_STACK_PAGES, PM_STACK_TOP - PM_STACK_PAGES * PM_PAGE_SIZE, LAZY_READ_WRITE);
}
