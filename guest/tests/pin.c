// Pinned frames keep their physical frame and data, for a limited time (R22).
#include "test.h"

static uint64_t physical[64];

static pm_error_t pin(pm_container_t container, pm_frame_t start, uint32_t count, uint64_t us) {
  return pm_container_pin(container, start, count, us, physical);
}

PM_TEST(addresses, 0, 1, "R22: pinned frames are resident at once, at the addresses that the mappings report") {
  pm_container_t container = map_fresh(REGION, 10);
  for (int i = 0; i < 5; i++) WORD(REGION, i) = 100u + (unsigned)i;
  CHECK_OK(pin(container, 0, 10, PM_LOCK_MAXIMUM_US));
  for (int i = 0; i < 10; i++) {
    CHECK(physical[i] && physical[i] % PM_PAGE_SIZE == 0);
    CHECK_EQ(mapping_at(PAGE(REGION, i)).physical, physical[i]);
    for (int j = 0; j < i; j++) CHECK(physical[i] != physical[j]);
  }
  check_numbered(REGION, 5, 100);
  CHECK(is_zero(PAGE(REGION, 5), 5 * PM_PAGE_SIZE));
  WORD(REGION, 7) = 1;
  CHECK_EQ(mapping_at(PAGE(REGION, 7)).physical, physical[7]);
  CHECK_OK(pm_container_unpin(container, 0, 10));
}

PM_TEST(private, 0, 1, "R22: a frame with a shared content gets a private copy") {
  pm_container_t source = map_numbered(REGION, 3, 100), copies = make_container(0);
  CHECK_OK(pm_container_copy(source, 0, copies, 0, 3, NULL));
  map_lazily(copies, 0, 3, REGION_2);
  check_numbered(REGION_2, 3, 100);
  CHECK_OK(pin(copies, 0, 3, PM_LOCK_MAXIMUM_US));
  for (int i = 0; i < 3; i++) {
    CHECK(mapping_at(PAGE(REGION, i)).physical != physical[i]);
    CHECK_EQ(WORD(REGION_2, i), 100 + i);
    WORD(REGION_2, i) = 1;
    CHECK_EQ(mapping_at(PAGE(REGION_2, i)).physical, physical[i]);
  }
  check_numbered(REGION, 3, 100);
}

PM_TEST(busy, 0, 1, "R22: freeing, replacing, destroying and copying pinned frames: PM_EBUSY, nothing changes") {
  pm_container_t container = map_numbered(REGION, 10, 100), other = map_numbered(REGION_2, 10, 500);
  CHECK_OK(pin(container, 4, 3, PM_LOCK_MAXIMUM_US));
  uint64_t before = allocated_frames();
  uint32_t count = 10, one = 1;
  pm_frame_t frame = 0;
  const pm_frame_t ids[] = {1, 5, 6}, from[] = {0, 1, 2};
  CHECK_ERROR(pm_container_deallocate(container, 0, &count, 0), PM_EBUSY);
  CHECK_ERROR(pm_container_deallocate(container, 0, &count, PM_DEALLOC_PARTIAL), PM_EBUSY);
  CHECK_ERROR(pm_container_deallocate(container, 0, &count, PM_DEALLOC_SQUASH), PM_EBUSY);
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_SQUASH), PM_EBUSY);
  CHECK_EQ(count, 10);
  CHECK_ERROR(pm_container_destroy(container), PM_EBUSY);
  CHECK_ERROR(pm_cap_drop(container), PM_EBUSY);
  CHECK_ERROR(pm_container_copy(container, 2, other, 0, 5, &frame), PM_EBUSY);
  CHECK_EQ(frame, 4);
  CHECK_ERROR(pm_container_copy(other, 0, container, 2, 5, &frame), PM_EBUSY);
  CHECK_EQ(frame, 4);
  CHECK_ERROR(pm_container_copy_gather(container, ids, other, 0, 3, &frame), PM_EBUSY);
  CHECK_EQ(frame, 5);
  CHECK_ERROR(pm_container_copy_scatter(other, 0, container, ids, 3, &frame), PM_EBUSY);
  CHECK_EQ(frame, 5);
  CHECK_ERROR(pm_container_copy_scatter_gather(other, from, container, ids, 3, &frame), PM_EBUSY);
  CHECK_ERROR(pm_container_copy(container, 4, container, 4, 1, &frame), PM_EBUSY);
  CHECK_EQ(allocated_frames(), before);
  check_numbered(REGION, 10, 100);
  check_numbered(REGION_2, 10, 500);
  // Their neighbours can be freed.
  CHECK_OK(pm_container_deallocate(container, 0, &one, 0));
  CHECK_OK(pm_container_copy(other, 0, container, 7, 3, NULL));
  CHECK_OK(pm_release_data(container, ids + 1, 2));
  check_numbered(PAGE(REGION, 4), 3, 104);
}

