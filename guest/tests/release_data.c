// Dropping shared contents (R38).
#include "test.h"

static pm_container_t source, copies;
static void set_up(uint32_t count) {
  source = map_numbered(REGION, count, 100);
  copies = make_container(0);
  CHECK_OK(pm_container_copy(source, 0, copies, 0, count, NULL));
  map_lazily(copies, 0, count, REGION_2);
}

static pm_error_t release(pm_container_t container, pm_frame_t first, uint32_t count) {
  static pm_frame_t frames[1000];
  for (uint32_t i = 0; i < count; i++) frames[i] = first + i;
  return pm_release_data(container, frames, count);
}

PM_TEST(shared, 0, 1, "R38: a frame that shares its content becomes empty, and the others keep it") {
  set_up(5);
  check_numbered(REGION_2, 5, 100);
  CHECK_OK(release(copies, 1, 3));
  CHECK_EQ(WORD(REGION_2, 0), 100);
  CHECK(is_zero(PAGE(REGION_2, 1), 3 * PM_PAGE_SIZE));
  CHECK_EQ(WORD(REGION_2, 4), 104);
  check_numbered(REGION, 5, 100);
}

PM_TEST(takes_no_frame, 0, 1, "R16, R38: the frame has no memory until it is touched, and writing it copies nothing") {
  set_up(1);
  uint64_t before = mapping_at(REGION).physical;
  CHECK_OK(release(source, 0, 1));
  // The server may have forgotten the mapping: map it again without touching it, which would take a frame.
  if (pm_start_flags & PM_START_NO_MAPPING_CACHE) map_lazily(source, 0, 1, REGION);
  CHECK_EQ(mapping_at(REGION).physical, 0);
  *(volatile char *)(REGION + 4095) = 1;
  CHECK(is_zero(REGION, PM_PAGE_SIZE - 1));
  WORD(REGION_2, 0) = 7;
  CHECK_SAME_FRAME(mapping_at(REGION_2).physical, before);
}

PM_TEST(not_shared, 0, 1, "R38: the only frame that names a content keeps frame and data") {
  source = map_numbered(REGION, 3, 100);
  uint64_t before = mapping_at(REGION).physical;
  CHECK_OK(release(source, 0, 3));
  check_numbered(REGION, 3, 100);
  CHECK_SAME_FRAME(mapping_at(REGION).physical, before);
}

PM_TEST(last_sharer, 0, 1, "R38: the last sharer keeps its data, even in the middle of one call") {
  set_up(2);
  CHECK_OK(release(copies, 0, 2));
  CHECK_OK(release(source, 0, 2));
  check_numbered(REGION, 2, 100);
  // Two frames of one container share a content: one of them keeps it.
  CHECK_OK(pm_container_copy(source, 0, source, 1, 1, NULL));
  CHECK_OK(release(source, 0, 2));
  CHECK_EQ(WORD(REGION, 0) + WORD(REGION, 1), 100);
}

PM_TEST(empty, 0, 1, "R38: untouched frames and repeated ids are no error") {
  set_up(1);
  pm_container_t fresh = make_container(3);
  CHECK_OK(release(fresh, 0, 3));
  const pm_frame_t twice[] = {0, 0, 0};
  CHECK_OK(pm_release_data(copies, twice, 3));
  CHECK(is_zero(REGION_2, PM_PAGE_SIZE));
  check_numbered(REGION, 1, 100);
}

PM_TEST(charged, 0, 1, "R38: the id stays in use and charged") {
  set_up(10);
  uint64_t before = allocated_frames();
  CHECK_OK(release(copies, 0, 10));
  CHECK_EQ(allocated_frames(), before);
  uint32_t one = 1;
  CHECK_ERROR(pm_container_allocate(copies, 3, &one, 0), PM_EEXIST);
}

PM_TEST(errors, 0, 1, "R38: unused ids, count 0, too many, a bad handle: nothing changes") {
  set_up(5);
  CHECK_ERROR(release(copies, 3, 3), PM_ENOENT);
  CHECK_ERROR(release(copies, UINT32_MAX, 1), PM_ENOENT);
  CHECK_ERROR(release(copies, 0, 0), PM_EINVAL);
  static pm_frame_t many[PM_FRAMES_MAXIMUM + 1];
  CHECK_ERROR(pm_release_data(copies, many, PM_FRAMES_MAXIMUM + 1), PM_EINVAL);
  CHECK_ERROR(pm_release_data(copies, many, UINT32_MAX), PM_EINVAL);
  CHECK_ERROR(release(PM_CAP_NONE, 0, 1), PM_EINVAL);
  CHECK_ERROR(release(PM_CAP_SELF, 0, 1), PM_EINVAL);
  CHECK_ERROR(release(12345, 0, 1), PM_EINVAL);
  CHECK_ERROR(pm_release_data(copies, NULL, 1), PM_EFAULT);
  CHECK_ERROR(pm_release_data(copies, (pm_frame_t *)0xffff800000000000, 1), PM_EFAULT);
  CHECK_ERROR(pm_release_data(copies, (pm_frame_t *)(PAGE(REGION_2, 5) - 4), 2), PM_EFAULT);
  check_numbered(REGION, 5, 100);
  check_numbered(REGION_2, 5, 100);
  CHECK_OK(pm_release_data(copies, many, PM_FRAMES_MAXIMUM));
  CHECK_EQ(WORD(REGION_2, 0), 0);
}

PM_TEST(array_in_frame, 0, 1, "Safety: the array of ids is in a frame that is released") {
  set_up(2);
  pm_frame_t *ids = (pm_frame_t *)PAGE(REGION_2, 1);
  ids[0] = 0, ids[1] = 1;
  CHECK_OK(pm_release_data(copies, ids, 2));
  CHECK_EQ(WORD(REGION_2, 0), 0);
  CHECK_EQ(ids[1], 1);
  CHECK_EQ(WORD(REGION, 1), 101);
}

PM_TEST(reuse, 0, 1, "R38: a buffer sent as copies and refilled, 200 times: nothing is copied") {
  pm_container_t buffer = map_fresh(REGION, 4), sent = make_container(4);
  map_lazily(sent, 0, 4, REGION_2);
  for (uint64_t round = 0; round < 200; round++) {
    for (uint32_t i = 0; i < 4; i++) WORD(REGION, i) = round + i;
    uint64_t filled = mapping_at(REGION).physical;
    CHECK_OK(pm_container_copy(buffer, 0, sent, 0, 4, NULL));
    CHECK_OK(release(buffer, 0, 4));
    check_numbered(REGION_2, 4, round);
    CHECK_SAME_FRAME(mapping_at(REGION_2).physical, filled);
  }
}
