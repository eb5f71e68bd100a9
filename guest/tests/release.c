// Released frames: soft references, until the server reuses the frames (R31, R32).
#include "test.h"

static pm_error_t release(pm_container_t container, pm_frame_t first, uint32_t count) {
  static pm_frame_t frames[4096];
  for (uint32_t i = 0; i < count; i++) frames[i] = first + i;
  return pm_release_pages(container, frames, count);
}

static pm_error_t recover(pm_container_t container, pm_frame_t first, uint32_t count, pm_frame_t *error) {
  static pm_frame_t frames[4096];
  for (uint32_t i = 0; i < count; i++) frames[i] = first + i;
  return pm_recover_pages(container, frames, count, error);
}

/// How many of `count` frames from `first` on have expired.
static uint32_t gone(pm_container_t container, pm_frame_t first, uint32_t count) {
  static pm_frame_t frames[4096];
  static uint8_t expired[4096];
  for (uint32_t i = 0; i < count; i++) frames[i] = first + i;
  CHECK_OK(pm_expired_pages(container, frames, count, expired));
  uint32_t sum = 0;
  for (uint32_t i = 0; i < count; i++) sum += expired[i];
  return sum;
}

/// Allocates all frames except `left` in a new container and touches them.
static pm_container_t take_all(uint32_t left) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  CHECK(info.available > left);
  uint32_t count = (uint32_t)info.available - left;
  pm_container_t container = map_fresh(REGION_2, count);
  for (uint32_t i = 0; i < count; i++) WORD(REGION_2, i) = i + 1;
  return container;
}

PM_TEST(comes_back, 0, 1, "R31: released frames are not charged, and are recovered with their contents") {
  pm_container_t container = map_numbered(REGION, 10, 100);
  uint64_t before = allocated_frames();
  CHECK_OK(release(container, 2, 5));
  CHECK_EQ(allocated_frames(), before - 5);
  CHECK_EQ(gone(container, 0, 10), 0);
  CHECK_OK(recover(container, 2, 5, NULL));
  CHECK_EQ(allocated_frames(), before);
  check_numbered(REGION, 10, 100);
}

PM_TEST(not_in_use, 0, 1, "R31: for all other calls a released frame's id is not in use") {
  pm_container_t container = map_numbered(REGION, 4, 100);
  pm_container_t other = make_container(1);
  CHECK_OK(release(container, 1, 2));
  CHECK(read_faults(PAGE(REGION, 1)));
  CHECK(write_faults(PAGE(REGION, 2)));
  CHECK_ERROR(release(container, 1, 1), PM_ENOENT);
  pm_frame_t error = 77;
  CHECK_ERROR(pm_container_copy(container, 0, other, 0, 4, &error), PM_ENOENT);
  CHECK_EQ(error, 1);
  uint32_t count = 4;
  CHECK_ERROR(pm_container_deallocate(container, 0, &count, 0), PM_ENOENT);
  CHECK_EQ(WORD(REGION, 0), 100);
  CHECK_EQ(WORD(REGION, 3), 103);
}

PM_TEST(given_anew, 0, 1, "R31: allocating or copying onto a released id drops its old content") {
  pm_container_t container = map_numbered(REGION, 4, 100);
  CHECK_OK(release(container, 0, 4));
  uint32_t count = 1;
  CHECK_OK(pm_container_allocate(container, 0, &count, 0));
  CHECK_ERROR(recover(container, 0, 1, NULL), PM_EEXIST);
  pm_container_t other = make_container(1);
  CHECK_OK(pm_container_copy(other, 0, container, 1, 1, NULL));
  CHECK_ERROR(recover(container, 1, 1, NULL), PM_EEXIST);
  count = 1;
  CHECK_OK(pm_container_deallocate(container, 2, &count, PM_DEALLOC_SQUASH));
  CHECK_EQ(count, 0);
  pm_frame_t error = 77;
  CHECK_ERROR(recover(container, 2, 2, &error), PM_ENOEXIST);
  CHECK_EQ(error, 2);
  CHECK_OK(recover(container, 3, 1, NULL));
  CHECK(is_zero(PAGE(REGION, 0), 2 * PM_PAGE_SIZE));
  CHECK_EQ(WORD(REGION, 3), 103);
}

