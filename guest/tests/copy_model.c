// Random copies, writes and frees in a few containers, compared step by step with a naive model (R18, R24, R38).
#include "test.h"

enum { CONTAINERS = 4, IDS = 40, STEPS = 12000 };

// Each container is mapped at its own region, id n at page n. A page holds one number, 0 or one never used before;
// frames that share a content belong to one group.
static struct {
  pm_container_t container, weak;
  bool in_use[IDS];
  uint64_t value[IDS], group[IDS];
} model[CONTAINERS];
static uint64_t state, last_number;

static uint32_t below(uint32_t limit) { return (uint32_t)(next_random(&state) >> 20) % limit; }

static char *page_of(int which, uint32_t id) { return PAGE(REGION, (uint32_t)which * 1000 + id); }

static void set(int which, uint32_t id, uint64_t value, uint64_t group) {
  model[which].in_use[id] = true;
  model[which].value[id] = value;
  model[which].group[id] = group;
}

/// Maps ids that are in use, so that every write is served.
static void show(int which, pm_frame_t start, uint32_t count) {
  // Adjacent pages may be one mapping or several, by the owner's handle or the weak one.
  pm_container_t handle = below(2) ? model[which].container : model[which].weak;
  uint32_t flags = below(2) ? LAZY_READ_WRITE : PM_MAP_FORCE_WRITE | (below(2) ? PM_MAP_LAZY : 0);
  CHECK_OK(pm_container_map(handle, start, count, page_of(which, start), flags));
  // An eager mapping with PM_MAP_FORCE_WRITE ends all sharing.
  if (flags == PM_MAP_FORCE_WRITE)
    for (uint32_t id = start; id < start + count; id++) model[which].group[id] = ++last_number;
}

static void make(int which) {
  CHECK_OK(pm_container_create(&model[which].container));
  CHECK_OK(pm_container_share(model[which].container, PM_CAP_NONE, &model[which].weak));
  memset(model[which].in_use, 0, sizeof model[which].in_use);
}

static void step_remake(void) {
  int which = (int)below(CONTAINERS);
  CHECK_OK(pm_container_destroy(model[which].container));
  CHECK_OK(pm_cap_drop(model[which].weak));
  make(which);
}

static void step_allocate(void) {
  int which = (int)below(CONTAINERS);
  uint32_t start = below(IDS), count = below(IDS - start) % 6 + 1;
  CHECK_OK(pm_container_allocate(model[which].container, start, &count, PM_ALLOC_SQUASH));
  for (uint32_t id = start; id < start + count; id++) set(which, id, 0, ++last_number);
  show(which, start, count);
}

static void step_deallocate(void) {
  int which = (int)below(CONTAINERS);
  uint32_t start = below(IDS), count = below(IDS - start) % 4 + 1, done = count, used = 0;
  for (uint32_t id = start; id < start + count; id++) used += model[which].in_use[id];
  CHECK_OK(pm_container_deallocate(model[which].container, start, &done, PM_DEALLOC_SQUASH));
  CHECK_EQ(done, used);
  for (uint32_t id = start; id < start + count; id++) model[which].in_use[id] = false;
}

static void step_release(void) {
  int which = (int)below(CONTAINERS), sharers = 0;
  pm_frame_t id = below(IDS);
  bool in_use = model[which].in_use[id];
  CHECK_ERROR(pm_release_data(model[which].container, &id, 1), in_use ? PM_OK : PM_ENOENT);
  for (int other = 0; other < CONTAINERS; other++)
    for (int i = 0; i < IDS; i++)
      sharers += model[other].in_use[i] && model[other].group[i] == model[which].group[id];
  if (in_use && sharers > 1) set(which, id, 0, ++last_number);
}

