// Logical copies that fail: they report the id and change nothing (R24).
#include "test.h"

enum { GATHERS = 1, SCATTERS = 2 };

/// One of the four calls on the ids [from, from + count) and [to, to + count), as ranges or as arrays.
static pm_frame_t error_frame;
static pm_error_t copy(int variant, pm_container_t source, pm_frame_t from, pm_container_t destination, pm_frame_t to,
                       uint32_t count) {
  static pm_frame_t sources[4096], destinations[4096];
  for (uint32_t i = 0; i < count && i < 4096; i++) sources[i] = from + i, destinations[i] = to + i;
  error_frame = 123456;
  switch (variant) {
    case GATHERS: return pm_container_copy_gather(source, sources, destination, to, count, &error_frame);
    case SCATTERS: return pm_container_copy_scatter(source, from, destination, destinations, count, &error_frame);
    case GATHERS | SCATTERS:
      return pm_container_copy_scatter_gather(source, sources, destination, destinations, count, &error_frame);
    default: return pm_container_copy(source, from, destination, to, count, &error_frame);
  }
}
#define FOR_ALL_VARIANTS(variant) for (int variant = 0; variant < 4; variant++)

// Two containers, each mapped at a region, with ids 0 to 9 in use, and 10 and 11 not.
static pm_container_t first, second;
static uint64_t allocated;
static void set_up(void) {
  first = map_numbered(REGION, 10, 100);
  second = map_numbered(REGION_2, 10, 200);
  uint32_t two = 2;
  CHECK_OK(pm_container_allocate(first, 12, &two, 0));
  CHECK_OK(pm_container_allocate(second, 12, &two, 0));
  allocated = allocated_frames();
}

/// Checks that everything is as set_up left it: the data, the charge, the ids in use and that nothing is shared.
static void check_unchanged(void) {
  check_numbered(REGION, 10, 100);
  check_numbered(REGION_2, 10, 200);
  CHECK_EQ(allocated_frames(), allocated);
  for (pm_frame_t id = 10; id < 12; id++) {
    CHECK_ERROR(pm_container_map(first, id, 1, PAGE(REGION, 50), LAZY_READ_WRITE), PM_ENOENT);
    CHECK_ERROR(pm_container_map(second, id, 1, PAGE(REGION, 50), LAZY_READ_WRITE), PM_ENOENT);
  }
  // A leaf may be absent, but a present one is writable.
  for (int i = 0; i < 10; i++) CHECK(mapping_at(PAGE(REGION, i)).rights != PM_MAP_READ);
}

/// Leaves `count` frames that the task can still allocate.
static void leave_available(uint32_t count) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  uint32_t rest = (uint32_t)info.available - count;
  CHECK_OK(pm_container_allocate(make_container(0), 0, &rest, PM_ALLOC_EXTRA));
  CHECK_OK(pm_task_info(&info));
  CHECK_EQ(info.available, count);
  allocated = info.allocated;
}

// ---- wrong ids --------------------------------------------------------------

PM_TEST(source_not_in_use, 0, 1, "R24: PM_ENOENT with the first unused source id") {
  set_up();
  FOR_ALL_VARIANTS(variant) {
    CHECK_ERROR(copy(variant, first, 10, second, 0, 1), PM_ENOENT);
    CHECK_EQ(error_frame, 10);
    CHECK_ERROR(copy(variant, first, 0, second, 0, 14), PM_ENOENT);
    CHECK_EQ(error_frame, 10);
    CHECK_ERROR(copy(variant, first, 11, second, 5, 3), PM_ENOENT);
    CHECK_EQ(error_frame, 11);
    CHECK_ERROR(copy(variant, first, 9, first, 0, 2), PM_ENOENT);
    CHECK_EQ(error_frame, 10);
    CHECK_ERROR(copy(variant, first, 13, second, 10, 2), PM_ENOENT);
    CHECK_EQ(error_frame, 14);
    check_unchanged();
  }
}