PM_TEST(reused, 0, 1, "R31: a frame that the server has reused is gone, PM_ENOEXIST, the oldest first") {
  enum { COUNT = 4096, HALF = COUNT / 2 };
  pm_container_t container = map_numbered(REGION, COUNT, 100);
  CHECK_OK(release(container, HALF, HALF));
  CHECK_OK(release(container, 0, HALF));
  CHECK_EQ(gone(container, 0, COUNT), 0);
  // Uses every frame, except those reserved for page tables.
  (void)take_all(0);
  uint32_t older = gone(container, HALF, HALF), younger = gone(container, 0, HALF);
  CHECK(older + younger > HALF);
  CHECK_EQ(older, HALF);
  CHECK_EQ(gone(container, 0, younger), younger);
  pm_frame_t error = 77;
  CHECK_ERROR(recover(container, HALF, 1, &error), PM_ENOEXIST);
  CHECK_EQ(error, HALF);
  // The one released last is reused last; no frame is left to recover it with.
  pm_error_t last = recover(container, HALF - 1, 1, NULL);
  CHECK(last == PM_ENOMEM || (last == PM_ENOEXIST && gone(container, HALF - 1, 1)));
}

PM_TEST(all_or_none, 0, 1, "R31: if one frame is gone, in use or too many, none is recovered") {
  pm_container_t container = map_numbered(REGION, 40, 100);
  pm_container_t all = take_all(0);
  CHECK_OK(release(container, 0, 20));
  uint32_t count = 10;
  CHECK_OK(pm_container_allocate(all, 1u << 20, &count, 0));
  uint64_t before = allocated_frames();
  pm_frame_t error = 77;
  CHECK_ERROR(recover(container, 0, 20, &error), PM_ENOMEM);
  CHECK_EQ(error, 10);
  CHECK_ERROR(recover(container, 15, 6, &error), PM_EEXIST);
  CHECK_EQ(error, 20);
  CHECK_ERROR(recover(container, 1000, 1, &error), PM_ENOEXIST);
  CHECK_EQ(error, 1000);
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(recover(container, 0, 10, &error));
  check_numbered(REGION, 10, 100);
}

PM_TEST(copies_keep, 0, 1, "R32: logical copies keep a released content, and their writes do not change it") {
  pm_container_t container = map_numbered(REGION, 4, 100);
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, 4, NULL));
  map_lazily(copies, 0, 4, REGION_2);
  CHECK_OK(release(container, 0, 4));
  check_numbered(REGION_2, 4, 100);
  WORD(REGION_2, 1) = 7;
  CHECK_OK(recover(container, 0, 2, NULL));
  CHECK_EQ(WORD(REGION, 0), 100);
  CHECK_EQ(WORD(REGION, 1), 101);
  CHECK_EQ(WORD(REGION_2, 1), 7);
  // The copies too: each has its own soft reference.
  CHECK_OK(release(copies, 0, 4));
  CHECK_OK(pm_container_destroy(container));
  CHECK_OK(recover(copies, 0, 4, NULL));
  CHECK_EQ(WORD(REGION_2, 0), 100);
  CHECK_EQ(WORD(REGION_2, 1), 7);
  CHECK_EQ(WORD(REGION_2, 3), 103);
}

