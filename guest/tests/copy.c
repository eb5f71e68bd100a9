// Logical copies: their data, under all later writes (R24).
#include "test.h"

static void copy(pm_container_t from, pm_frame_t start, pm_container_t to, pm_frame_t to_start, uint32_t count) {
  pm_frame_t frame = 12345;
  CHECK_OK(pm_container_copy(from, start, to, to_start, count, &frame));
  CHECK_EQ(frame, 12345);
}

static pm_container_t copy_of(pm_container_t from, uint32_t count) {
  pm_container_t container = make_container(0);
  copy(from, 0, container, 0, count);
  return container;
}

// ---- one copy ------------------------------------------------------------------------

PM_TEST(same_data, 0, 1, "R24: a copy has the source's data, to the byte") {
  pm_container_t source = map_fresh(REGION, 20);
  fill_pages(REGION, 20, 1);
  map_lazily(copy_of(source, 20), 0, 20, REGION_2);
  check_copied_pages(REGION_2, REGION, 20, 1);
  check_pages(REGION, 20, 1);
}

PM_TEST(write_to_copy, 0, 1, "R24: a write to the copy does not change the source") {
  pm_container_t source = map_numbered(REGION, 20, 100);
  map_lazily(copy_of(source, 20), 0, 20, REGION_2);
  for (uint32_t i = 0; i < 20; i++) WORD(REGION_2, i) = 500 + i;
  check_numbered(REGION, 20, 100);
  check_numbered(REGION_2, 20, 500);
}

PM_TEST(write_to_source, 0, 1, "R24: a write to the source, writable before, does not change the copy") {
  pm_container_t source = map_numbered(REGION, 20, 100);
  map_lazily(copy_of(source, 20), 0, 20, REGION_2);
  for (uint32_t i = 0; i < 20; i++) WORD(REGION, i) = 500 + i;
  check_numbered(REGION, 20, 500);
  check_numbered(REGION_2, 20, 100);
}

PM_TEST(write_to_both, 0, 1, "R24: both are written in turn, a byte at a time; the rest of the page stays") {
  pm_container_t source = map_fresh(REGION, 8);
  fill_pages(REGION, 8, 1);
  map_lazily(copy_of(source, 8), 0, 8, REGION_2);
  for (uint32_t i = 0; i < 8; i++) {
    char *first = i % 2 ? REGION : REGION_2, *second = i % 2 ? REGION_2 : REGION;
    *(volatile char *)(PAGE(first, i) + 4095) = 1;
    *(volatile char *)(PAGE(second, i) + 4095) = 2;
  }
  for (uint32_t i = 0; i < 8; i++) {
    CHECK_EQ(PAGE(REGION, i)[4095], i % 2 ? 1 : 2);
    CHECK_EQ(PAGE(REGION_2, i)[4095], i % 2 ? 2 : 1);
    for (size_t at = 0; at < 4095; at++) CHECK_EQ(PAGE(REGION, i)[at], PAGE(REGION_2, i)[at]);
  }
}

PM_TEST(charged, 0, 1, "R6, R24: a copy is charged to its owner, except for ids already in use") {
  pm_container_t source = map_numbered(REGION, 10, 1), destination = make_container(4);
  uint64_t before = allocated_frames();
  copy(source, 0, destination, 0, 10);
  CHECK_EQ(allocated_frames(), before + 6);
  copy(source, 0, destination, 0, 10);
  CHECK_EQ(allocated_frames(), before + 6);
  CHECK_OK(pm_container_destroy(destination));
  CHECK_EQ(allocated_frames(), before - 4);
}

PM_TEST(source_goes, 0, 1, "R24: the copy survives freeing the source, and the source freeing the copy") {
  pm_container_t source = map_numbered(REGION, 10, 1), first = copy_of(source, 10), second = copy_of(source, 10);
  CHECK_OK(pm_container_destroy(first));
  check_numbered(REGION, 10, 1);
  CHECK_OK(pm_container_destroy(source));
  map_lazily(second, 0, 10, REGION_2);
  check_numbered(REGION_2, 10, 1);
}

// ---- onto ids in use ------------------------------------------------------------------