PM_TEST(unpin, 0, 1, "R22: unpinned frames can be freed and copied again, even part of the pinned range") {
  pm_container_t container = map_numbered(REGION, 10, 100), other = make_container(10);
  CHECK_OK(pin(container, 0, 10, PM_LOCK_MAXIMUM_US));
  CHECK_OK(pm_container_unpin(container, 3, 4));
  CHECK_OK(pm_container_copy(container, 3, other, 3, 4, NULL));
  CHECK_ERROR(pm_container_copy(container, 3, other, 3, 5, NULL), PM_EBUSY);
  CHECK_ERROR(pm_container_unpin(container, 0, 4), PM_ENOENT);
  CHECK_ERROR(pm_container_copy(container, 0, other, 0, 1, NULL), PM_EBUSY);
  CHECK_OK(pm_container_unpin(container, 0, 3));
  CHECK_OK(pm_container_unpin(container, 7, 3));
  CHECK_ERROR(pm_container_unpin(container, 7, 3), PM_ENOENT);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(time_is_up, 0, 1, "R22: the pin ends with its time; pinning again restarts the time") {
  pm_container_t container = map_numbered(REGION, 2, 100);
  uint32_t one = 1;
  uint64_t start = pm_clock_us();
  CHECK_OK(pin(container, 0, 2, PM_LOCK_MAXIMUM_US));
  CHECK_ERROR(pm_container_deallocate(container, 0, &one, 0), PM_EBUSY);
  CHECK_OK(pin(container, 0, 2, 100000));
  uint64_t renewed = pm_clock_us();
  do one = 1;
  while (pm_container_deallocate(container, 0, &one, 0) == PM_EBUSY);
  CHECK_EQ(one, 1);
  uint64_t end = pm_clock_us();
  CHECK(end - start >= 100000 && end - renewed < PM_LOCK_MAXIMUM_US - 1000000);
  CHECK_ERROR(pm_container_unpin(container, 1, 1), PM_ENOENT);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(arguments, 0, 1, "R22: unused ids, count 0, ids beyond the last; no time, too much time; a bad handle") {
  pm_container_t container = map_numbered(REGION, 10, 100);
  CHECK_ERROR(pin(container, 5, 6, 1000), PM_ENOENT);
  CHECK_ERROR(pin(container, UINT32_MAX, 1, 1000), PM_ENOENT);
  CHECK_ERROR(pin(container, 0, 0, 1000), PM_EINVAL);
  CHECK_ERROR(pin(container, UINT32_MAX, 2, 1000), PM_EINVAL);
  CHECK_ERROR(pin(container, 0, 1, 0), PM_EINVAL);
  CHECK_ERROR(pin(container, 0, 1, PM_LOCK_MAXIMUM_US + 1), PM_EINVAL);
  CHECK_ERROR(pin(container, 0, 1, PM_FOREVER), PM_EINVAL);
  CHECK_ERROR(pin(PM_CAP_NONE, 0, 1, 1000), PM_EINVAL);
  CHECK_ERROR(pin(PM_CAP_SELF, 0, 1, 1000), PM_EINVAL);
  CHECK_ERROR(pin(4321, 0, 1, 1000), PM_EINVAL);
  CHECK_ERROR(pm_container_unpin(container, 0, 1), PM_ENOENT);
  CHECK_ERROR(pm_container_unpin(container, 0, 0), PM_EINVAL);
  CHECK_ERROR(pm_container_unpin(container, UINT32_MAX, 2), PM_EINVAL);
  CHECK_ERROR(pm_container_unpin(4321, 0, 1), PM_EINVAL);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(pointers, 0, 1, "Safety: a bad pointer for the addresses: PM_EFAULT, and nothing is pinned") {
  pm_container_t container = map_numbered(REGION, 10, 100), read_only = make_container(1);
  CHECK_OK(pm_container_map(read_only, 0, 1, REGION_2, PM_MAP_READ));
  uint64_t *const bad[] = {NULL, (uint64_t *)REGION_2, (uint64_t *)(PAGE(REGION, 10) - 16), (uint64_t *)UINT64_MAX,
                           (uint64_t *)0xffff800000000000, (uint64_t *)(PM_USER_END - 8)};
  for (int i = 0; i < 6; i++) {
    CHECK_ERROR(pm_container_pin(container, 0, 3, PM_LOCK_MAXIMUM_US, bad[i]), PM_EFAULT);
    CHECK_ERROR(pm_container_unpin(container, 0, 1), PM_ENOENT);
  }
  CHECK_OK(pm_container_pin(container, 0, 2, PM_LOCK_MAXIMUM_US, bad[2]));
  CHECK_EQ(bad[2][1], mapping_at(PAGE(REGION, 1)).physical);
}

PM_TEST(result_in_pinned, 0, 1, "Safety: the addresses are stored to a shared page that the call itself pins") {
  pm_container_t container = map_numbered(REGION, 2, 100), copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, 2, NULL));
  CHECK_OK(pm_container_pin(container, 0, 2, PM_LOCK_MAXIMUM_US, (uint64_t *)PAGE(REGION, 1)));
  CHECK_EQ(WORD(REGION, 1), mapping_at(REGION).physical);
  map_lazily(copies, 0, 2, REGION_2);
  check_numbered(REGION_2, 2, 100);
}

PM_TEST(everything, 0, 1,
        "R22, Safety: a task that pins everything succeeds for part of it, and others still have memory") {
  pm_container_t container = make_container(0);
  uint32_t count = UINT32_MAX;
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA), PM_ENOMEM);
  pm_error_t error = PM_OK;
  uint32_t pinned = 0;
  while (!error && pinned + 64 <= count && !(error = pin(container, pinned, 64, PM_LOCK_MAXIMUM_US))) pinned += 64;
  CHECK(pinned >= 64);
  if (error) CHECK_ERROR(error, PM_ENOMEM);
  CHECK_ERROR(pm_container_pin(container, 0, UINT32_MAX, 1000, physical), PM_EINVAL);
  // On a slow machine the first pins may have timed out.
  for (uint32_t i = 0; i < pinned; i += 64)
    if ((error = pm_container_unpin(container, i, 64))) CHECK_ERROR(error, PM_ENOENT);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(ends_pinned, 0, 4, "R22: the pins of a task end with it at once") {
  pm_container_t container = map_numbered(REGION, 50, 100);
  CHECK_OK(pin(container, 0, 50, PM_LOCK_MAXIMUM_US));
  CHECK_OK(pin(PM_CAP_CONTAINER, 0, 2, PM_LOCK_MAXIMUM_US));
}

