// Frames allocated by physical address, and contents that are moved out of the way (R17, R19, R25).
#include "test.h"

static uint64_t physical[4096];

/// Allocates `count` frames from `start` on with `placement`.
static pm_error_t place(pm_container_t container, pm_frame_t start, uint32_t count, struct pm_placement placement) {
  uint32_t done = count;
  pm_error_t error = pm_container_allocate_placed(container, start, &done, 0, &placement);
  CHECK_EQ(done, error == PM_ENOMEM || error == PM_EEXIST ? 0 : count);
  return error;
}

/// Stores the frames' physical addresses in `physical`.
static void locate(pm_container_t container, pm_frame_t start, uint32_t count) {
  CHECK_OK(pm_container_pin(container, start, count, PM_LOCK_MAXIMUM_US, physical));
  CHECK_OK(pm_container_unpin(container, start, count));
}

static uint64_t address_of(pm_container_t container, pm_frame_t frame) {
  locate(container, frame, 1);
  return physical[0];
}

static void check_obstacle(uint64_t address, uint32_t kind) {
  struct pm_obstacle obstacle;
  CHECK_OK(pm_placement_obstacle(&obstacle));
  CHECK_EQ(obstacle.kind, kind);
  CHECK_EQ(obstacle.physical, address);
}

static void check_run(uint32_t count) {
  for (uint32_t i = 1; i < count; i++) CHECK_EQ(physical[i], physical[0] + i * PM_PAGE_SIZE);
}

PM_TEST(below, 0, 1, "R19: frames below an address are resident at once and read as zero") {
  pm_container_t container = make_container(0);
  uint64_t before = allocated_frames();
  CHECK_OK(place(container, 5, 40, (struct pm_placement){.below = 16 << 20}));
  CHECK_EQ(allocated_frames(), before + 40);
  locate(container, 5, 40);
  for (int i = 0; i < 40; i++) {
    CHECK(physical[i] && physical[i] < 16 << 20 && physical[i] % PM_PAGE_SIZE == 0);
    for (int j = 0; j < i; j++) CHECK(physical[i] != physical[j]);
  }
  map_lazily(container, 5, 40, REGION);
  CHECK(is_zero(REGION, 40 * PM_PAGE_SIZE));
  fill_pages(REGION, 40, 1);
  check_pages(REGION, 40, 1);
  for (int i = 0; i < 40; i++) CHECK_EQ(mapping_at(PAGE(REGION, i)).physical, physical[i]);
  // Ordinary frames are in another zone.
  CHECK(address_of(map_numbered(REGION_2, 1, 1), 0) >= 16 << 20);
}

PM_TEST(aligned, 0, 1, "R19: single frames, each aligned") {
  pm_container_t container = make_container(0);
  CHECK_OK(place(container, 0, 20, (struct pm_placement){.alignment = 1 << 20}));
  locate(container, 0, 20);
  for (int i = 0; i < 20; i++) CHECK_EQ(physical[i] % (1 << 20), 0);
}

PM_TEST(contiguous, 0, 1, "R19: adjacent frames, aligned, below an address, within a boundary") {
  pm_container_t container = make_container(0);
  CHECK_OK(place(container, 0, 100, (struct pm_placement){.contiguous = 1, .alignment = 64 << 10}));
  locate(container, 0, 100);
  CHECK_EQ(physical[0] % (64 << 10), 0);
  check_run(100);
  CHECK_OK(place(container, 1000, 3, (struct pm_placement){.contiguous = 1, .below = 16 << 20}));
  locate(container, 1000, 3);
  CHECK(physical[2] < 16 << 20);
  check_run(3);
  for (uint32_t i = 0; i < 8; i++) {
    CHECK_OK(place(container, 2000 + 24 * i, 24, (struct pm_placement){.contiguous = 1, .boundary = 128 << 10}));
    locate(container, 2000 + 24 * i, 24);
    check_run(24);
    CHECK_EQ(physical[0] / (128 << 10), physical[23] / (128 << 10));
  }
  CHECK_OK(place(container, 5000, 1000, (struct pm_placement){.contiguous = 1, .alignment = 4 << 20}));
  locate(container, 5000, 1000);
  CHECK_EQ(physical[0] % (4 << 20), 0);
  check_run(1000);
}