PM_TEST(far_source, 0, 1, "R24: unused ids at the end of the id space") {
  set_up();
  FOR_ALL_VARIANTS(variant) {
    CHECK_ERROR(copy(variant, first, UINT32_MAX, second, 0, 1), PM_ENOENT);
    CHECK_EQ(error_frame, UINT32_MAX);
    CHECK_ERROR(copy(variant, first, UINT32_MAX - 1, second, 0, 2), PM_ENOENT);
    CHECK_EQ(error_frame, UINT32_MAX - 1);
    check_unchanged();
  }
}

PM_TEST(id_limits, 0, 1, "R24: the last ids of the id space, as source and as destination") {
  set_up();
  FOR_ALL_VARIANTS(variant) {
    CHECK_OK(copy(variant, first, 3, second, UINT32_MAX - 2, 3));
    CHECK_OK(copy(variant, second, UINT32_MAX - 2, second, 20, 3));
    map_lazily(second, 20, 3, PAGE(REGION, 50));
    check_numbered(PAGE(REGION, 50), 3, 103);
  }
}

PM_TEST(error_order, 0, 1, "R24: copy_gather reports the first wrong id in the array, not the lowest") {
  set_up();
  const pm_frame_t sources[] = {3, 11, 10, 4};
  pm_frame_t frame = 0;
  CHECK_ERROR(pm_container_copy_gather(first, sources, second, 0, 4, &frame), PM_ENOENT);
  CHECK_EQ(frame, 11);
  check_unchanged();
}

PM_TEST(no_memory, 0, 1, "R24: PM_ENOMEM with the first destination id that no frame is left for") {
  set_up();
  leave_available(1);
  FOR_ALL_VARIANTS(variant) {
    CHECK_ERROR(copy(variant, first, 0, second, 8, 6), PM_ENOMEM);
    CHECK_EQ(error_frame, 11);
    CHECK_ERROR(copy(variant, first, 0, second, 50, 10), PM_ENOMEM);
    CHECK_EQ(error_frame, 51);
    check_unchanged();
  }
}

PM_TEST(just_enough_memory, 0, 1, "R24: exactly enough frames: ids in use and repeated ids take none") {
  set_up();
  leave_available(2);
  CHECK_OK(pm_container_copy(first, 0, second, 4, 10, NULL));
  check_numbered(PAGE(REGION_2, 4), 6, 100);
  CHECK_EQ(allocated_frames(), allocated + 2);
  CHECK_ERROR(copy(0, first, 0, second, 100, 1), PM_ENOMEM);
  CHECK_EQ(error_frame, 100);
  // The two freed frames make room for two.
  uint32_t two = 2;
  CHECK_OK(pm_container_deallocate(second, 10, &two, 0));
  const pm_frame_t destinations[] = {70, 71, 70, 71, 70};
  CHECK_OK(pm_container_copy_scatter(first, 0, second, destinations, 5, NULL));
  CHECK_EQ(allocated_frames(), allocated + 2);
}

PM_TEST(no_place_for_error, 0, 1, "R24: the pointer for the id at fault may be null") {
  set_up();
  const pm_frame_t ids[] = {9, 10};
  CHECK_ERROR(pm_container_copy(first, 0, second, 0, 11, NULL), PM_ENOENT);
  CHECK_ERROR(pm_container_copy_scatter(first, 9, second, ids, 2, NULL), PM_ENOENT);
  CHECK_ERROR(pm_container_copy_gather(first, ids, second, 0, 2, NULL), PM_ENOENT);
  CHECK_ERROR(pm_container_copy_scatter_gather(first, ids, second, ids, 2, NULL), PM_ENOENT);
  check_unchanged();
}

// ---- invalid arguments ------------------------------------------------------

PM_TEST(bad_counts, 0, 1, "R24: count 0, ids beyond the last, and more ids than an array may have") {
  set_up();
  FOR_ALL_VARIANTS(variant) {
    CHECK_ERROR(copy(variant, first, 0, second, 0, 0), PM_EINVAL);
    check_unchanged();
  }
  FOR_ALL_VARIANTS(variant) {
    if (!(variant & GATHERS)) CHECK_ERROR(copy(variant, first, UINT32_MAX, second, 0, 2), PM_EINVAL);
    if (!(variant & SCATTERS)) CHECK_ERROR(copy(variant, first, 0, second, UINT32_MAX, 2), PM_EINVAL);
    if (variant) {
      CHECK_ERROR(copy(variant, first, 0, second, 0, PM_FRAMES_MAXIMUM + 1), PM_EINVAL);
      CHECK_ERROR(copy(variant, first, 0, second, 0, UINT32_MAX), PM_EINVAL);
    }
    check_unchanged();
  }
}

