// The same operations repeated many times: for leaks, and for bugs that depend on order.
#include "test.h"

PM_TEST(allocate_and_free, 0, 1, "R18: 1,000 times: allocate, map, touch, deallocate; nothing leaks") {
  pm_container_t container = make_container(0);
  uint64_t before = allocated_frames();
  for (uint32_t round = 0; round < 1000; round++) {
    uint32_t count = round % 7 + 1;
    CHECK_OK(pm_container_allocate(container, round * 3, &count, 0));
    CHECK_OK(pm_container_map(container, round * 3, count, PAGE(REGION, round % 100), LAZY_READ_WRITE));
    for (uint32_t i = 0; i < count; i++) {
      CHECK_EQ(*PAGE(REGION, round % 100 + i), 0);
      *PAGE(REGION, round % 100 + i) = 1;
    }
    CHECK_OK(pm_container_deallocate(container, round * 3, &count, 0));
  }
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(create_and_destroy, 0, 1, "R15: 1,000 times: create, fill, destroy; nothing leaks") {
  uint64_t before = allocated_frames();
  struct pm_task_info start, end;
  CHECK_OK(pm_task_info(&start));
  for (uint32_t round = 0; round < 1000; round++) {
    pm_container_t container = map_fresh(REGION, 5);
    *PAGE(REGION, round % 5) = 1;
    CHECK_OK(pm_container_destroy(container));
  }
  CHECK_OK(pm_task_info(&end));
  CHECK_EQ(allocated_frames(), before);
  CHECK_EQ(end.available, start.available);
}

PM_TEST(map_and_unmap, 0, 1, "R25: 1,000 times: map, touch, unmap the same frames") {
  pm_container_t container = make_container(3);
  for (uint32_t round = 0; round < 1000; round++) {
    char *place = PAGE(REGION, round % 17);
    CHECK_OK(pm_container_map(container, 0, 3, place, round % 2 ? LAZY_READ_WRITE : PM_MAP_READ | PM_MAP_WRITE));
    CHECK_EQ(*(uint32_t *)PAGE(place, 1), round ? round - 1 : 0);
    *(uint32_t *)PAGE(place, 1) = round;
    CHECK_OK(pm_unmap(place, 3));
  }
}

PM_TEST(far_apart, 0, 1, "R25: a frame mapped and unmapped at 3,000 addresses, each with its own page tables") {
  pm_container_t container = make_container(1);
  for (uint64_t i = 0; i < 3000; i++) {
    // Each address needs its own page tables at two levels.
    char *place = REGION + i * 0x40000000;
    CHECK_OK(pm_container_map(container, 0, 1, place, LAZY_READ_WRITE));
    CHECK_EQ(*(uint64_t *)place, i);
    *(uint64_t *)place = i + 1;
    CHECK_OK(pm_unmap(place, 1));
  }
}

// ---- a model ---------------------------------------------------------------------------

// A naive model of one container and one region: the number in each id, and the id that each page maps.
enum { IDS = 48, PAGES = 64, NONE = -1 };
static struct {
  bool in_use[IDS];
  uint64_t value[IDS];
  int shows[PAGES];
  bool writable[PAGES];
} model;
static pm_container_t container;
static uint64_t state = 20031017;

static uint32_t below(uint32_t limit) { return (uint32_t)(next_random(&state) >> 20) % limit; }

/// Unmaps the pages that map a freed frame: they would show the next frame of that id.
static void model_hide(int id) {
  for (int page = 0; page < PAGES; page++) {
    if (model.shows[page] != id) continue;
    CHECK_OK(pm_unmap(PAGE(REGION, page), 1));
    model.shows[page] = NONE;
  }
}

static void model_allocate(void) {
  uint32_t start = below(IDS), count = below(IDS - start) % 8 + 1, flags = below(4), done = count, fresh = 0;
  if (start + count > IDS) return;
  for (uint32_t i = 0; i < count && !model.in_use[start + i]; i++) fresh++;
  bool squash = flags & PM_ALLOC_SQUASH, partial = flags & PM_ALLOC_PARTIAL;
  uint32_t expected = squash || fresh == count ? count : partial ? fresh : 0;
  CHECK_ERROR(pm_container_allocate(container, start, &done, flags), expected == count ? PM_OK : PM_EEXIST);
  CHECK_EQ(done, expected);
  for (uint32_t i = start; i < start + expected; i++) {
    model_hide((int)i);
    model.in_use[i] = true;
    model.value[i] = 0;
  }
}

static void model_deallocate(void) {
  uint32_t start = below(IDS), count = below(6) + 1, flags = below(4), run = 0, used = 0;
  if (start + count > IDS) return;
  for (uint32_t i = 0; i < count && model.in_use[start + i]; i++) run++;
  for (uint32_t i = 0; i < count; i++) used += model.in_use[start + i];
  bool squash = flags & PM_DEALLOC_SQUASH, partial = flags & PM_DEALLOC_PARTIAL, ok = squash || run == count;
  uint32_t done = count, freed = ok ? count : partial ? run : 0;
  CHECK_ERROR(pm_container_deallocate(container, start, &done, flags), ok ? PM_OK : PM_ENOENT);
  CHECK_EQ(done, squash ? used : freed);
  for (uint32_t i = start; i < start + freed; i++) {
    model.in_use[i] = false;
    model_hide((int)i);
  }
}

static void model_map(void) {
  uint32_t start = below(IDS), page = below(PAGES), count = below(8) + 1, used = 0;
  if (start + count > IDS || page + count > PAGES) return;
  while (used < count && model.in_use[start + used]) used++;
  uint32_t flags = PM_MAP_READ | (below(3) ? PM_MAP_WRITE : 0) | (below(2) ? PM_MAP_LAZY : 0);
  CHECK_ERROR(pm_container_map(container, start, count, PAGE(REGION, page), flags), used == count ? PM_OK : PM_ENOENT);
  for (uint32_t i = 0; used == count && i < count; i++) {
    model.shows[page + i] = (int)(start + i);
    model.writable[page + i] = flags & PM_MAP_WRITE;
  }
}

static void model_unmap(void) {
  uint32_t page = below(PAGES), count = below(8) + 1;
  if (page + count > PAGES) return;
  CHECK_OK(pm_unmap(PAGE(REGION, page), count));
  for (uint32_t i = 0; i < count; i++) model.shows[page + i] = NONE;
}

static void model_access(void) {
  uint32_t page = below(PAGES);
  struct pm_mapping mapping;
  int id = model.shows[page];
  if (id == NONE) {
    CHECK_ERROR(pm_mapping(PAGE(REGION, page), &mapping), PM_ENOENT);
    return;
  }
  CHECK_EQ(mapping_at(PAGE(REGION, page)).frame, id);
  uint64_t *word = (uint64_t *)PAGE(REGION, page);
  CHECK_EQ(*word, model.value[id]);
  if (model.writable[page]) *word = model.value[id] = next_random(&state);
}

PM_TEST(model, 0, 1, "R15, R18, R25: 20,000 random steps change a container as they change a naive model") {
  for (int page = 0; page < PAGES; page++) model.shows[page] = NONE;
  container = make_container(0);
  uint64_t before = allocated_frames();
  for (int step = 0; step < 20000; step++) {
    switch (below(8)) {
      case 0: model_allocate(); break;
      case 1: model_deallocate(); break;
      case 2: model_map(); break;
      case 3: model_unmap(); break;
      default: model_access(); break;
    }
  }
  uint64_t in_use = 0;
  for (int id = 0; id < IDS; id++) in_use += model.in_use[id];
  CHECK_EQ(allocated_frames(), before + in_use);
}