PM_TEST(fixed, 0, 1, "R19, R17: frames at an address; the contents there are moved with their data and stay mapped") {
  pm_container_t taken = map_numbered(REGION, 64, 100), container = make_container(0);
  locate(taken, 0, 64);
  uint64_t address = physical[10];
  CHECK_OK(place(container, 7, 1, (struct pm_placement){.fixed = address}));
  check_numbered(REGION, 64, 100);
  CHECK(address_of(taken, 10) != address);
  CHECK_EQ(address_of(container, 7), address);
  map_lazily(container, 7, 1, REGION_2);
  CHECK(is_zero(REGION_2, PM_PAGE_SIZE));
  WORD(REGION_2, 0) = 1;
  check_numbered(REGION, 64, 100);
  CHECK_EQ(mapping_at(REGION_2).physical, address);
  // A run with free, used and empty frames.
  uint64_t start = address - 60 * PM_PAGE_SIZE;
  CHECK_OK(place(container, 100, 50, (struct pm_placement){.fixed = start}));
  locate(container, 100, 50);
  CHECK_EQ(physical[0], start);
  check_run(50);
  check_numbered(REGION, 64, 100);
}

PM_TEST(obstacles, 0, 1, "R19: pinned, placed and reserved frames are obstacles, are reported, and nothing changes") {
  pm_container_t taken = map_numbered(REGION, 8, 100), container = make_container(0);
  CHECK_OK(pm_container_pin(taken, 3, 1, PM_LOCK_MAXIMUM_US, physical));
  uint64_t address = physical[0], before = allocated_frames();
  CHECK_ERROR(place(container, 0, 1, (struct pm_placement){.fixed = address}), PM_ENOMEM);
  check_obstacle(address, PM_OBSTACLE_PINNED);
  CHECK_ERROR(place(container, 0, 3, (struct pm_placement){.fixed = address - PM_PAGE_SIZE}), PM_ENOMEM);
  check_obstacle(address, PM_OBSTACLE_PINNED);
  CHECK_ERROR(place(container, 0, 1, (struct pm_placement){.fixed = PM_PAGE_SIZE}), PM_ENOMEM);
  check_obstacle(PM_PAGE_SIZE, PM_OBSTACLE_RESERVED);
  CHECK_EQ(allocated_frames(), before);
  uint32_t one = 1;
  CHECK_ERROR(pm_container_deallocate(container, 0, &one, 0), PM_ENOENT);
  CHECK_OK(pm_container_unpin(taken, 3, 1));
  CHECK_OK(place(container, 0, 1, (struct pm_placement){.fixed = address}));
  CHECK_ERROR(place(container, 1, 1, (struct pm_placement){.fixed = address}), PM_ENOMEM);
  check_obstacle(address, PM_OBSTACLE_PLACED);
  one = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &one, 0));
  CHECK_OK(place(container, 1, 1, (struct pm_placement){.fixed = address}));
  check_numbered(REGION, 8, 100);
}

