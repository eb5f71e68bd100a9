// Containers created, filled and shared in one call (R23).
#include "test.h"

static pm_container_t container, weak;

PM_TEST(with, 0, 1, "R23: create_with: fresh frames, charged, and a weak capability to the same ones") {
  uint64_t before = allocated_frames();
  CHECK_OK(pm_container_create_with(&container, 10, PM_CAP_NONE, &weak));
  CHECK_EQ(allocated_frames(), before + 10);
  CHECK(container && weak && container != weak);
  map_lazily(container, 0, 10, REGION);
  map_lazily(weak, 0, 10, REGION_2);
  CHECK(is_zero(REGION, 10 * PM_PAGE_SIZE));
  for (uint32_t i = 0; i < 10; i++) WORD(REGION_2, i) = 10 + i;
  check_numbered(REGION, 10, 10);
  CHECK_ERROR(pm_container_map(container, 10, 1, REGION, LAZY_READ_WRITE), PM_ENOENT);
  CHECK_ERROR(pm_container_destroy(weak), PM_EPERM);
  CHECK_OK(pm_container_destroy(container));
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(from, 0, 1, "R23: create_from: logical copies, numbered from 0") {
  pm_container_t source = map_numbered(REGION, 10, 100);
  uint64_t before = allocated_frames();
  CHECK_OK(pm_container_create_from(&container, source, 3, 5, PM_CAP_NONE, &weak));
  CHECK_EQ(allocated_frames(), before + 5);
  map_lazily(weak, 0, 5, REGION_2);
  check_numbered(REGION_2, 5, 103);
  CHECK_SAME_FRAME(mapping_at(REGION_2).physical, mapping_at(PAGE(REGION, 3)).physical);
  WORD(REGION_2, 0) = 1;
  check_numbered(REGION, 10, 100);
  CHECK_OK(pm_container_destroy(source));
  check_numbered(PAGE(REGION_2, 1), 4, 104);
}

PM_TEST(gather, 0, 1, "R23: create_gather: the listed ids, in that order") {
  pm_container_t source = map_numbered(REGION, 10, 100);
  const pm_frame_t ids[] = {9, 2, 2, 0};
  CHECK_OK(pm_container_create_gather(&container, source, ids, 4, PM_CAP_NONE, &weak));
  map_lazily(container, 0, 4, REGION_2);
  for (int i = 0; i < 4; i++) CHECK_EQ(WORD(REGION_2, i), 100 + ids[i]);
}

PM_TEST(from_weak, 0, 1, "R23: the source may be a weak capability") {
  pm_container_t source = map_numbered(REGION, 4, 100), copies;
  CHECK_OK(pm_container_share(source, PM_CAP_NONE, &weak));
  CHECK_OK(pm_container_create_from(&copies, weak, 0, 4, PM_CAP_NONE, &container));
  CHECK_OK(pm_container_revoke(source));
  map_lazily(copies, 0, 4, REGION_2);
  check_numbered(REGION_2, 4, 100);
}

PM_TEST(errors, 0, 1, "R23: a wrong source, id or remote: nothing is created or stored") {
  pm_container_t source = map_numbered(REGION, 4, 100);
  uint64_t before = allocated_frames();
  const pm_frame_t ids[] = {1, 4};
  container = weak = 77;
  CHECK_ERROR(pm_container_create_with(&container, 0, PM_CAP_NONE, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_with(&container, UINT32_MAX, PM_CAP_NONE, &weak), PM_ENOMEM);
  CHECK_ERROR(pm_container_create_with(&container, 5, 999, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_with(&container, 5, source, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_from(&container, 999, 0, 4, PM_CAP_NONE, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_from(&container, source, 0, 0, PM_CAP_NONE, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_from(&container, source, 0, 5, PM_CAP_NONE, &weak), PM_ENOENT);
  CHECK_ERROR(pm_container_create_from(&container, source, UINT32_MAX, 2, PM_CAP_NONE, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_from(&container, source, 0, 4, 999, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_gather(&container, source, ids, 2, PM_CAP_NONE, &weak), PM_ENOENT);
  CHECK_ERROR(pm_container_create_gather(&container, source, ids, 0, PM_CAP_NONE, &weak), PM_EINVAL);
  CHECK_ERROR(pm_container_create_gather(&container, source, NULL, 2, PM_CAP_NONE, &weak), PM_EFAULT);
  CHECK_ERROR(pm_container_create_gather(&container, source, ids, PM_FRAMES_MAXIMUM + 1, PM_CAP_NONE, &weak),
              PM_EINVAL);
  CHECK_EQ(container, 77);
  CHECK_EQ(weak, 77);
  CHECK_EQ(allocated_frames(), before);
  check_numbered(REGION, 4, 100);
}

PM_TEST(no_memory, 0, 1, "R23: PM_ENOMEM if the copies cannot be charged") {
  pm_container_t source = map_numbered(REGION, 10, 100);
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  uint32_t rest = (uint32_t)info.available - 5;
  CHECK_OK(pm_container_allocate(make_container(0), 0, &rest, PM_ALLOC_EXTRA));
  uint64_t before = allocated_frames();
  CHECK_ERROR(pm_container_create_from(&container, source, 0, 6, PM_CAP_NONE, &weak), PM_ENOMEM);
  CHECK_ERROR(pm_container_create_with(&container, 6, PM_CAP_NONE, &weak), PM_ENOMEM);
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(pm_container_create_from(&container, source, 0, 5, PM_CAP_NONE, &weak));
}

PM_TEST(not_shared, 0, 1, "R23: a null pointer for the weak capability: the container is created and not shared") {
  CHECK_OK(pm_container_create_with(&container, 2, PM_CAP_NONE, NULL));
  map_lazily(container, 0, 2, REGION);
  CHECK(is_zero(REGION, 2 * PM_PAGE_SIZE));
}

PM_TEST(nothing_leaks, 0, 1, "Safety: 2,500 failures take no handle, container or frame") {
  pm_container_t source = map_numbered(REGION, 4, 100), read_only = make_container(1);
  CHECK_OK(pm_container_map(read_only, 0, 1, REGION_2, PM_MAP_READ));
  uint64_t before = allocated_frames();
  for (int i = 0; i < 500; i++) {
    CHECK_ERROR(pm_container_create_with((pm_container_t *)REGION_2, 2, PM_CAP_NONE, &weak), PM_EFAULT);
    CHECK_ERROR(pm_container_create_with(&container, 2, PM_CAP_NONE, (pm_container_t *)REGION_2), PM_EFAULT);
    CHECK_ERROR(pm_container_create_from(&container, source, 0, 5, PM_CAP_NONE, &weak), PM_ENOENT);
    CHECK_ERROR(pm_container_create_from(&container, source, 0, 4, 999, &weak), PM_EINVAL);
    CHECK_ERROR(pm_container_share(source, PM_CAP_NONE, (pm_container_t *)REGION_2), PM_EFAULT);
  }
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(pm_container_create_with(&container, 2, PM_CAP_NONE, &weak));
  // The low half of a handle is its index in the table.
  CHECK((container & 0xffff) < 100 && (weak & 0xffff) < 100);
  check_numbered(REGION, 4, 100);
}

PM_TEST(result_in_source, 0, 1, "Safety: the handles are stored to a page that the call itself makes shared") {
  pm_container_t source = map_numbered(REGION, 1, 100);
  CHECK_OK(pm_container_create_from((pm_container_t *)(REGION + 64), source, 0, 1, PM_CAP_NONE,
                                    (pm_container_t *)(REGION + 68)));
  pm_container_t made = *(volatile pm_container_t *)(REGION + 64);
  map_lazily(made, 0, 1, REGION_2);
  CHECK_EQ(WORD(REGION_2, 0), 100);
  CHECK_EQ(*(volatile uint64_t *)(REGION_2 + 64), 0);
}
