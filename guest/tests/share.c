// Weak capabilities: what they permit, for which task, and how they end (R20, R21).
#include "test.h"

/// `count` numbered frames at REGION, and a weak capability to them.
static pm_container_t container, weak;
static void set_up(uint32_t count) {
  container = map_numbered(REGION, count, 100);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
}

static pm_error_t map_weak(uint32_t count) {
  return pm_container_map(weak, 0, count, REGION_2, LAZY_READ_WRITE);
}

// ---- permitted calls ----------------------------------------------------------------------

PM_TEST(owner_calls, 0, 1, "R20: allocating, freeing, destroying, sharing, revoking, pm_release_data: PM_EPERM") {
  set_up(4);
  uint32_t count = 2;
  const pm_frame_t ids[] = {0, 1};
  pm_container_t other = 0;
  CHECK_ERROR(pm_container_allocate(weak, 10, &count, 0), PM_EPERM);
  CHECK_ERROR(pm_container_allocate(weak, 0, &count, PM_ALLOC_SQUASH | PM_ALLOC_PARTIAL), PM_EPERM);
  CHECK_ERROR(pm_container_deallocate(weak, 0, &count, 0), PM_EPERM);
  CHECK_ERROR(pm_container_deallocate(weak, 0, &count, PM_DEALLOC_SQUASH), PM_EPERM);
  CHECK_EQ(count, 2);
  CHECK_ERROR(pm_container_destroy(weak), PM_EPERM);
  CHECK_ERROR(pm_container_share(weak, PM_CAP_NONE, &other), PM_EPERM);
  CHECK_ERROR(pm_container_revoke(weak), PM_EPERM);
  CHECK_ERROR(pm_release_data(weak, ids, 2), PM_EPERM);
  CHECK_EQ(other, 0);
  check_numbered(REGION, 4, 100);
  CHECK_OK(map_weak(4));
  check_numbered(REGION_2, 4, 100);
}

PM_TEST(copy_from, 0, 1, "R20, R24: copies from a container through a weak capability, which outlive the share") {
  set_up(4);
  pm_container_t copies = make_container(0);
  pm_frame_t frame = 0;
  CHECK_OK(pm_container_copy(weak, 0, copies, 0, 4, NULL));
  CHECK_ERROR(pm_container_copy(weak, 2, copies, 0, 4, &frame), PM_ENOENT);
  CHECK_EQ(frame, 4);
  CHECK_OK(pm_container_revoke(container));
  CHECK_OK(pm_container_destroy(container));
  map_lazily(copies, 0, 4, REGION_2);
  check_numbered(REGION_2, 4, 100);
}

PM_TEST(copy_to, 0, 1,
        "R20, R24: copies onto frames of a container, which must be in use, else PM_ENOENT with the id") {
  set_up(4);
  pm_container_t source = map_numbered(REGION_2, 4, 500);
  uint64_t before = allocated_frames();
  pm_frame_t frame = 0;
  const pm_frame_t ids[] = {0, 7, 5}, from[] = {0, 1, 2};
  CHECK_ERROR(pm_container_copy(source, 0, weak, 1, 4, &frame), PM_ENOENT);
  CHECK_EQ(frame, 4);
  CHECK_ERROR(pm_container_copy_scatter(source, 0, weak, ids, 3, &frame), PM_ENOENT);
  CHECK_EQ(frame, 7);
  CHECK_ERROR(pm_container_copy_scatter_gather(source, from, weak, ids, 3, &frame), PM_ENOENT);
  CHECK_ERROR(pm_container_copy_gather(source, from, weak, 2, 3, &frame), PM_ENOENT);
  CHECK_EQ(frame, 4);
  check_numbered(REGION, 4, 100);
  CHECK_OK(pm_container_copy(source, 1, weak, 1, 3, NULL));
  CHECK_EQ(WORD(REGION, 0), 100);
  check_numbered(PAGE(REGION, 1), 3, 501);
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(copy_within, 0, 1, "R24: both sides of a copy through weak capabilities to one container, overlapping") {
  set_up(6);
  pm_container_t other;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &other));
  CHECK_OK(pm_container_copy(weak, 0, other, 2, 4, NULL));
  CHECK_EQ(WORD(REGION, 1), 101);
  check_numbered(PAGE(REGION, 2), 4, 100);
  CHECK_OK(pm_container_copy(container, 2, weak, 0, 4, NULL));
  check_numbered(REGION, 4, 100);
}