PM_TEST(huge_counts, 0, 1, "R24: four billion frames fail with PM_ENOENT or PM_ENOMEM without visiting each") {
  set_up();
  // Visiting each would exceed the case's time limit.
  for (int i = 0; i < 100; i++) {
    CHECK_ERROR(copy(0, first, 0, second, 0, UINT32_MAX), PM_ENOENT);
    CHECK_EQ(error_frame, 10);
    CHECK_ERROR(copy(0, first, 12, second, 0, UINT32_MAX - 12), PM_ENOENT);
    CHECK_EQ(error_frame, 14);
  }
  check_unchanged();
}

PM_TEST(bad_handles, 0, 1, "Safety: copies from and to handles that are not the task's containers") {
  set_up();
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  uint64_t state = 3;
  pm_container_t bad[] = {PM_CAP_NONE, PM_CAP_SELF, endpoint, 1000, 0x10002, UINT32_MAX, 0, 0, 0, 0};
  for (int i = 6; i < 10; i++) bad[i] = (uint32_t)next_random(&state) | 0x100;
  FOR_ALL_VARIANTS(variant) {
    for (int i = 0; i < 10; i++) {
      CHECK_ERROR(copy(variant, bad[i], 0, second, 0, 3), PM_EINVAL);
      CHECK_ERROR(copy(variant, first, 0, bad[i], 0, 3), PM_EINVAL);
      CHECK_ERROR(copy(variant, bad[i], 0, bad[i], 0, 3), PM_EINVAL);
      CHECK_EQ(error_frame, 123456);
    }
  }
  check_unchanged();
}

// ---- pointers --------------------------------------------------------------------------------

static const uint64_t wild[] = {1,           0xffe,      0x1000,             0x100000000000 - 4, PM_USER_END - 4,
                                PM_USER_END, UINT64_MAX, 0xffff800000000000, 0x0000800000000000, 0x4141414141414141};
#define WILD_COUNT (sizeof wild / sizeof *wild)

PM_TEST(wild_arrays, 0, 1, "Safety: arrays of ids at addresses that the task cannot read") {
  set_up();
  for (size_t i = 0; i <= WILD_COUNT; i++) {
    const pm_frame_t *bad = i < WILD_COUNT ? (const pm_frame_t *)wild[i] : NULL, good[] = {1, 2};
    CHECK_ERROR(pm_container_copy_gather(first, bad, second, 0, 2, NULL), PM_EFAULT);
    CHECK_ERROR(pm_container_copy_scatter(first, 0, second, bad, 2, NULL), PM_EFAULT);
    CHECK_ERROR(pm_container_copy_scatter_gather(first, bad, second, good, 2, NULL), PM_EFAULT);
    CHECK_ERROR(pm_container_copy_scatter_gather(first, good, second, bad, 2, NULL), PM_EFAULT);
    check_unchanged();
  }
}

PM_TEST(array_at_border, 0, 1,
        "Safety: an array whose last id is in an unmapped page, and one that ends just before it") {
  set_up();
  map_fresh(PAGE(REGION, 1000), 1);
  allocated = allocated_frames();
  pm_frame_t *ids = (pm_frame_t *)PAGE(REGION, 1001) - 3;
  for (uint32_t i = 0; i < 3; i++) ids[i] = i;
  CHECK_ERROR(pm_container_copy_gather(first, ids, second, 0, 4, NULL), PM_EFAULT);
  CHECK_ERROR(pm_container_copy_gather(first, ids, second, 0, PM_FRAMES_MAXIMUM, NULL), PM_EFAULT);
  CHECK_ERROR(pm_container_copy_scatter(first, 0, second, ids, 4, NULL), PM_EFAULT);
  CHECK_ERROR(pm_container_copy_gather(first, (pm_frame_t *)((char *)ids + 1), second, 0, 3, NULL), PM_EFAULT);
  check_unchanged();
  CHECK_OK(pm_container_copy_gather(first, ids, second, 0, 3, NULL));
  check_numbered(REGION_2, 3, 100);
}