PM_TEST(never, 0, 1, "R19: placements that can never hold fail with PM_EINVAL and change nothing") {
  pm_container_t container = make_container(0);
  uint64_t before = allocated_frames();
  const struct pm_placement bad[] = {
      {.alignment = 3 << 12},
      {.alignment = 1ull << 63},
      {.boundary = 3 << 12, .contiguous = 1},
      {.boundary = 64, .contiguous = 1},
      {.boundary = 4 << 12, .contiguous = 1},
      {.below = 4096},
      {.below = 5 << 12, .contiguous = 1},
      {.below = 5 << 12},
      {.contiguous = 2},
      {.reserved = 1},
      {.fixed = 1ull << 40},
      {.fixed = ~4095ull},
      {.fixed = 0x100800},
      {.fixed = 1 << 20, .below = 1 << 20},
      {.fixed = 1 << 20, .alignment = 2 << 20},
      {.fixed = 7 << 12, .boundary = 8 << 12},
      {.alignment = 1 << 20, .below = 5 << 20},
  };
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_ERROR(place(container, 0, 5, bad[i]), PM_EINVAL);
  }
  uint32_t count = 0;
  const struct pm_placement any = {0};
  CHECK_ERROR(pm_container_allocate_placed(container, 0, &count, 0, &any), PM_EINVAL);
  count = PM_FRAMES_MAXIMUM + 1;
  CHECK_ERROR(pm_container_allocate_placed(container, 0, &count, 0, &any), PM_EINVAL);
  count = 2;
  CHECK_ERROR(pm_container_allocate_placed(container, ~0u, &count, 0, &any), PM_EINVAL);
  CHECK_ERROR(pm_container_allocate_placed(container, 0, &count, 8, &any), PM_EINVAL);
  CHECK_ERROR(pm_container_allocate_placed(0x12345, 0, &count, 0, &any), PM_EINVAL);
  CHECK_ERROR(pm_container_allocate_placed(container, 0, &count, 0, (void *)8), PM_EFAULT);
  CHECK_ERROR(pm_container_allocate_placed(container, 0, (void *)8, 0, &any), PM_EFAULT);
  CHECK_ERROR(pm_placement_obstacle((void *)8), PM_EFAULT);
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(ids, 0, 1, "R19, R18: ids in use, too many frames, squash, partial and weak capabilities as for allocate") {
  pm_container_t container = map_numbered(REGION, 4, 100), weak;
  const struct pm_placement run = {.contiguous = 1};
  struct pm_task_info info;
  CHECK_ERROR(place(container, 3, 2, run), PM_EEXIST);
  check_numbered(REGION, 4, 100);
  uint32_t count = 4;
  CHECK_ERROR(pm_container_allocate_placed(container, 2, &count, PM_ALLOC_PARTIAL, &run), PM_EEXIST);
  CHECK_EQ(count, 0);
  CHECK_OK(pm_container_deallocate(container, 2, &(uint32_t){1}, 0));
  count = 2;
  CHECK_ERROR(pm_container_allocate_placed(container, 2, &count, PM_ALLOC_PARTIAL, &run), PM_EEXIST);
  CHECK_EQ(count, 1);
  CHECK_EQ(WORD(REGION, 2), 0);
  count = 3;
  CHECK_OK(pm_container_allocate_placed(container, 2, &count, PM_ALLOC_SQUASH, &run));
  CHECK_EQ(count, 3);
  locate(container, 2, 3);
  check_run(3);
  CHECK_EQ(WORD(REGION, 1), 101);
  CHECK_EQ(WORD(REGION, 2), 0);
  CHECK_EQ(WORD(REGION, 3), 0);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  CHECK_ERROR(place(weak, 20, 1, run), PM_EPERM);
  CHECK_OK(pm_task_info(&info));
  uint32_t most = (uint32_t)info.available + 1;
  CHECK_ERROR(place(container, 100, most > PM_FRAMES_MAXIMUM ? PM_FRAMES_MAXIMUM : most, (struct pm_placement){0}),
              PM_ENOMEM);
}