PM_TEST(map_rights, 0, 1, "R20: maps through a weak capability, with any rights, of frames that are in use") {
  set_up(4);
  CHECK_ERROR(pm_container_map(weak, 2, 3, REGION_2, LAZY_READ_WRITE), PM_ENOENT);
  CHECK_OK(pm_container_map(weak, 0, 4, REGION_2, PM_MAP_READ | PM_MAP_WRITE));
  check_numbered(REGION_2, 4, 100);
  CHECK_EQ(mapping_at(REGION_2).frame, 0);
  CHECK_SAME_FRAME(mapping_at(REGION_2).physical, mapping_at(REGION).physical);
  WORD(REGION_2, 3) = 9;
  CHECK_EQ(WORD(REGION, 3), 9);
}

PM_TEST(writes_to_copies, 0, 1,
        "R24, R26: frames that are shared copies: a write through either side is seen at both") {
  set_up(3);
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, 3, NULL));
  CHECK_OK(map_weak(3));
  check_numbered(REGION_2, 3, 100);
  WORD(REGION_2, 0) = 1;
  WORD(REGION, 1) = 2;
  CHECK_EQ(WORD(REGION, 0), 1);
  CHECK_EQ(WORD(REGION_2, 1), 2);
  map_lazily(copies, 0, 3, PAGE(REGION, 10));
  check_numbered(PAGE(REGION, 10), 3, 100);
}

PM_TEST(bad_arguments, 0, 1, "R20: handles that cannot be shared, and wrong remotes") {
  set_up(1);
  pm_container_t made = 0;
  CHECK_ERROR(pm_container_share(PM_CAP_NONE, PM_CAP_NONE, &made), PM_EINVAL);
  CHECK_ERROR(pm_container_share(PM_CAP_SELF, PM_CAP_NONE, &made), PM_EINVAL);
  CHECK_ERROR(pm_container_share(4321, PM_CAP_NONE, &made), PM_EINVAL);
  CHECK_ERROR(pm_container_share(container, 4321, &made), PM_EINVAL);
  CHECK_ERROR(pm_container_share(container, container, &made), PM_EINVAL);
  CHECK_ERROR(pm_container_share(container, weak, &made), PM_EINVAL);
  CHECK_ERROR(pm_container_share(container, PM_CAP_NONE, NULL), PM_EFAULT);
  CHECK_ERROR(pm_container_revoke(PM_CAP_NONE), PM_EINVAL);
  CHECK_ERROR(pm_container_revoke(4321), PM_EINVAL);
  CHECK_EQ(made, 0);
}

PM_TEST(with_oneself, 0, 1, "R20: shared with the task itself, directly or by its own endpoint") {
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  container = map_numbered(REGION, 2, 100);
  const pm_cap_t remotes[] = {PM_CAP_SELF, endpoint};
  for (int i = 0; i < 2; i++) {
    CHECK_OK(pm_container_share(container, remotes[i], &weak));
    CHECK_OK(map_weak(2));
    check_numbered(REGION_2, 2, 100);
  }
}

PM_TEST(initial_container, 0, 1, "R20: the initial container can be shared too") {
  static volatile int variable = 5;
  pm_frame_t frame = mapping_at((const void *)&variable).frame;
  CHECK_OK(pm_container_share(PM_CAP_CONTAINER, PM_CAP_NONE, &weak));
  CHECK_ERROR(pm_container_destroy(weak), PM_EPERM);
  CHECK_OK(pm_container_map(weak, frame, 1, REGION, LAZY_READ_WRITE));
  *(volatile int *)(REGION + (uintptr_t)&variable % PM_PAGE_SIZE) = 6;
  CHECK_EQ(variable, 6);
  CHECK_OK(pm_container_revoke(PM_CAP_CONTAINER));
  CHECK(read_faults(REGION));
  CHECK_EQ(variable, 6);
}

// ---- ends ------------------------------------------------------------------------------

static void check_cancelled(void) {
  const pm_frame_t ids[] = {0, 1};
  uint64_t physical[2];
  uint32_t count = 1;
  pm_container_t copies = make_container(2);
  CHECK_ERROR(map_weak(1), PM_ECANCELED);
  CHECK_ERROR(pm_container_copy(weak, 0, copies, 0, 1, NULL), PM_ECANCELED);
  CHECK_ERROR(pm_container_copy(copies, 0, weak, 0, 1, NULL), PM_ECANCELED);
  CHECK_ERROR(pm_container_copy_gather(weak, ids, copies, 0, 2, NULL), PM_ECANCELED);
  CHECK_ERROR(pm_container_lock(weak, 1000), PM_ECANCELED);
  CHECK_ERROR(pm_container_unlock(weak), PM_ECANCELED);
  CHECK_ERROR(pm_container_pin(weak, 0, 2, 1000, physical), PM_ECANCELED);
  CHECK_ERROR(pm_container_unpin(weak, 0, 2), PM_ECANCELED);
  CHECK_ERROR(pm_container_allocate(weak, 0, &count, 0), PM_ECANCELED);
  CHECK_ERROR(pm_container_destroy(weak), PM_ECANCELED);
}