PM_TEST(onto_used, 0, 1, "R24: ids in use get the new content, and their mappings show it at once") {
  pm_container_t source = map_numbered(REGION, 10, 1), destination = map_numbered(REGION_2, 10, 1000);
  copy(source, 2, destination, 5, 3);
  check_numbered(REGION_2, 5, 1000);
  check_numbered(PAGE(REGION_2, 5), 3, 3);
  check_numbered(PAGE(REGION_2, 8), 2, 1008);
  WORD(REGION_2, 5) = 77;
  check_numbered(REGION, 10, 1);
}

PM_TEST(onto_a_copy, 0, 1, "R24: a copy onto a frame that is a copy or a source") {
  pm_container_t one = map_numbered(REGION, 4, 10), two = map_numbered(REGION_2, 4, 20), three = copy_of(one, 4);
  copy(two, 0, one, 0, 4);
  check_numbered(REGION, 4, 20);
  copy(one, 0, three, 0, 2);
  map_lazily(three, 0, 4, PAGE(REGION, 100));
  CHECK_EQ(WORD(REGION, 100), 20);
  CHECK_EQ(WORD(REGION, 101), 21);
  CHECK_EQ(WORD(REGION, 102), 12);
  CHECK_EQ(WORD(REGION, 103), 13);
}

PM_TEST(onto_itself, 0, 1, "R24: a copy of frames onto themselves changes nothing") {
  pm_container_t container = map_numbered(REGION, 6, 10);
  uint64_t before = allocated_frames(), physical = mapping_at(REGION).physical;
  copy(container, 0, container, 0, 6);
  CHECK_EQ(allocated_frames(), before);
  check_numbered(REGION, 6, 10);
  for (uint32_t i = 0; i < 6; i++) WORD(REGION, i) = 30 + i;
  check_numbered(REGION, 6, 30);
  CHECK_SAME_FRAME(mapping_at(REGION).physical, physical);
}

PM_TEST(same_content, 0, 1, "R24: a copy onto a frame that shares the content already changes nothing") {
  pm_container_t source = map_numbered(REGION, 3, 10), destination = copy_of(source, 3);
  for (int i = 0; i < 10; i++) copy(source, 0, destination, 0, 3);
  for (int i = 0; i < 10; i++) copy(destination, 0, source, 0, 3);
  map_lazily(destination, 0, 3, REGION_2);
  CHECK_SAME_FRAME(mapping_at(REGION).physical, mapping_at(REGION_2).physical);
  WORD(REGION, 1) = 5;
  check_numbered(REGION_2, 3, 10);
}

PM_TEST(overlap_up, 0, 1, "R24: ranges that overlap, copied to higher ids, as memmove does") {
  pm_container_t container = map_numbered(REGION, 16, 100);
  copy(container, 0, container, 4, 12);
  check_numbered(REGION, 4, 100);
  check_numbered(PAGE(REGION, 4), 12, 100);
}

PM_TEST(overlap_down, 0, 1, "R24: ranges that overlap, copied to lower ids, as memmove does") {
  pm_container_t container = map_numbered(REGION, 16, 100);
  copy(container, 4, container, 0, 12);
  check_numbered(REGION, 12, 104);
  check_numbered(PAGE(REGION, 12), 4, 112);
}

PM_TEST(overlap_and_beyond, 0, 1, "R24: a range that overlaps and extends to unused ids") {
  pm_container_t container = map_numbered(REGION, 16, 100);
  uint64_t before = allocated_frames();
  copy(container, 0, container, 1, 16);
  CHECK_EQ(allocated_frames(), before + 1);
  map_lazily(container, 0, 17, REGION);
  CHECK_EQ(WORD(REGION, 0), 100);
  check_numbered(PAGE(REGION, 1), 16, 100);
  for (uint32_t i = 0; i < 17; i++) WORD(REGION, i) = i;
  check_numbered(REGION, 17, 0);
}

// ---- scatter and gather -----------------------------------------------------------------

PM_TEST(gather, 0, 1, "R24: copy_gather takes ids in any order, even twice") {
  pm_container_t source = map_numbered(REGION, 10, 100), destination = make_container(0);
  const pm_frame_t frames[] = {9, 0, 5, 5, 3};
  pm_frame_t error = 1;
  CHECK_OK(pm_container_copy_gather(source, frames, destination, 50, 5, &error));
  map_lazily(destination, 50, 5, REGION_2);
  for (int i = 0; i < 5; i++) CHECK_EQ(WORD(REGION_2, i), 100 + frames[i]);
  WORD(REGION_2, 2) = 1;
  CHECK_EQ(WORD(REGION_2, 3), 105);
  check_numbered(REGION, 10, 100);
}