PM_TEST(copies, 0, 1, "R17, R24: a content shared by copies is moved for all of them, and stays shared") {
  pm_container_t source = map_numbered(REGION, 16, 100), copies = make_container(0), container = make_container(0);
  CHECK_OK(pm_container_copy(source, 0, copies, 0, 16, NULL));
  map_lazily(copies, 0, 16, REGION_2);
  check_numbered(REGION_2, 16, 100);
  uint64_t before = mapping_at(REGION).physical;
  CHECK_SAME_FRAME(mapping_at(REGION_2).physical, before);
  CHECK_OK(place(container, 0, 1, (struct pm_placement){.fixed = before}));
  check_numbered(REGION, 16, 100);
  check_numbered(REGION_2, 16, 100);
  uint64_t after = mapping_at(REGION).physical;
  CHECK(after != before);
  CHECK_SAME_FRAME(mapping_at(REGION_2).physical, after);
  WORD(REGION_2, 0) = 7;
  CHECK_EQ(WORD(REGION, 0), 100);
  CHECK(mapping_at(REGION_2).physical != mapping_at(REGION).physical);
}

PM_TEST(released, 0, 1, "R17, R31: a released frame is moved too, and can be recovered with its data") {
  pm_container_t container = map_numbered(REGION, 4, 100), placed = make_container(0);
  uint64_t address = address_of(container, 2);
  const pm_frame_t id = 2;
  CHECK_OK(pm_release_pages(container, &id, 1));
  CHECK_OK(place(placed, 0, 1, (struct pm_placement){.fixed = address}));
  CHECK_OK(pm_recover_pages(container, &id, 1, NULL));
  CHECK_EQ(WORD(REGION, 2), 102);
  CHECK(address_of(container, 2) != address);
}

// Uses all pages of the pool except one in ten, in random order.
static uint32_t fill_pool(pm_container_t *container) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  uint32_t count = (uint32_t)(info.guaranteed - info.allocated) - 64;
  *container = map_fresh(REGION, count);
  for (uint32_t i = 0, page = 0; i < count; i++, page = (page + 7919) % count) WORD(REGION, page) = page + 1;
  uint32_t one = 1;
  for (uint32_t page = 3; page < count; page += 10) CHECK_OK(pm_container_deallocate(*container, page, &one, 0));
  return count;
}

static void check_pool(uint32_t count) {
  for (uint32_t page = 0; page < count; page++) {
    if (page % 10 != 3) CHECK_EQ(WORD(REGION, page), page + 1);
  }
}

PM_TEST_CONTRACT(full, 0, 1, 7600, 32, "R19, R25: a long run in a pool full of scattered contents") {
  pm_container_t container, placed = make_container(0);
  uint32_t count = fill_pool(&container);
  for (int round = 0; round < 3; round++) {
    CHECK_OK(place(placed, 0, 600, (struct pm_placement){.contiguous = 1, .alignment = 1 << 20}));
    locate(placed, 0, 600);
    check_run(600);
    CHECK_EQ(physical[0] % (1 << 20), 0);
    map_lazily(placed, 0, 600, REGION_2);
    CHECK(is_zero(REGION_2, 600 * PM_PAGE_SIZE));
    fill_pages(REGION_2, 600, 5);
    check_pool(count);
    check_pages(REGION_2, 600, 5);
    uint32_t all = 600;
    CHECK_OK(pm_container_deallocate(placed, 0, &all, 0));
  }
  // Single frames: the zone has no free frame left, and is cleared.
  CHECK_OK(place(placed, 0, 500, (struct pm_placement){.below = 6 << 20}));
  locate(placed, 0, 500);
  for (int i = 0; i < 500; i++) CHECK(physical[i] < 6 << 20);
  check_pool(count);
}

// Counts up eight words of each page in a loop, until the word after them says to stop; the next word counts rounds.
static void count_up(uint32_t pages) {
  uint64_t round = 0;
  for (; !WORD(REGION, pages); round++) {
    for (uint32_t page = 0; page < pages; page++) {
      for (int word = 0; word < 512; word += 73) {
        volatile uint64_t *at = (volatile uint64_t *)PAGE(REGION, page) + word;
        CHECK_EQ(*at, round);
        *at = round + 1;
      }
    }
    ((volatile uint64_t *)PAGE(REGION, pages))[1] = round;
  }
}

