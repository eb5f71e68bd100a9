// When a shared content is copied, and for which frame (R24, R26): by rights, faults and physical addresses.
#include "test.h"

/// `count` numbered frames mapped lazily at REGION, and a container of copies of them.
static pm_container_t source, copies;
static void set_up(uint32_t count) {
  source = map_numbered(REGION, count, 100);
  copies = make_container(0);
  CHECK_OK(pm_container_copy(source, 0, copies, 0, count, NULL));
}

static uint64_t physical_at(const void *address) { return mapping_at(address).physical; }

// ---- rights ------------------------------------------------------------------------------

PM_TEST(read_only_leaf, 0, 1, "R26: a read-write request on a shared content yields a read-only mapping") {
  set_up(4);
  CHECK_OK(pm_container_map(copies, 0, 4, REGION_2, PM_MAP_READ | PM_MAP_WRITE));
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(rights_at(PAGE(REGION_2, i)), PM_MAP_READ);
    CHECK_EQ(mapping_at(PAGE(REGION_2, i)).requested, PM_MAP_READ | PM_MAP_WRITE);
    CHECK_SAME_FRAME(physical_at(PAGE(REGION_2, i)), physical_at(PAGE(REGION, i)));
  }
  check_numbered(REGION_2, 4, 100);
}

PM_TEST(source_loses_write, 0, 1, "R26: the source's pages lose the right to write") {
  source = map_numbered(REGION, 4, 100);
  CHECK_EQ(rights_at(REGION), PM_MAP_READ | PM_MAP_WRITE);
  CHECK_OK(pm_container_copy(source, 0, make_container(4), 0, 4, NULL));
  for (int i = 0; i < 4; i++) CHECK(!(mapping_at(PAGE(REGION, i)).rights & PM_MAP_WRITE));
  check_numbered(REGION, 4, 100);
  for (int i = 0; i < 4; i++) CHECK_EQ(rights_at(PAGE(REGION, i)), PM_MAP_READ);
}

PM_TEST(force_write, 0, 1, "R26: with PM_MAP_FORCE_WRITE the content is copied and the mapping is read-write") {
  set_up(4);
  CHECK_OK(pm_container_map(copies, 0, 4, REGION_2, PM_MAP_FORCE_WRITE));
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(rights_at(PAGE(REGION_2, i)), PM_MAP_READ | PM_MAP_WRITE);
    CHECK(physical_at(PAGE(REGION_2, i)) != physical_at(PAGE(REGION, i)));
  }
  check_numbered(REGION_2, 4, 100);
  for (int i = 0; i < 4; i++) WORD(REGION_2, i) = 7;
  check_numbered(REGION, 4, 100);
}

PM_TEST(force_write_alone, 0, 1, "R26: PM_MAP_FORCE_WRITE copies nothing that is not shared") {
  source = map_numbered(REGION, 4, 100);
  uint64_t before = physical_at(REGION);
  CHECK_OK(pm_container_map(source, 0, 4, REGION_2, PM_MAP_FORCE_WRITE));
  CHECK_SAME_FRAME(physical_at(REGION_2), before);
  CHECK_SAME_FRAME(physical_at(REGION), before);
}

PM_TEST(force_write_of_source, 0, 1,
        "R26: PM_MAP_FORCE_WRITE of the source gives it a new frame, and the copy keeps the old one") {
  set_up(4);
  map_lazily(copies, 0, 4, REGION_2);
  check_numbered(REGION_2, 4, 100);
  uint64_t before = physical_at(REGION_2);
  CHECK_OK(pm_container_map(source, 0, 4, REGION, PM_MAP_FORCE_WRITE));
  WORD(REGION, 0) = 1;
  CHECK_SAME_FRAME(physical_at(REGION_2), before);
  CHECK(physical_at(REGION) != before);
  check_numbered(REGION_2, 4, 100);
}

// ---- writes ---------------------------------------------------------------------------------