PM_TEST(copies_outlive, 0, 1, "R32: logical copies of released frames survive when all other frames are used") {
  enum { COUNT = 4096 };
  pm_container_t container = map_numbered(REGION, COUNT, 100);
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, COUNT, NULL));
  CHECK_OK(release(container, 0, COUNT));
  (void)take_all(0);
  map_lazily(copies, 0, COUNT, REGION);
  check_numbered(REGION, COUNT, 100);
  // Each copy is charged, so each can be written, at the cost of released ones.
  for (uint32_t i = 0; i < COUNT; i++) WORD(REGION, i) += 1;
  check_numbered(REGION, COUNT, 101);
  uint32_t lost = gone(container, 0, COUNT);
  CHECK(lost > 0 && lost < COUNT);
  CHECK_EQ(gone(container, 0, lost), lost);
}

PM_TEST(untouched, 0, 1, "R31: an untouched frame can be released and recovered too") {
  pm_container_t container = map_fresh(REGION, 3);
  uint64_t before = allocated_frames();
  CHECK_OK(release(container, 0, 3));
  CHECK_EQ(allocated_frames(), before - 3);
  CHECK_OK(recover(container, 0, 3, NULL));
  CHECK(is_zero(REGION, 3 * PM_PAGE_SIZE));
}

/// Releases untouched ids, many more than there are frames.
static void release_untouched(void) {
  enum { CALLS = 128, COUNT = 1024 };
  pm_container_t container;
  CHECK_OK(pm_container_create(&container));
  for (uint32_t i = 0; i < CALLS; i++) {
    uint32_t count = COUNT;
    CHECK_OK(pm_container_allocate(container, i * COUNT, &count, 0));
    CHECK_OK(release(container, i * COUNT, COUNT));
  }
}

PM_TEST(untouched_cost_nobody, 0, 2, "R31: releases of untouched ids take no frames from other tasks") {
  enum { COUNT = 100 };
  if (!join(2)) {
    struct pm_message question = next_question();
    release_untouched();
    answer(&question, 0, PM_CAP_NONE);
    return;
  }
  pm_container_t container = map_numbered(REGION, COUNT, 100);
  CHECK_OK(release(container, 0, COUNT));
  ask(0, PM_CAP_NONE);
  CHECK_EQ(gone(container, 0, COUNT), 0);
  CHECK_OK(recover(container, 0, COUNT, NULL));
  check_numbered(REGION, COUNT, 100);
}

PM_TEST(twice_in_one_call, 0, 1, "R31: an id listed twice is released and recovered once") {
  pm_container_t container = map_numbered(REGION, 3, 100);
  uint64_t before = allocated_frames();
  const pm_frame_t frames[] = {1, 1, 2, 1};
  CHECK_OK(pm_release_pages(container, frames, 4));
  CHECK_EQ(allocated_frames(), before - 2);
  CHECK_OK(pm_recover_pages(container, frames, 4, NULL));
  CHECK_EQ(allocated_frames(), before);
  check_numbered(REGION, 3, 100);
}

PM_TEST_CONTRACT(twice_within_the_guarantee, 0, 1, 400, 4, "R31: an id listed twice is charged once") {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  pm_container_t container = map_numbered(REGION, (uint32_t)(info.guaranteed - info.allocated), 100);
  const pm_frame_t frames[] = {1, 1, 2, 1};
  CHECK_OK(pm_release_pages(container, frames, 4));
  // All frames beyond the guarantee are in use: two frames fit, and no third.
  uint32_t count = 1 << 20;
  pm_container_t rest;
  CHECK_OK(pm_container_create(&rest));
  CHECK_ERROR(pm_container_allocate(rest, 0, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA), PM_ENOMEM);
  CHECK_OK(pm_container_deallocate(rest, 0, &(uint32_t){2}, 0));
  CHECK_OK(pm_recover_pages(container, frames, 4, NULL));
  count = 1;
  CHECK_ERROR(pm_container_allocate(rest, 0, &count, PM_ALLOC_EXTRA), PM_ENOMEM);
}

