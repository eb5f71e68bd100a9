// Pointers in calls: the server accesses only what the task itself could, and checks before it changes anything.
#include "test.h"

// Addresses at which a task can neither read nor write.
static const uint64_t bad[] = {0,
                               1,
                               0xfff,
                               0x1000,
                               0x100000000000,
                               PM_USER_END - 4,
                               PM_USER_END,
                               0x0000800000000000,
                               0x4141414141414141,
                               0xffff7fffffffffff,
                               0xffff800000000000,
                               0xffffffff80000000,
                               UINT64_MAX - 3,
                               UINT64_MAX};
#define BAD_COUNT (sizeof bad / sizeof *bad)

/// The last `size` bytes before an unmapped page.
static void *before_gap(size_t size) {
  static bool is_mapped;
  if (!is_mapped) map_fresh(REGION_2, 1);
  is_mapped = true;
  return PAGE(REGION_2, 1) - size;
}

static void *read_only_page(void) {
  pm_container_t container = make_container(1);
  CHECK_OK(pm_container_map(container, 0, 1, PAGE(REGION_2, 100), PM_MAP_READ | PM_MAP_LAZY));
  return PAGE(REGION_2, 100);
}

/// Makes every call that stores a result, with that pointer.
static void check_result_pointer(void *pointer) {
  uint64_t allocated = allocated_frames();
  CHECK_ERROR(pm_container_create(pointer), PM_EFAULT);
  CHECK_ERROR(pm_task_info(pointer), PM_EFAULT);
  CHECK_ERROR(pm_mapping(__builtin_frame_address(0), pointer), PM_EFAULT);
  CHECK_ERROR(raw_call(PM_CALL_CLOCK, (uint64_t)pointer, 0, 0, 0, 0), PM_EFAULT);
  CHECK_ERROR(pm_container_allocate(PM_CAP_CONTAINER, 500000, pointer, 0), PM_EFAULT);
  CHECK_ERROR(pm_container_deallocate(PM_CAP_CONTAINER, 0, pointer, 0), PM_EFAULT);
  CHECK_EQ(allocated_frames(), allocated);
}

PM_TEST(wild_results, 0, 1, "Safety: results to null, unmapped, non-canonical and supervisor addresses") {
  for (size_t i = 0; i < BAD_COUNT; i++) check_result_pointer((void *)bad[i]);
}

PM_TEST(read_only_results, 0, 1, "Safety: results to read-only pages and to text") {
  check_result_pointer(read_only_page());
  check_result_pointer((void *)(uintptr_t)&test_read_only_results);
}

PM_TEST(results_over_the_edge, 0, 1, "Safety: a result whose last byte is in an unmapped page") {
  CHECK_ERROR(pm_container_create(before_gap(3)), PM_EFAULT);
  CHECK_ERROR(pm_task_info(before_gap(sizeof(struct pm_task_info) - 1)), PM_EFAULT);
  CHECK_ERROR(pm_mapping(before_gap(1), before_gap(sizeof(struct pm_mapping) - 1)), PM_EFAULT);
  CHECK_ERROR(raw_call(PM_CALL_CLOCK, (uint64_t)before_gap(7), 0, 0, 0, 0), PM_EFAULT);
  uint64_t allocated = allocated_frames();
  CHECK_ERROR(pm_container_allocate(PM_CAP_CONTAINER, 500000, before_gap(3), 0), PM_EFAULT);
  CHECK_EQ(allocated_frames(), allocated);
  CHECK(is_zero(REGION_2, PM_PAGE_SIZE));
  CHECK_OK(pm_container_create(before_gap(4)));
  CHECK_OK(pm_task_info(before_gap(sizeof(struct pm_task_info))));
}

PM_TEST(results_across_pages, 0, 1, "Safety: a result that crosses two pages, at any alignment") {
  map_fresh(REGION, 2);
  struct pm_task_info expected, *across;
  CHECK_OK(pm_task_info(&expected));
  for (size_t offset = 1; offset < sizeof expected; offset++) {
    across = (struct pm_task_info *)(PAGE(REGION, 1) - offset);
    CHECK_OK(pm_task_info(across));
    CHECK(!memcmp(&across->id, &expected.id, sizeof expected.id));
    CHECK(!memcmp(across, &expected, offsetof(struct pm_task_info, pressure)));
  }
}

PM_TEST(untouched_results, 0, 1, "R16: a result to an untouched lazy page") {
  map_fresh(REGION, 4);
  CHECK_OK(pm_task_info((struct pm_task_info *)REGION));
  CHECK(((struct pm_task_info *)REGION)->id != 0);
  CHECK_OK(pm_container_create((pm_container_t *)(PAGE(REGION, 2) - 2)));
  CHECK_OK(pm_write(PAGE(REGION, 3), 0));
  uint32_t *count = (uint32_t *)PAGE(REGION, 3);
  CHECK_ERROR(pm_container_allocate(PM_CAP_CONTAINER, 500000, count, 0), PM_EINVAL);
}

PM_TEST(wild_text, 0, 1, "Safety: text to write at addresses that the task cannot read") {
  for (size_t i = 0; i < BAD_COUNT; i++) CHECK_ERROR(pm_write((void *)bad[i], 8), PM_EFAULT);
  CHECK_ERROR(pm_write(before_gap(4), 5), PM_EFAULT);
  CHECK_ERROR(pm_write(before_gap(4), UINT64_MAX), PM_EFAULT);
  CHECK_ERROR(pm_write(before_gap(4), UINT64_MAX - (uint64_t)before_gap(4) + 5), PM_EFAULT);
  CHECK_ERROR(pm_write("x", 1ull << 62), PM_EFAULT);
  CHECK_ERROR(pm_write((void *)PM_USER_START, PM_USER_END - PM_USER_START), PM_EFAULT);
}

PM_TEST(nothing_to_write, 0, 1, "Safety: writing 0 bytes is no error at any address") {
  CHECK_OK(pm_write("", 0));
  CHECK_OK(pm_write(before_gap(0), 0));
}

PM_TEST(count_is_read_once, 0, 1, "Safety: the count is in the page whose frame the call frees") {
  pm_container_t container = map_fresh(REGION, 2);
  uint32_t *count = (uint32_t *)REGION;
  *count = 2;
  pm_error_t error = pm_container_deallocate(container, 0, count, 0);
  // Either it succeeded, or failed without a change; the server is consistent in both cases.
  if (error == PM_OK) CHECK_EQ(allocated_frames() > 0, 1);
  else CHECK_ERROR(error, PM_EFAULT);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(result_into_replaced_page, 0, 1, "Safety: SQUASH of the frame that holds the count") {
  pm_container_t container = map_fresh(REGION, 2);
  uint32_t *count = (uint32_t *)REGION;
  *count = 2;
  pm_error_t error = pm_container_allocate(container, 0, count, PM_ALLOC_SQUASH);
  if (error) CHECK_ERROR(error, PM_EFAULT);
  CHECK_OK(pm_container_map(container, 0, 2, REGION, LAZY_READ_WRITE));
  *count = 1;
}