PM_TEST(moved_under_writers, 0, 3, "R17, R25: tasks that read and write while their frames are moved lose no data") {
  enum { PAGES = 64, MOVES = 3000 };
  if (join(3) != 0) {
    pm_container_t container = map_fresh(REGION, PAGES + 1), weak;
    CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
    ask(1, weak);
    count_up(PAGES);
    ask(2, PM_CAP_NONE);
    return;
  }
  pm_container_t weak[2], placed = make_container(0);
  struct pm_message questions[2];
  for (int i = 0; i < 2; i++) {
    questions[i] = next_question();
    weak[i] = questions[i].caps[0];
    map_lazily(weak[i], PAGES, 1, PAGE(REGION_2, i));
  }
  for (int i = 0; i < 2; i++) answer(&questions[i], 0, PM_CAP_NONE);
  uint64_t random = 1, moved = 0;
  volatile uint64_t *rounds[2] = {(uint64_t *)REGION_2 + 1, (uint64_t *)PAGE(REGION_2, 1) + 1};
  // Until the writers completed rounds meanwhile.
  for (int i = 0; i < MOVES || *rounds[0] < 10 || *rounds[1] < 10; i++) {
    // At a page that a writer uses, with some frames on both sides.
    uint64_t address = address_of(weak[i % 2], (pm_frame_t)(next_random(&random) % PAGES));
    uint64_t start = address - next_random(&random) % 8 * PM_PAGE_SIZE;
    if (place(placed, 0, 8, (struct pm_placement){.fixed = start})) continue;
    uint32_t all = 8;
    CHECK_OK(pm_container_deallocate(placed, 0, &all, 0));
    moved++;
  }
  CHECK(moved > MOVES / 2);
  for (int i = 0; i < 2; i++) WORD(REGION_2, i) = 1;
  for (int i = 0; i < 2; i++) {
    questions[i] = next_question();
    answer(&questions[i], 0, PM_CAP_NONE);
  }
}

static bool is_left(uint32_t page) { return page % 7 == 1 && page % 10 != 3; }

PM_TEST_CONTRACT(defragmented, 0, 1, 7600, 32, "R25: scattered contents are moved together and keep their data") {
  pm_container_t container;
  pm_cap_t control;
  uint32_t count = fill_pool(&container), left = 0, moved, again;
  CHECK_OK(pm_get_control(&control));
  CHECK_ERROR(pm_defragment(container, &moved), PM_EPERM);
  CHECK_ERROR(pm_defragment(control, (void *)8), PM_EFAULT);
  // Frees most pages: the rest are scattered over the whole pool.
  uint32_t one = 1;
  for (uint32_t page = 0; page < count; page++) {
    if (is_left(page)) left++;
    else if (page % 10 != 3) CHECK_OK(pm_container_deallocate(container, page, &one, 0));
  }
  CHECK_OK(pm_defragment(control, &moved));
  CHECK_OK(pm_defragment(control, &again));
  if (!(pm_start_flags & PM_START_MOVES)) {
    // The server's own thread may have moved some already, so check where they are now.
    uint64_t blocks = 0;
    for (uint32_t page = 0; page < count; page++) {
      if (is_left(page)) blocks |= 1ull << address_of(container, page) / (2 << 20);
    }
    printf("%u moved, %u left in %d blocks of 2 MiB\n", moved, left, __builtin_popcountll(blocks));
    CHECK((uint32_t)__builtin_popcountll(blocks) <= left / 512 + 2);
    CHECK(again < 30);
  }
  for (uint32_t page = 0; page < count; page++) {
    if (is_left(page)) CHECK_EQ(WORD(REGION, page), page + 1);
  }
  // The zone below 16 MiB is reserved for requests that need it.
  locate(container, 1, 1);
  CHECK(physical[0] >= 16 << 20);
}