PM_TEST(lazy_write, 0, 1, "R26: a write to a lazy mapping copies that page, and only then") {
  set_up(4);
  map_lazily(copies, 0, 4, REGION_2);
  check_numbered(REGION_2, 4, 100);
  CHECK_EQ(rights_at(REGION_2), PM_MAP_READ);
  uint64_t shared = physical_at(REGION_2);
  WORD(REGION_2, 0) = 1;
  CHECK_EQ(rights_at(REGION_2), PM_MAP_READ | PM_MAP_WRITE);
  CHECK(physical_at(REGION_2) != shared);
  CHECK_SAME_FRAME(physical_at(REGION), shared);
  CHECK_SAME_FRAME(physical_at(PAGE(REGION_2, 1)), physical_at(PAGE(REGION, 1)));
  check_numbered(REGION, 4, 100);
}

PM_TEST(first_access_writes, 0, 1, "R26: a write as the first access, to lazy and to PM_MAP_FORCE_WRITE mappings") {
  set_up(4);
  CHECK_OK(pm_container_map(copies, 0, 2, REGION_2, LAZY_READ_WRITE));
  CHECK_OK(pm_container_map(copies, 2, 2, PAGE(REGION_2, 2), PM_MAP_FORCE_WRITE | PM_MAP_LAZY));
  for (int i = 0; i < 4; i++) {
    *(volatile char *)(PAGE(REGION_2, i) + 4000) = 1;
    CHECK_EQ(WORD(REGION_2, i), 100 + i);
    CHECK(physical_at(PAGE(REGION_2, i)) != physical_at(PAGE(REGION, i)));
    CHECK_EQ(PAGE(REGION, i)[4000], 0);
  }
}

static pm_container_t plain;
static int forced;
static int force(const struct pm_fault *fault) {
  probed = *fault;
  forced++;
  uint32_t frame = (uint32_t)((fault->address - (uint64_t)REGION_2) / PM_PAGE_SIZE);
  return pm_container_map(plain, frame, 1, PAGE(REGION_2, frame), PM_MAP_FORCE_WRITE);
}

PM_TEST(plain_write, 0, 1, "R26, R37: a write to a plain mapping is a fault to the task") {
  set_up(4);
  plain = copies;
  CHECK_OK(pm_container_map(copies, 0, 4, REGION_2, PM_MAP_READ | PM_MAP_WRITE));
  CHECK_OK(pm_on_fault(force));
  *(volatile char *)(PAGE(REGION_2, 1) + 50) = 3;
  CHECK_EQ(forced, 1);
  CHECK_EQ(probed.address, (uint64_t)PAGE(REGION_2, 1) + 50);
  CHECK_EQ(probed.access, PM_ACCESS_WRITE);
  CHECK_EQ(probed.present, 1);
  CHECK_EQ(PAGE(REGION_2, 1)[50], 3);
  CHECK_EQ(PAGE(REGION, 1)[50], 0);
  check_numbered(REGION_2, 4, 100);
}

PM_TEST(plain_write_dies, DIES_OF_PAGE_FAULT, 1, "R26: without a handler a write to a plain mapping ends the task") {
  set_up(1);
  CHECK_OK(pm_container_map(copies, 0, 1, REGION_2, PM_MAP_READ | PM_MAP_WRITE));
  check_numbered(REGION_2, 1, 100);
  WORD(REGION_2, 0) = 1;
}

PM_TEST(plain_source, DIES_OF_PAGE_FAULT, 1, "R26: a plain mapping loses the right to write by the copy") {
  source = make_container(1);
  CHECK_OK(pm_container_map(source, 0, 1, REGION, PM_MAP_READ | PM_MAP_WRITE));
  WORD(REGION, 0) = 1;
  CHECK_OK(pm_container_copy(source, 0, make_container(0), 0, 1, NULL));
  WORD(REGION, 0) = 2;
}

PM_TEST(read_only_request, 0, 1, "R26: a write to a read-only mapping is a fault, shared or not") {
  set_up(1);
  CHECK_OK(pm_container_map(copies, 0, 1, REGION_2, PM_MAP_READ | PM_MAP_LAZY));
  CHECK(!read_faults(REGION_2));
  CHECK(write_faults(REGION_2));
  CHECK_EQ(probed.present, 1);
  check_numbered(REGION, 1, 100);
}