PM_TEST(scatter, 0, 1, "R24: copy_scatter puts frames at ids in any order, in use or not") {
  pm_container_t source = map_numbered(REGION, 10, 100), destination = map_numbered(REGION_2, 4, 50);
  const pm_frame_t frames[] = {1000000, 3, 0, UINT32_MAX, 8};
  CHECK_OK(pm_container_copy_scatter(source, 2, destination, frames, 5, NULL));
  for (int i = 0; i < 5; i++) map_lazily(destination, frames[i], 1, PAGE(REGION_2, 10 + i));
  check_numbered(PAGE(REGION_2, 10), 5, 102);
  CHECK_EQ(WORD(REGION_2, 1), 51);
  CHECK_EQ(WORD(REGION_2, 3), 103);
}

PM_TEST(scatter_twice, 0, 1, "R24: if an id occurs twice the last one counts, and it is charged once") {
  pm_container_t source = map_numbered(REGION, 10, 100), destination = map_numbered(REGION_2, 4, 50);
  const pm_frame_t frames[] = {2, 7, 2, 7, 7, 2};
  uint64_t before = allocated_frames();
  CHECK_OK(pm_container_copy_scatter(source, 0, destination, frames, 6, NULL));
  CHECK_EQ(allocated_frames(), before + 1);
  map_lazily(destination, 7, 1, PAGE(REGION_2, 7));
  CHECK_EQ(WORD(REGION_2, 2), 105);
  CHECK_EQ(WORD(REGION_2, 7), 104);
  CHECK_EQ(WORD(REGION_2, 1), 51);
}

PM_TEST(scatter_gather, 0, 1, "R24: copy_scatter_gather, from some ids to others") {
  pm_container_t source = map_numbered(REGION, 10, 100), destination = make_container(3);
  const pm_frame_t from[] = {7, 7, 1, 0}, to[] = {2, 40, 1, 0};
  CHECK_OK(pm_container_copy_scatter_gather(source, from, destination, to, 4, NULL));
  for (int i = 0; i < 4; i++) map_lazily(destination, to[i], 1, PAGE(REGION_2, i));
  for (int i = 0; i < 4; i++) CHECK_EQ(WORD(REGION_2, i), 100 + from[i]);
}

PM_TEST(permutations, 0, 1, "R24: scattering within one container reads all sources first") {
  enum { COUNT = 64 };
  pm_container_t container = map_numbered(REGION, COUNT, 0);
  static pm_frame_t from[COUNT], to[COUNT];
  static uint64_t expected[COUNT], next[COUNT];
  uint64_t state = 11;
  for (uint32_t i = 0; i < COUNT; i++) expected[i] = i, to[i] = i;
  for (int round = 0; round < 50; round++) {
    for (uint32_t i = 0; i < COUNT; i++) from[i] = next_random(&state) % COUNT;
    for (uint32_t i = COUNT; i-- > 1;) {
      uint32_t j = next_random(&state) % (i + 1), other = to[i];
      to[i] = to[j], to[j] = other;
    }
    CHECK_OK(pm_container_copy_scatter_gather(container, from, container, to, COUNT, NULL));
    for (uint32_t i = 0; i < COUNT; i++) next[to[i]] = expected[from[i]];
    memcpy(expected, next, sizeof expected);
    for (uint32_t i = 0; i < COUNT; i++) CHECK_EQ(WORD(REGION, i), expected[i]);
    WORD(REGION, round) = expected[round] = 1000u + (unsigned)round;
  }
}

PM_TEST(many_ids, 0, 1, "R24: arrays of the maximum length") {
  static pm_frame_t from[PM_FRAMES_MAXIMUM], to[PM_FRAMES_MAXIMUM];
  pm_container_t source = map_numbered(REGION, 4, 100), destination = make_container(0);
  for (uint32_t i = 0; i < PM_FRAMES_MAXIMUM; i++) from[i] = i % 4, to[i] = i % 5000 * 3;
  CHECK_OK(pm_container_copy_scatter_gather(source, from, destination, to, PM_FRAMES_MAXIMUM, NULL));
  // The last i with a given i % 5000 counts.
  for (uint32_t id = 0; id < 5000; id += 61) {
    uint32_t last = id + (PM_FRAMES_MAXIMUM - 1 - id) / 5000 * 5000;
    map_lazily(destination, id * 3, 1, REGION_2);
    CHECK_EQ(WORD(REGION_2, 0), 100 + last % 4);
  }
}