PM_TEST(odd_arrays, 0, 1, "Safety: arrays that are unaligned, cross a page or are in read-only memory") {
  set_up();
  map_fresh(PAGE(REGION, 1000), 2);
  char *at = PAGE(REGION, 1001) - 5;
  const pm_frame_t ids[] = {4, 5, 6};
  memcpy(at, ids, sizeof ids);
  CHECK_OK(pm_container_copy_gather(first, (pm_frame_t *)(void *)at, second, 0, 3, NULL));
  check_numbered(REGION_2, 3, 104);
  static const pm_frame_t constant[] = {9, 8};
  CHECK_OK(pm_container_copy_scatter(first, 0, second, constant, 2, NULL));
  CHECK_EQ(WORD(REGION_2, 9), 100);
}

PM_TEST(wild_results, 0, 1, "Safety: a bad pointer for the id at fault: PM_EFAULT, even if no id is at fault") {
  set_up();
  pm_container_t read_only = make_container(1);
  CHECK_OK(pm_container_map(read_only, 0, 1, PAGE(REGION, 1000), PM_MAP_READ));
  allocated = allocated_frames();
  const pm_frame_t ids[] = {1, 2};
  for (size_t i = 0; i <= WILD_COUNT; i++) {
    pm_frame_t *bad = i < WILD_COUNT ? (pm_frame_t *)wild[i] : (pm_frame_t *)PAGE(REGION, 1000);
    CHECK_ERROR(pm_container_copy(first, 0, second, 0, 2, bad), PM_EFAULT);
    CHECK_ERROR(pm_container_copy_gather(first, ids, second, 0, 2, bad), PM_EFAULT);
    CHECK_ERROR(pm_container_copy_scatter(first, 0, second, ids, 2, bad), PM_EFAULT);
    CHECK_ERROR(pm_container_copy_scatter_gather(first, ids, second, ids, 2, bad), PM_EFAULT);
    check_unchanged();
  }
}

PM_TEST(array_in_destination, 0, 1, "Safety: the array of ids is in pages that the copy replaces") {
  set_up();
  pm_frame_t *ids = (pm_frame_t *)REGION_2;
  for (uint32_t i = 0; i < 3; i++) ids[i] = i;
  CHECK_OK(pm_container_copy_scatter_gather(first, ids, second, ids, 3, ids + 1));
  check_numbered(REGION_2, 3, 100);
  check_numbered(REGION, 10, 100);
}

PM_TEST(result_in_shared_page, 0, 1, "Safety: the id at fault is stored to a page that is a copy: it becomes private") {
  set_up();
  CHECK_OK(pm_container_copy(first, 0, second, 0, 10, NULL));
  pm_frame_t *result = (pm_frame_t *)PAGE(REGION_2, 3);
  CHECK_ERROR(pm_container_copy(first, 10, second, 0, 1, result), PM_ENOENT);
  CHECK_EQ(*(volatile pm_frame_t *)result, 10);
  check_numbered(REGION, 10, 100);
}

PM_TEST(random_copies, 0, 4, "Safety: copies with random handles, ids, counts and pointers are harmless") {
  uint64_t state = pm_clock_us() | 1;
  set_up();
  for (int i = 0; i < 3000; i++) {
    uint64_t number = PM_CALL_CONTAINER_CREATE_WITH + next_random(&state) % 8, argument[5];
    for (int j = 0; j < 5; j++) {
      uint64_t random = next_random(&state);
      const uint64_t kinds[] = {random, random % 16, first, (uint64_t)REGION_2 + random % 0xc000, random << 40};
      argument[j] = kinds[(random >> 32) % 5];
    }
    // The image's own frames must not be replaced.
    if (argument[2] % (1ull << 32) == PM_CAP_CONTAINER) argument[2] = second;
    (void)raw_call(number, argument[0], argument[1], argument[2], argument[3], argument[4]);
  }
  map_lazily(make_container(1), 0, 1, REGION);
  CHECK(is_zero(REGION, PM_PAGE_SIZE));
}