PM_TEST(string_instruction, 0, 1, "R26: one instruction that writes 20 shared pages") {
  set_up(20);
  map_lazily(copies, 0, 20, REGION_2);
  char *to = REGION_2 + 8;
  uint64_t count = 20 * PM_PAGE_SIZE - 16;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x5a) : "memory");
  CHECK_EQ(WORD(REGION_2, 0), 100);
  CHECK_EQ(WORD(REGION_2, 19), 0x5a5a5a5a5a5a5a5a);
  check_numbered(REGION, 20, 100);
}

PM_TEST(from_copy_to_source, 0, 1, "R26: one instruction reads the copy and writes the source, page by page") {
  set_up(20);
  map_lazily(copies, 0, 20, REGION_2);
  char *to = REGION + 8, *from = REGION_2;
  uint64_t count = 20 * PM_PAGE_SIZE - 16;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
  for (int i = 0; i < 20; i++) CHECK_EQ(*(volatile uint64_t *)(PAGE(REGION, i) + 8), 100 + i);
  check_numbered(REGION_2, 20, 100);
}

PM_TEST(across_pages, 0, 1, "R26: one write across two shared pages") {
  set_up(2);
  map_lazily(copies, 0, 2, REGION_2);
  *(volatile uint64_t *)(PAGE(REGION_2, 1) - 3) = UINT64_MAX;
  CHECK_EQ(*(volatile uint64_t *)(PAGE(REGION_2, 1) - 3), UINT64_MAX);
  check_numbered(REGION, 2, 100);
}

PM_TEST(exchange, 0, 1, "R26: a locked instruction on a shared page is atomic") {
  set_up(1);
  map_lazily(copies, 0, 1, REGION_2);
  volatile uint64_t *word = (volatile uint64_t *)REGION_2;
  CHECK_EQ(__atomic_fetch_add(word, 5, __ATOMIC_SEQ_CST), 100);
  CHECK_EQ(WORD(REGION_2, 0), 105);
  CHECK_EQ(WORD(REGION, 0), 100);
}

PM_TEST(server_writes, 0, 1, "R26: a call's result to a shared page copies it, as the task's own write would") {
  set_up(2);
  map_lazily(copies, 0, 2, REGION_2);
  CHECK_OK(pm_task_info((struct pm_task_info *)PAGE(REGION_2, 1)));
  CHECK(WORD(REGION_2, 1) != 101);
  check_numbered(REGION, 2, 100);
}

PM_TEST(server_may_not, 0, 1, "R26: a call's result to a shared page with a plain mapping fails with PM_EFAULT") {
  set_up(2);
  CHECK_OK(pm_container_map(copies, 0, 2, REGION_2, PM_MAP_READ | PM_MAP_WRITE));
  CHECK_ERROR(pm_task_info((struct pm_task_info *)PAGE(REGION_2, 1)), PM_EFAULT);
  check_numbered(REGION_2, 2, 100);
}

// ---- the last sharer ----------------------------------------------------------------------------

PM_TEST(last_sharer, 0, 1, "R24: the last frame that names a content writes it in place") {
  set_up(2);
  check_numbered(REGION, 2, 100);
  uint64_t before = physical_at(REGION), second = physical_at(PAGE(REGION, 1));
  CHECK_OK(pm_container_destroy(copies));
  WORD(REGION, 0) = 5;
  CHECK_SAME_FRAME(physical_at(REGION), before);
  CHECK_SAME_FRAME(physical_at(PAGE(REGION, 1)), second);
  CHECK_EQ(rights_at(REGION), PM_MAP_READ | PM_MAP_WRITE);
}

PM_TEST(last_sharer_is_copy, 0, 1, "R24: so does a copy whose source is freed, replaced, or written") {
  set_up(3);
  uint64_t before[3];
  for (int i = 0; i < 3; i++) before[i] = physical_at(PAGE(REGION, i));
  map_lazily(copies, 0, 3, REGION_2);
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(source, 0, &one, 0));
  CHECK_OK(pm_container_allocate(source, 1, &one, PM_ALLOC_SQUASH));
  WORD(REGION, 2) = 1;
  for (int i = 0; i < 3; i++) {
    WORD(REGION_2, i) += 50;
    CHECK_SAME_FRAME(physical_at(PAGE(REGION_2, i)), before[i]);
  }
  check_numbered(REGION_2, 3, 150);
}