// ---- copies of copies ----------------------------------------------------------------------

PM_TEST(chain, 0, 1, "R24: copies of copies 100 deep, each level with its own page written, some dropped then") {
  enum { LEVELS = 100 };
  static pm_container_t level[LEVELS];
  level[0] = map_numbered(REGION, LEVELS, 1000);
  for (uint32_t i = 1; i < LEVELS; i++) {
    level[i] = copy_of(level[i - 1], LEVELS);
    char *place = PAGE(REGION, i * LEVELS);
    map_lazily(level[i], 0, LEVELS, place);
    WORD(place, i) = i;
    // The level above is written after it was copied.
    WORD(PAGE(REGION, (i - 1) * LEVELS), LEVELS - 1) = 7000 + i;
  }
  for (uint32_t i = 0; i < LEVELS; i += 3) CHECK_OK(pm_container_destroy(level[i]));
  for (uint32_t i = 0; i < LEVELS; i++) {
    if (i % 3 == 0) continue;
    char *place = PAGE(REGION, i * LEVELS);
    for (uint32_t page = 0; page < LEVELS - 1; page++)
      CHECK_EQ(WORD(place, page), page && page <= i ? page : 1000 + page);
    CHECK_EQ(WORD(place, LEVELS - 1), i == LEVELS - 1 ? LEVELS - 1 : 7000 + i + 1);
  }
}

PM_TEST(many_copies, 0, 1, "R24: 1,000 copies of one frame in one container, each then written") {
  pm_container_t container = map_numbered(REGION, 1, 5);
  for (uint32_t count = 1; count < 1000; count *= 2) copy(container, 0, container, count, count);
  map_lazily(container, 0, 1000, REGION);
  for (uint32_t i = 0; i < 1000; i++) CHECK_EQ(WORD(REGION, i), 5);
  for (uint32_t i = 0; i < 1000; i++) WORD(REGION, i) = i;
  check_numbered(REGION, 1000, 0);
}

PM_TEST(shown_everywhere, 0, 1,
        "R24, R27: 6,000 copies of one frame, all mapped at once: more than the leaf chain holds") {
  enum { COUNT = 6000 };
  pm_container_t container = map_numbered(REGION, 1, 5);
  for (uint32_t count = 1; count < COUNT; count *= 2)
    copy(container, 0, container, count, 2 * count > COUNT ? COUNT - count : count);
  map_lazily(container, 0, COUNT, REGION);
  for (int round = 0; round < 2; round++)
    for (uint32_t i = 0; i < COUNT; i++) CHECK_EQ(WORD(REGION, i), 5);
  for (uint32_t i = 0; i < COUNT; i += 100) WORD(REGION, i) = i;
  for (uint32_t i = 0; i < COUNT; i++) CHECK_EQ(WORD(REGION, i), i % 100 ? 5 : i);
}

PM_TEST(everything_twice, 0, 1, "R3, R24: half of all frames copied to the other half: each can still be written") {
  struct pm_task_info info;
  pm_container_t source = make_container(0), destination = make_container(0);
  CHECK_OK(pm_task_info(&info));
  uint32_t count = (uint32_t)info.available / 2, odd_one = 1;
  CHECK_OK(pm_container_allocate(source, 0, &count, PM_ALLOC_EXTRA));
  map_lazily(source, 0, count, REGION);
  for (uint32_t i = 0; i < count; i++) WORD(REGION, i) = i;
  copy(source, 0, destination, 0, count);
  (void)pm_container_allocate(destination, count, &odd_one, PM_ALLOC_EXTRA);
  CHECK_OK(pm_task_info(&info));
  CHECK_EQ(info.available, 0);
  map_lazily(destination, 0, count, REGION_2);
  for (uint32_t i = 0; i < count; i++) WORD(REGION_2, i) += 1;
  check_numbered(REGION_2, count, 1);
  check_numbered(REGION, count, 0);
}

// ---- frames without data, and those of the image --------------------------------------------------