// ---- through a weak capability -----------------------------------------------------------------

static pm_container_t weak;

PM_TEST(by_server, 0, 2, "R22, R40: the server pins the client's frames; the client cannot unpin or free them") {
  if (!join(2)) {
    struct pm_message message = next_question();
    weak = message.caps[0];
    CHECK_OK(pin(weak, 0, 4, PM_LOCK_MAXIMUM_US));
    answer(&message, physical[0], PM_CAP_NONE);
    message = next_question();
    CHECK_OK(pm_container_unpin(weak, 0, 4));
    return answer(&message, 0, PM_CAP_NONE);
  }
  pm_container_t container = map_numbered(REGION, 4, 100);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  CHECK_EQ(ask(0, weak).words[0], mapping_at(REGION).physical);
  uint32_t one = 1;
  CHECK_ERROR(pm_container_unpin(container, 0, 4), PM_EPERM);
  CHECK_ERROR(pin(container, 0, 4, 1000), PM_EBUSY);
  CHECK_ERROR(pm_container_deallocate(container, 3, &one, 0), PM_EBUSY);
  CHECK_ERROR(pm_container_destroy(container), PM_EBUSY);
  check_numbered(REGION, 4, 100);
  ask(0, PM_CAP_NONE);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(server_dies, 0, 2, "R21, R22, R42: a server's pins end with it, and the data stays") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_OK(pin(message.caps[0], 0, 4, PM_LOCK_MAXIMUM_US));
    return;
  }
  pm_container_t container = map_numbered(REGION, 4, 100);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  struct pm_message message = {.caps = {weak}};
  CHECK_ERROR(pm_call(partner, &message, LONG_US), PM_ECANCELED);
  check_numbered(REGION, 4, 100);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(pinned_again_and_again, 0, 2,
        "R22: an owner that ends waits no longer than the pin's time, even if pinned again") {
  if (!join(2)) {
    struct pm_message message = next_question();
    weak = message.caps[0];
    CHECK_OK(pin(weak, 0, 4, 100000));
    answer(&message, 0, PM_CAP_NONE);
    pm_error_t error;
    while (!(error = pin(weak, 0, 4, 100000))) pm_sleep(1000);
    return CHECK_ERROR(error, PM_ECANCELED);
  }
  pm_container_t container = map_numbered(REGION, 4, 100);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  ask(0, weak);
}

PM_TEST(owner_ends, 0, 2, "R22: when the owner ends, pinned frames stay until they are unpinned") {
  if (!join(2)) {
    struct pm_message message = next_question();
    weak = message.caps[0];
    CHECK_OK(pin(weak, 0, 4, PM_LOCK_MAXIMUM_US));
    CHECK_OK(pm_container_map(weak, 0, 4, REGION_2, LAZY_READ_WRITE));
    answer(&message, 0, PM_CAP_NONE);
    pm_sleep(100000);
    check_numbered(REGION_2, 4, 100);
    CHECK_EQ(mapping_at(REGION_2).physical, physical[0]);
    CHECK_OK(pm_container_unpin(weak, 0, 4));
    pm_error_t error;
    while (!(error = pm_container_lock(weak, 1000))) pm_sleep(1000);
    CHECK_ERROR(error, PM_ECANCELED);
    return;
  }
  pm_container_t container = map_numbered(REGION, 4, 100);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  ask(0, weak);
}