PM_TEST(bad_input, 0, 1, "R31: invalid handles, counts, ids and pointers change nothing") {
  pm_container_t container = map_numbered(REGION, 3, 100);
  pm_frame_t frames[] = {0, 1, 5};
  uint64_t before = allocated_frames();
  uint8_t expired[3];
  CHECK_ERROR(pm_release_pages(container, frames, 3), PM_ENOENT);
  CHECK_ERROR(pm_release_pages(container, frames, 0), PM_EINVAL);
  CHECK_ERROR(pm_release_pages(container, frames, PM_FRAMES_MAXIMUM + 1), PM_EINVAL);
  CHECK_ERROR(pm_release_pages(container, NULL, 1), PM_EFAULT);
  CHECK_ERROR(pm_release_pages(container + 4096, frames, 1), PM_EINVAL);
  CHECK_ERROR(pm_release_pages(PM_CAP_SELF, frames, 1), PM_EINVAL);
  CHECK_ERROR(pm_recover_pages(container, frames, 0, NULL), PM_EINVAL);
  CHECK_ERROR(pm_recover_pages(container, NULL, 1, NULL), PM_EFAULT);
  CHECK_ERROR(pm_recover_pages(container, frames, 1, (pm_frame_t *)8), PM_EFAULT);
  CHECK_ERROR(pm_expired_pages(container, frames, 0, expired), PM_EINVAL);
  CHECK_ERROR(pm_expired_pages(container, frames, 1, (uint8_t *)8), PM_EFAULT);
  frames[2] = UINT32_MAX;
  CHECK_ERROR(pm_release_pages(container, frames, 3), PM_ENOENT);
  CHECK_ERROR(pm_recover_pages(container, frames + 2, 1, NULL), PM_ENOEXIST);
  pm_container_t weak;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  CHECK_ERROR(pm_release_pages(weak, frames, 1), PM_EPERM);
  CHECK_ERROR(pm_recover_pages(weak, frames, 1, NULL), PM_EPERM);
  CHECK_ERROR(pm_expired_pages(weak, frames, 1, expired), PM_EPERM);
  uint64_t physical;
  CHECK_OK(pm_container_pin(container, 1, 1, PM_LOCK_MAXIMUM_US, &physical));
  CHECK_ERROR(pm_release_pages(container, frames, 2), PM_EBUSY);
  CHECK_OK(pm_container_unpin(container, 1, 1));
  CHECK_EQ(allocated_frames(), before);
  check_numbered(REGION, 3, 100);
  CHECK_OK(pm_release_pages(container, frames, 2));
}

PM_TEST(own_list, 0, 1, "R31: the list of ids may be in a frame that is released") {
  pm_container_t container = map_fresh(REGION, 2);
  pm_frame_t *frames = (pm_frame_t *)REGION;
  frames[0] = 1;
  frames[1] = 0;
  CHECK_OK(pm_release_pages(container, frames, 2));
  const pm_frame_t both[] = {0, 1};
  CHECK_OK(pm_recover_pages(container, both, 2, NULL));
  CHECK_EQ(frames[0], 1);
}

PM_TEST(model, 0, 1, "R31, R32: a random walk of releases and recoveries agrees with a naive list") {
  enum { COUNT = 64 };
  static enum { USED, RELEASED } state[COUNT];
  static uint64_t value[COUNT];
  pm_container_t container = map_numbered(REGION, COUNT, 0);
  for (uint32_t i = 0; i < COUNT; i++) value[i] = i;
  uint64_t random = 42;
  for (uint32_t step = 0; step < 1000; step++) {
    uint32_t i = (uint32_t)(next_random(&random) % COUNT);
    if (state[i] == RELEASED) {
      CHECK_OK(recover(container, i, 1, NULL));
      state[i] = USED;
      CHECK_EQ(WORD(REGION, i), value[i]);
    } else if (next_random(&random) % 2) {
      CHECK_OK(release(container, i, 1));
      state[i] = RELEASED;
    } else {
      WORD(REGION, i) = value[i] = step;
    }
  }
}
