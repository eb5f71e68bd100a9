// Allocations beyond the machine's memory (R3, R4, R16, R18).
#include "test.h"

#define EVERYTHING 0xffffffffu

static uint64_t available_frames(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  return info.available;
}

PM_TEST(too_much, 0, 1, "R18: more than the machine has fails with PM_ENOMEM and changes nothing") {
  pm_container_t container = make_container(0);
  uint64_t before = allocated_frames();
  uint32_t count = EVERYTHING;
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA), PM_ENOMEM);
  CHECK_EQ(count, 0);
  count = (uint32_t)available_frames() + 1;
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA), PM_ENOMEM);
  CHECK_EQ(count, 0);
  CHECK_EQ(allocated_frames(), before);
  count = 10;
  CHECK_OK(pm_container_allocate(container, 0, &count, 0));
}

PM_TEST(as_much_as_there_is, 0, 1, "R8, R18: PARTIAL takes all available frames and returns their number") {
  pm_container_t container = make_container(0);
  uint64_t before = allocated_frames(), available = available_frames();
  uint32_t count = EVERYTHING;
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA), PM_ENOMEM);
  CHECK_EQ(count, available);
  CHECK_EQ(allocated_frames(), before + count);
  CHECK_EQ(available_frames(), 0);
  uint32_t one = 1;
  CHECK_ERROR(pm_container_allocate(container, count, &one, PM_ALLOC_EXTRA), PM_ENOMEM);
  CHECK_EQ(one, 0);
  CHECK_OK(pm_container_destroy(container));
  CHECK_EQ(allocated_frames(), before);
  CHECK_EQ(available_frames(), available);
}

PM_TEST(use_everything, 0, 1, "R3: every allocated frame can be used, and is available again when freed") {
  for (uint64_t round = 0; round < 2; round++) {
    pm_container_t container = make_container(0);
    uint32_t count = EVERYTHING;
    CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA), PM_ENOMEM);
    CHECK(count > 100);
    CHECK_OK(pm_container_map(container, 0, count, REGION, LAZY_READ_WRITE));
    // Two words a page: all the memory of a large machine would take too long.
    for (uint32_t i = 0; i < count; i++) {
      uint64_t *page = (uint64_t *)PAGE(REGION, i);
      CHECK_EQ(page[0] | page[511], 0);
      page[0] = i + round;
      page[511] = ~page[0];
    }
    for (uint32_t i = 0; i < count; i++) {
      uint64_t *page = (uint64_t *)PAGE(REGION, i);
      CHECK_EQ(page[0], i + round);
      CHECK_EQ(page[511], ~(i + round));
    }
    CHECK_OK(pm_container_destroy(container));
  }
}

PM_TEST(heap_until_null, 0, 1, "R18: malloc returns null when memory runs out, and works again after free") {
  enum { BLOCK = 1 << 20 };
  static void *blocks[4096];
  int count = 0;
  while (count < 4096 && (blocks[count] = malloc(BLOCK))) *(char *)blocks[count++] = 1;
  CHECK(count > 0);
  while (count) free(blocks[--count]);
  char *again = malloc(BLOCK);
  CHECK(again != NULL);
  memset(again, 1, BLOCK);
}

PM_TEST(pressure, 0, 1, "pm_task_info: the pressure is 0 to 100 and grows with allocation") {
  struct pm_task_info before, after;
  CHECK_OK(pm_task_info(&before));
  CHECK(before.pressure <= 100);
  pm_container_t container = make_container(0);
  uint32_t count = EVERYTHING;
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA), PM_ENOMEM);
  CHECK_OK(pm_task_info(&after));
  CHECK(after.pressure > before.pressure && after.pressure <= 100);
}