/// Any of the four calls, between any two containers, by any handles.
static void step_copy(void) {
  int from = (int)below(CONTAINERS), to = (int)below(CONTAINERS), variant = (int)below(4);
  bool owns = below(2);
  uint32_t count = below(12) + 1, from_start = below(IDS - count), to_start = below(IDS - count);
  pm_frame_t sources[12], destinations[12], frame = 12345, expected_frame = 12345;
  for (uint32_t i = 0; i < count; i++) {
    sources[i] = variant & 1 ? below(IDS) : from_start + i;
    destinations[i] = variant & 2 ? below(IDS) : to_start + i;
  }
  pm_container_t source = below(2) ? model[from].container : model[from].weak;
  pm_container_t destination = owns ? model[to].container : model[to].weak;
  pm_error_t error, expected = PM_OK;
  for (uint32_t i = count; i-- > 0;)
    if (!owns && !model[to].in_use[destinations[i]]) expected = PM_ENOENT, expected_frame = destinations[i];
  for (uint32_t i = count; i-- > 0;)
    if (!model[from].in_use[sources[i]]) expected = PM_ENOENT, expected_frame = sources[i];
  switch (variant) {
    case 0: error = pm_container_copy(source, from_start, destination, to_start, count, &frame); break;
    case 1: error = pm_container_copy_gather(source, sources, destination, to_start, count, &frame); break;
    case 2: error = pm_container_copy_scatter(source, from_start, destination, destinations, count, &frame); break;
    default: error = pm_container_copy_scatter_gather(source, sources, destination, destinations, count, &frame); break;
  }
  CHECK_ERROR(error, expected);
  CHECK_EQ(frame, expected_frame);
  if (error) return;
  uint64_t values[12], groups[12];
  bool are_new[12];
  for (uint32_t i = 0; i < count; i++) {
    values[i] = model[from].value[sources[i]];
    groups[i] = model[from].group[sources[i]];
    are_new[i] = !model[to].in_use[destinations[i]];
  }
  for (uint32_t i = 0; i < count; i++) set(to, destinations[i], values[i], groups[i]);
  for (uint32_t i = 0; i < count; i++)
    if (are_new[i]) show(to, destinations[i], 1);
}

static void step_access(void) {
  int which = (int)below(CONTAINERS);
  uint32_t id = below(IDS), word = below(512);
  if (!model[which].in_use[id]) return;
  volatile uint64_t *page = (volatile uint64_t *)page_of(which, id);
  CHECK_EQ(page[word], model[which].value[id]);
  if (below(2)) return;
  uint64_t number = ++last_number;
  for (int i = 0; i < 512; i++) page[i] = number;
  set(which, id, number, number);
}

/// Checks that non-empty frames of one group are one physical frame, and frames of two groups are not.
static void check_physical(void) {
  static uint64_t physical[CONTAINERS * IDS], group[CONTAINERS * IDS];
  int count = 0;
  for (int which = 0; which < CONTAINERS; which++)
    for (uint32_t id = 0; id < IDS; id++) {
      if (!model[which].in_use[id] || !model[which].value[id]) continue;
      CHECK_EQ(((volatile uint64_t *)page_of(which, id))[511], model[which].value[id]);
      physical[count] = mapping_at(page_of(which, id)).physical;
      group[count] = model[which].group[id];
      if (pm_start_flags & PM_START_MOVES) continue;
      for (int i = 0; i < count; i++) CHECK_EQ(physical[i] == physical[count], group[i] == group[count]);
      count++;
    }
}

static void step_remap(void) {
  int which = (int)below(CONTAINERS);
  uint32_t start = below(IDS), count = 0;
  while (start + count < IDS && count < 8 && model[which].in_use[start + count]) count++;
  if (count) show(which, start, count);
}

static void run_model(uint64_t seed) {
  state = seed * 0x9e3779b97f4a7c15 | 1;
  for (int which = 0; which < CONTAINERS; which++) make(which);
  uint64_t before = allocated_frames(), in_use = 0;
  for (int step = 0; step < STEPS; step++) {
    if (step % 1000 == 999) check_physical();
    uint32_t choice = below(64);
    if (choice < 1) step_allocate();
    else if (choice < 2) step_deallocate();
    else if (choice < 5) step_release();
    else if (choice < 8) step_remap();
    else if (choice < 24) step_copy();
    else step_access();
    if (!below(2000)) step_remake();
  }
  check_physical();
  for (int which = 0; which < CONTAINERS; which++)
    for (uint32_t id = 0; id < IDS; id++) in_use += model[which].in_use[id];
  CHECK_EQ(allocated_frames(), before + in_use);
}

PM_TEST(model, 0, 1, "R24, R38: 12,000 random steps change four containers as they change a naive model") {
  run_model(1);
}

PM_TEST(model_again, 0, 1, "R24, R38: the same with a different seed in each run") {
  uint64_t seed = pm_clock_us();
  printf("seed %lu\n", seed);
  run_model(seed);
}

PM_TEST(models_at_once, 0, 3, "R24, R38: three tasks at once, which share the image's frames") {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  run_model(info.id);
}