PM_TEST(empty, 0, 1, "R16, R24: a copy of an untouched frame is empty too, and takes no memory") {
  pm_container_t source = map_fresh(REGION, 4), destination = map_numbered(REGION_2, 4, 70);
  copy(source, 0, destination, 0, 4);
  // The server may have forgotten the mapping: map it again without touching it, which would take a frame.
  if (pm_start_flags & PM_START_NO_MAPPING_CACHE) map_lazily(destination, 0, 4, REGION_2);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(mapping_at(PAGE(REGION, i)).physical, 0);
    CHECK_EQ(mapping_at(PAGE(REGION_2, i)).physical, 0);
  }
  WORD(REGION, 0) = 1;
  WORD(REGION_2, 1) = 2;
  CHECK(is_zero(REGION_2, PM_PAGE_SIZE));
  CHECK(is_zero(PAGE(REGION, 1), PM_PAGE_SIZE));
  CHECK(is_zero(PAGE(REGION_2, 2), 2 * PM_PAGE_SIZE));
  CHECK_EQ(WORD(REGION, 0) + WORD(REGION_2, 1), 3);
}

PM_TEST(no_memory_yet, 0, 1, "R16: a copy takes no frame: both map the same one until one of them is written") {
  pm_container_t source = map_numbered(REGION, 50, 1);
  map_lazily(copy_of(source, 50), 0, 50, REGION_2);
  check_numbered(REGION_2, 50, 1);
  check_numbered(REGION, 50, 1);
  for (int i = 0; i < 50; i++)
    CHECK_SAME_FRAME(mapping_at(PAGE(REGION, i)).physical, mapping_at(PAGE(REGION_2, i)).physical);
}

__attribute__((noinline, aligned(64))) static int forty_two(void) { return 42; }

PM_TEST(text, 0, 1, "R24: frames of the image's text are copied, executed elsewhere, and written") {
  struct pm_mapping mapping = mapping_at((const void *)(uintptr_t)&forty_two);
  CHECK_EQ(mapping.container, PM_CAP_CONTAINER);
  pm_container_t container = make_container(0);
  copy(PM_CAP_CONTAINER, mapping.frame, container, 0, 1);
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_EXECUTE | PM_MAP_LAZY));
  char *there = REGION + (uintptr_t)&forty_two % PM_PAGE_SIZE;
  CHECK_EQ(((int (*)(void))there)(), 42);
  CHECK_SAME_FRAME(mapping_at(REGION).physical, mapping.physical);
  map_lazily(container, 0, 1, REGION_2);
  char *writable = REGION_2 + (uintptr_t)&forty_two % PM_PAGE_SIZE;
  memset(writable, 0x90, 16);
  CHECK_EQ(forty_two(), 42);
  CHECK_EQ(*(uint8_t *)there, 0x90);
}

static volatile int variable = 1;

PM_TEST(data_and_stack, 0, 4, "R24: copies of all of the task's data and stack; the task continues") {
  volatile int local = 1;
  struct pm_mapping data = mapping_at((const void *)&variable);
  pm_container_t container = make_container(0);
  for (pm_frame_t id = 0; !pm_container_copy(PM_CAP_CONTAINER, id, container, id, 1, NULL); id++) {}
  struct pm_mapping stack = mapping_at((const void *)&local);
  variable = 2;
  local = 2;
  map_lazily(container, data.frame, 1, REGION);
  map_lazily(container, stack.frame, 1, PAGE(REGION, 1));
  CHECK_EQ(*(volatile int *)(REGION + (uintptr_t)&variable % PM_PAGE_SIZE), 1);
  CHECK_EQ(*(volatile int *)(PAGE(REGION, 1) + (uintptr_t)&local % PM_PAGE_SIZE), 1);
  CHECK_EQ(variable + local, 4);
}

PM_TEST(onto_data, 0, 1, "R24: the frame under a program's variable is replaced, and its mapping shows the new one") {
  struct pm_mapping data = mapping_at((const void *)&variable);
  pm_container_t container = make_container(0);
  copy(PM_CAP_CONTAINER, data.frame, container, 0, 1);
  map_lazily(container, 0, 1, REGION);
  *(volatile int *)(REGION + (uintptr_t)&variable % PM_PAGE_SIZE) = 17;
  copy(container, 0, PM_CAP_CONTAINER, data.frame, 1);
  CHECK_EQ(variable, 17);
  variable = 18;
  CHECK_EQ(*(volatile int *)(REGION + (uintptr_t)&variable % PM_PAGE_SIZE), 17);
}
