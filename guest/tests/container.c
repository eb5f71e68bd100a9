// Containers, their handles, and frames allocated and freed in them (R15-R18).
#include "test.h"

// Handles that no task holds: none, the task itself, one never given out, and absurd ones.
static const pm_container_t bad_handles[] = {PM_CAP_NONE, PM_CAP_SELF, 3,          4,          100,       0xffff,
                                             0x10000,     0x10002,     0x7fffffff, 0x80000002, 0xfffffffe, 0xffffffff};
#define FOR_BAD_HANDLES(handle) \
  for (const pm_container_t *handle = bad_handles; handle < bad_handles + sizeof bad_handles / 4; handle++)

/// allocate and deallocate with the count by value; the resulting count goes to `last_count`.
static uint32_t last_count;
static pm_error_t allocate(pm_container_t container, pm_frame_t start, uint32_t count, uint32_t flags) {
  last_count = count;
  return pm_container_allocate(container, start, &last_count, flags);
}
static pm_error_t deallocate(pm_container_t container, pm_frame_t start, uint32_t count, uint32_t flags) {
  last_count = count;
  return pm_container_deallocate(container, start, &last_count, flags);
}

PM_TEST(bad_handles, 0, 1, "R15: every call rejects a handle that the task does not hold") {
  uint64_t before = allocated_frames();
  FOR_BAD_HANDLES(handle) {
    CHECK_ERROR(pm_container_destroy(*handle), PM_EINVAL);
    CHECK_ERROR(allocate(*handle, 0, 1, 0), PM_EINVAL);
    CHECK_ERROR(deallocate(*handle, 0, 1, 0), PM_EINVAL);
    CHECK_ERROR(deallocate(*handle, 0, 1, PM_DEALLOC_SQUASH), PM_EINVAL);
    CHECK_ERROR(pm_container_map(*handle, 0, 1, REGION, LAZY_READ_WRITE), PM_EINVAL);
  }
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(stale_handle, 0, 1, "R15: a destroyed container's handle is invalid, even after others were created") {
  pm_container_t container = make_container(3);
  CHECK_OK(pm_container_destroy(container));
  for (int i = 0; i < 20; i++) {
    CHECK_ERROR(pm_container_destroy(container), PM_EINVAL);
    CHECK_ERROR(allocate(container, 10, 1, 0), PM_EINVAL);
    CHECK_ERROR(pm_container_map(container, 0, 1, REGION, LAZY_READ_WRITE), PM_EINVAL);
    pm_container_t other = make_container(1);
    CHECK(other != container);
    if (i % 2) CHECK_OK(pm_container_destroy(other));
  }
}

PM_TEST(initial_container, 0, 1, "R15: the initial container cannot be destroyed, and holds image and stack") {
  CHECK_ERROR(pm_container_destroy(PM_CAP_CONTAINER), PM_EPERM);
  CHECK_ERROR(allocate(PM_CAP_CONTAINER, 0, 1, 0), PM_EEXIST);
  uint64_t before = allocated_frames();
  CHECK_OK(allocate(PM_CAP_CONTAINER, 1000000, 5, 0));
  CHECK_EQ(allocated_frames(), before + 5);
  CHECK_OK(pm_container_map(PM_CAP_CONTAINER, 1000000, 5, REGION, LAZY_READ_WRITE));
  fill_pages(REGION, 5, 1);
  check_pages(REGION, 5, 1);
}

PM_TEST(many_containers, 0, 1, "R15: 1,000 containers at once, each with its own frame") {
  static pm_container_t containers[1000];
  for (uint32_t i = 0; i < 1000; i++) {
    containers[i] = make_container(1);
    CHECK_OK(pm_container_map(containers[i], 0, 1, PAGE(REGION, i), LAZY_READ_WRITE));
    *(uint32_t *)PAGE(REGION, i) = i;
  }
  for (uint32_t i = 0; i < 1000; i++) CHECK_EQ(*(uint32_t *)PAGE(REGION, i), i);
  for (uint32_t i = 0; i < 1000; i++) CHECK_OK(pm_container_destroy(containers[i]));
}

PM_TEST(containers_without_end, 0, 1,
        "R15: creating containers without end fails with PM_ENOMEM at worst, and the task continues") {
  pm_error_t error = PM_OK;
  pm_container_t container, last = 0;
  int made = 0;
  for (; made < 70000 && !(error = pm_container_create(&container)); made++) last = container;
  if (error) CHECK_ERROR(error, PM_ENOMEM);
  CHECK(made >= 1000);
  CHECK_OK(pm_container_destroy(last));
  CHECK_OK(pm_container_create(&container));
}

PM_TEST(charged, 0, 1, "R2, R6, R16: allocation is charged to the task at once, and deallocation gives it back") {
  uint64_t before = allocated_frames();
  pm_container_t container = make_container(0);
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(allocate(container, 0, 100, 0));
  CHECK_EQ(allocated_frames(), before + 100);
  CHECK_OK(deallocate(container, 10, 30, 0));
  CHECK_EQ(allocated_frames(), before + 70);
  CHECK_OK(pm_container_destroy(container));
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(limits_of_ids, 0, 1, "R15: the last ids of the id space, and counts that go beyond it") {
  pm_container_t container = make_container(0);
  CHECK_OK(allocate(container, UINT32_MAX, 1, 0));
  CHECK_ERROR(allocate(container, UINT32_MAX, 1, 0), PM_EEXIST);
  CHECK_OK(allocate(container, UINT32_MAX - 10, 10, 0));
  CHECK_ERROR(allocate(container, UINT32_MAX, 2, 0), PM_EINVAL);
  CHECK_ERROR(allocate(container, UINT32_MAX, 2, PM_ALLOC_PARTIAL), PM_EINVAL);
  CHECK_ERROR(deallocate(container, UINT32_MAX, 2, PM_DEALLOC_SQUASH), PM_EINVAL);
  CHECK_ERROR(deallocate(container, 2, UINT32_MAX, PM_DEALLOC_SQUASH), PM_EINVAL);
  CHECK_OK(pm_container_map(container, UINT32_MAX - 10, 11, REGION, LAZY_READ_WRITE));
  fill_pages(REGION, 11, 1);
  check_pages(REGION, 11, 1);
  CHECK_EQ(mapping_at(PAGE(REGION, 10)).frame, UINT32_MAX);
  CHECK_ERROR(pm_container_map(container, UINT32_MAX - 10, 12, REGION, LAZY_READ_WRITE), PM_EINVAL);
}

PM_TEST(bad_arguments, 0, 1, "R18: count 0 and unknown flags fail and change nothing") {
  pm_container_t container = make_container(4);
  uint64_t before = allocated_frames();
  CHECK_ERROR(allocate(container, 0, 0, 0), PM_EINVAL);
  CHECK_ERROR(allocate(container, 10, 0, PM_ALLOC_PARTIAL | PM_ALLOC_SQUASH), PM_EINVAL);
  CHECK_ERROR(deallocate(container, 0, 0, 0), PM_EINVAL);
  for (int bit = 3; bit < 32; bit++) CHECK_ERROR(allocate(container, 10, 1, 1u << bit), PM_EINVAL);
  for (int bit = 2; bit < 32; bit++) CHECK_ERROR(deallocate(container, 0, 1, 1u << bit), PM_EINVAL);
  CHECK_EQ(last_count, 1);
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(deallocate(container, 0, 4, 0));
}

PM_TEST(id_in_use, 0, 1, "R18: PM_EEXIST if an id is in use, and nothing changes") {
  pm_container_t container = make_container(0);
  CHECK_OK(allocate(container, 5, 1, 0));
  uint64_t before = allocated_frames();
  for (uint32_t start = 0; start <= 5; start++) {
    CHECK_ERROR(allocate(container, start, 8, 0), PM_EEXIST);
    CHECK_EQ(last_count, 0);
  }
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(allocate(container, 0, 5, 0));
  CHECK_OK(allocate(container, 6, 7, 0));
}

PM_TEST(partial, 0, 1, "R18: PARTIAL stops at the first id in use and returns the count") {
  pm_container_t container = make_container(0);
  CHECK_OK(allocate(container, 5, 1, 0));
  uint64_t before = allocated_frames();
  CHECK_ERROR(allocate(container, 0, 10, PM_ALLOC_PARTIAL), PM_EEXIST);
  CHECK_EQ(last_count, 5);
  CHECK_EQ(allocated_frames(), before + 5);
  CHECK_ERROR(allocate(container, 0, 10, PM_ALLOC_PARTIAL), PM_EEXIST);
  CHECK_EQ(last_count, 0);
  CHECK_OK(allocate(container, 6, 10, PM_ALLOC_PARTIAL));
  CHECK_EQ(last_count, 10);
}

PM_TEST(squash, 0, 1, "R18: SQUASH also allocates ids in use, and charges only for the others") {
  pm_container_t container = map_fresh(REGION, 10);
  fill_pages(REGION, 10, 1);
  uint64_t before = allocated_frames();
  CHECK_OK(allocate(container, 5, 10, PM_ALLOC_SQUASH));
  CHECK_EQ(last_count, 10);
  CHECK_EQ(allocated_frames(), before + 5);
  CHECK_OK(pm_container_map(container, 0, 15, REGION, LAZY_READ_WRITE));
  check_pages(REGION, 5, 1);
  CHECK(is_zero(PAGE(REGION, 5), 10 * PM_PAGE_SIZE));
}

PM_TEST(deallocate_unused, 0, 1, "R18: deallocating ids not in use: PM_ENOENT, PARTIAL and SQUASH") {
  pm_container_t container = make_container(0);
  CHECK_OK(allocate(container, 0, 5, 0));
  CHECK_OK(allocate(container, 7, 3, 0));
  uint64_t before = allocated_frames();
  CHECK_ERROR(deallocate(container, 0, 10, 0), PM_ENOENT);
  CHECK_EQ(last_count, 0);
  CHECK_ERROR(deallocate(container, 5, 1, 0), PM_ENOENT);
  CHECK_EQ(allocated_frames(), before);
  CHECK_ERROR(deallocate(container, 3, 7, PM_DEALLOC_PARTIAL), PM_ENOENT);
  CHECK_EQ(last_count, 2);
  CHECK_EQ(allocated_frames(), before - 2);
  CHECK_OK(deallocate(container, 0, 100, PM_DEALLOC_SQUASH));
  CHECK_EQ(allocated_frames(), before - 8);
  CHECK_OK(deallocate(container, 0, 1000000, PM_DEALLOC_SQUASH));
}

PM_TEST(scattered_ids, 0, 1, "R15: distant ids, each naming its own frame") {
  pm_container_t container = make_container(0);
  for (uint32_t i = 0; i < 32; i++) {
    pm_frame_t id = i ? 1u << i | i : 0;
    CHECK_OK(allocate(container, id, 1, 0));
    CHECK_OK(pm_container_map(container, id, 1, PAGE(REGION, i), LAZY_READ_WRITE));
    *PAGE(REGION, i) = (char)(i + 1);
  }
  for (uint32_t i = 0; i < 32; i++) CHECK_EQ(*PAGE(REGION, i), i + 1);
}