PM_TEST(last_sharer_plain, 0, 1, "R24, R26: the last sharer writes through a plain mapping too, without a fault") {
  set_up(2);
  CHECK_OK(pm_container_map(copies, 0, 2, REGION_2, PM_MAP_READ | PM_MAP_WRITE));
  check_numbered(REGION_2, 2, 100);
  CHECK_OK(pm_container_destroy(source));
  uint64_t before = physical_at(REGION_2);
  CHECK(!write_faults(REGION_2));
  CHECK_SAME_FRAME(physical_at(REGION_2), before);
}

PM_TEST(last_of_many, 0, 1, "R24: of 50 sharers each writer gets a new frame, and the last keeps the old one") {
  enum { COUNT = 50 };
  pm_container_t container = map_numbered(REGION, 1, 9);
  uint64_t first = physical_at(REGION), seen[COUNT];
  static pm_frame_t ids[COUNT];
  for (uint32_t i = 0; i < COUNT; i++) ids[i] = i;
  static const pm_frame_t zeros[COUNT];
  CHECK_OK(pm_container_copy_scatter_gather(container, zeros, container, ids, COUNT, NULL));
  map_lazily(container, 0, COUNT, REGION);
  for (int i = 0; i < COUNT; i++) {
    CHECK_EQ(WORD(REGION, i), 9);
    WORD(REGION, i) = 1000u + (unsigned)i;
    seen[i] = physical_at(PAGE(REGION, i));
    for (int j = 0; j < i; j++) CHECK(seen[i] != seen[j] || pm_start_flags & PM_START_MOVES);
  }
  CHECK_SAME_FRAME(seen[COUNT - 1], first);
  check_numbered(REGION, COUNT, 1000);
}

PM_TEST(takes_no_memory, 0, 1, "R3, R24: with all frames allocated, every sharer can still write") {
  set_up(100);
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  uint32_t rest = (uint32_t)info.available;
  pm_container_t filler = make_container(0);
  CHECK_OK(pm_container_allocate(filler, 0, &rest, PM_ALLOC_EXTRA));
  map_lazily(filler, 0, rest, PAGE(REGION, 1000));
  for (uint32_t i = 0; i < rest; i++) *(volatile char *)PAGE(REGION, 1000 + i) = 1;
  map_lazily(copies, 0, 100, REGION_2);
  for (uint32_t i = 0; i < 100; i++) WORD(REGION_2, i) = i;
  for (uint32_t i = 0; i < 100; i++) WORD(REGION, i) = 2 * i;
  check_numbered(REGION_2, 100, 0);
}

// ---- several mappings ------------------------------------------------------------------------------

PM_TEST(two_mappings, 0, 1,
        "R25, R26: a frame at three addresses: a write at one is seen at all of them, but not in the copy") {
  set_up(3);
  char *second = PAGE(REGION, 100), *third = PAGE(REGION, 200), *copy = REGION_2;
  map_lazily(source, 0, 3, second);
  CHECK_OK(pm_container_map(source, 0, 3, third, PM_MAP_READ));
  map_lazily(copies, 0, 3, copy);
  check_numbered(copy, 3, 100);
  check_numbered(second, 3, 100);
  check_numbered(third, 3, 100);
  for (int i = 0; i < 3; i++) {
    WORD(i % 2 ? second : REGION, i) = 200u + (unsigned)i;
    CHECK_EQ(WORD(REGION, i), 200 + i);
    CHECK_EQ(WORD(second, i), 200 + i);
    CHECK_EQ(WORD(third, i), 200 + i);
    CHECK_EQ(WORD(copy, i), 100 + i);
  }
}

PM_TEST(copied_again, 0, 1, "R24: 200 times: copy, write the source, and the copy keeps the old data") {
  source = map_numbered(REGION, 4, 0);
  copies = make_container(4);
  map_lazily(copies, 0, 4, REGION_2);
  for (uint64_t round = 0; round < 200; round++) {
    CHECK_OK(pm_container_copy(source, 0, copies, 0, 4, NULL));
    for (uint32_t i = 0; i < 4; i++) WORD(REGION, i) = round * 100 + i;
    if (round) check_numbered(REGION_2, 4, (round - 1) * 100);
  }
}