PM_TEST(revoke, 0, 1, "R21: after the revocation every call fails with PM_ECANCELED, and the mappings are gone") {
  set_up(4);
  CHECK_OK(map_weak(4));
  check_numbered(REGION_2, 4, 100);
  CHECK_OK(pm_container_revoke(container));
  check_cancelled();
  struct pm_mapping mapping;
  CHECK_ERROR(pm_mapping(REGION_2, &mapping), PM_ENOENT);
  for (int i = 0; i < 4; i++) {
    CHECK(i % 2 ? read_faults(PAGE(REGION_2, i)) : write_faults(PAGE(REGION_2, i)));
    CHECK_EQ(probed.present, 0);
  }
  check_numbered(REGION, 4, 100);
  CHECK_EQ(rights_at(REGION) & PM_MAP_READ, PM_MAP_READ);
}

PM_TEST(revoke_untouched, 0, 1, "R21: the revocation also removes mappings of untouched pages") {
  set_up(4);
  CHECK_OK(map_weak(4));
  CHECK_OK(pm_container_revoke(container));
  CHECK(write_faults(REGION_2));
}

PM_TEST(revoked_handle_can_be_dropped, 0, 1, "R21: the handle of a revoked capability can be dropped") {
  set_up(1);
  CHECK_OK(pm_container_revoke(container));
  CHECK_OK(pm_cap_drop(weak));
  CHECK_ERROR(pm_cap_drop(weak), PM_EINVAL);
  CHECK_ERROR(map_weak(1), PM_EINVAL);
}

PM_TEST(share_again, 0, 1, "R21: shared again, with a new capability; the old one stays revoked") {
  set_up(2);
  pm_container_t old = weak;
  for (int i = 0; i < 100; i++) {
    CHECK_OK(pm_container_revoke(container));
    CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
    CHECK(weak != old);
    CHECK_ERROR(pm_container_map(old, 0, 2, REGION_2, LAZY_READ_WRITE), PM_ECANCELED);
    CHECK_OK(map_weak(2));
    check_numbered(REGION_2, 2, 100);
  }
}

PM_TEST(revoke_all, 0, 1, "R21: a revocation ends all weak capabilities, and one without any is no error") {
  container = map_numbered(REGION, 2, 100);
  CHECK_OK(pm_container_revoke(container));
  pm_container_t many[50];
  for (int i = 0; i < 50; i++) CHECK_OK(pm_container_share(container, PM_CAP_NONE, &many[i]));
  CHECK_OK(pm_container_revoke(container));
  for (int i = 0; i < 50; i++) {
    weak = many[i];
    CHECK_ERROR(map_weak(1), PM_ECANCELED);
  }
}

PM_TEST(destroy, 0, 1, "R21: destroying the container ends its capabilities and the mappings through them") {
  set_up(4);
  CHECK_OK(map_weak(4));
  check_numbered(REGION_2, 4, 100);
  CHECK_OK(pm_container_destroy(container));
  check_cancelled();
  CHECK(read_faults(REGION_2));
}

PM_TEST(deallocate, 0, 1, "R20: frames that the owner frees disappear from others' mappings, and come back fresh") {
  set_up(4);
  CHECK_OK(map_weak(4));
  check_numbered(REGION_2, 4, 100);
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(container, 1, &one, 0));
  CHECK_EQ(WORD(REGION_2, 0), 100);
  CHECK(read_faults(PAGE(REGION_2, 1)));
  CHECK_OK(pm_container_allocate(container, 2, &one, PM_ALLOC_SQUASH));
  CHECK_EQ(WORD(REGION_2, 2), 0);
}

PM_TEST(drop, 0, 1, "R20: a capability is dropped, the others and the container stay") {
  set_up(2);
  pm_container_t other;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &other));
  CHECK_OK(pm_cap_drop(weak));
  CHECK_ERROR(map_weak(2), PM_EINVAL);
  weak = other;
  CHECK_OK(map_weak(2));
  check_numbered(REGION_2, 2, 100);
  CHECK_OK(pm_cap_drop(container));
  CHECK_ERROR(map_weak(2), PM_ECANCELED);
  CHECK(read_faults(REGION));
}
