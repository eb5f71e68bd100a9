// Many tasks of one program at once: each has its own memory, and none sees another's.
#include "test.h"

static uint64_t own_id(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  return info.id;
}

PM_TEST(own_memory, 0, 64, "R18: 64 tasks at once: each has its own data at the same address") {
  uint64_t id = own_id();
  map_fresh(REGION, 50);
  CHECK(is_zero(REGION, 50 * PM_PAGE_SIZE));
  fill_pages(REGION, 50, id);
  for (int round = 0; round < 5; round++) {
    pm_sleep(1000);
    check_pages(REGION, 50, id);
  }
}

PM_TEST(dirty_and_leave, 0, 64, "R18: tasks that come and go never see another task's data") {
  uint64_t id = own_id();
  for (uint64_t round = 0; round < 10; round++) {
    pm_container_t container = map_fresh(REGION, 20);
    CHECK(is_zero(REGION, 20 * PM_PAGE_SIZE));
    fill_pages(REGION, 20, id * 100 + round);
    check_pages(REGION, 20, id * 100 + round);
    // The server frees every other one at the task's end.
    if (round % 2) CHECK_OK(pm_container_destroy(container));
  }
}

PM_TEST(own_handles, 0, 16, "R15: a handle is valid only in its own task") {
  // All tasks create the same number of containers, so they get the same handles; each fills its own.
  uint64_t id = own_id();
  pm_container_t containers[8];
  for (uint32_t i = 0; i < 8; i++) containers[i] = map_fresh(PAGE(REGION, i), 1);
  for (uint32_t i = 0; i < 8; i++) *(uint64_t *)PAGE(REGION, i) = id << 8 | i;
  pm_sleep(20000);
  for (uint32_t i = 0; i < 8; i++) {
    CHECK_EQ(*(uint64_t *)PAGE(REGION, i), id << 8 | i);
    CHECK_OK(pm_container_destroy(containers[i]));
    pm_sleep(1000);
  }
}

static int swarm_handler(const struct pm_fault *fault) {
  static pm_container_t container;
  uint32_t count = 64;
  if (!container && (pm_container_create(&container) || pm_container_allocate(container, 0, &count, 0))) return 1;
  uint32_t frame = (uint32_t)((fault->address - (uint64_t)REGION) / PM_PAGE_SIZE);
  return pm_container_map(container, frame, 1, PAGE(REGION, frame), LAZY_READ_WRITE);
}

PM_TEST(own_pagers, 0, 16, "R37: 16 tasks page themselves at once") {
  uint64_t id = own_id(), state = id;
  CHECK_OK(pm_on_fault(swarm_handler));
  static uint64_t written[64];
  for (int i = 0; i < 1000; i++) {
    uint64_t page = next_random(&state) % 64, *word = (uint64_t *)PAGE(REGION, page);
    CHECK_EQ(*word, written[page]);
    *word = written[page] = id << 32 | next_random(&state) >> 32;
    if (i % 5 == 0) CHECK_OK(pm_unmap(PAGE(REGION, next_random(&state) % 64), 1));
  }
}

PM_TEST(compete, 0, 8, "R3, R8, R18: 8 tasks ask for more memory than there is, use what they get and give it back") {
  // All tasks must be launched first: a machine without a free frame takes no more.
  join(8);
  pm_container_t container = make_container(0);
  for (uint64_t round = 0; round < 5; round++) {
    uint32_t count = 12000;
    pm_error_t error = pm_container_allocate(container, 0, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA);
    if (error) CHECK_ERROR(error, PM_ENOMEM);
    if (!count) continue;
    CHECK_OK(pm_container_map(container, 0, count, REGION, LAZY_READ_WRITE));
    for (uint32_t i = 0; i < count; i += 16) {
      uint64_t *word = (uint64_t *)PAGE(REGION, i);
      CHECK_EQ(*word, 0);
      *word = i + round;
    }
    for (uint32_t i = 0; i < count; i += 16) CHECK_EQ(*(uint64_t *)PAGE(REGION, i), i + round);
    CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
  }
}

PM_TEST(one_dies, DIES_OF_PAGE_FAULT, 16, "Safety: tasks that die at the same time, each with memory in use") {
  map_fresh(REGION, 30);
  fill_pages(REGION, 30, own_id());
  *(volatile char *)REGION_2 = 1;
}
