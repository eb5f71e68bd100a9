// Tasks that operate on each other's containers concurrently, without coordination: in every case each call
// returns, no task sees another's data, and the server is consistent at the end (Safety; R20 to R24, R42).
#include "test.h"

enum { MANY = 12000 };

/// MANY ids that name one content: a large container that is cheap to make.
static pm_container_t make_large(uint64_t number) {
  pm_container_t container = map_numbered(REGION, 1, number);
  for (uint32_t count = 1; count < MANY; count *= 2)
    CHECK_OK(pm_container_copy(container, 0, container, count, count * 2 > MANY ? MANY - count : count, NULL));
  return container;
}

/// In a client: shares a container of the case's kind with the server, which works on it until `end`.
static void offer(pm_container_t container, void (*end)(pm_container_t, uint64_t), uint64_t rounds) {
  uint64_t state = 99;
  for (uint64_t round = 0; round < rounds; round++) {
    pm_container_t weak;
    CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
    struct pm_message message = {.words = {1}, .caps = {weak}, .moves = 1};
    CHECK_OK(pm_call(partner, &message, LONG_US));
    pm_sleep(next_random(&state) % 3000);
    end(container, round);
    if (message.words[0] == 2) container = make_large(round);
  }
  ask(0, PM_CAP_NONE);
}

/// In the server: takes containers from its client and calls `work` on each until it fails.
static void take(pm_error_t (*work)(pm_container_t), uint64_t is_remade) {
  struct pm_message message = next_question();
  while (message.words[0]) {
    pm_container_t weak = message.caps[0];
    answer(&message, is_remade ? 2 : 1, PM_CAP_NONE);
    pm_error_t error = PM_OK;
    while (!error || error == PM_EBUSY || error == PM_ENOENT) error = work(weak);
    CHECK_ERROR(error, PM_ECANCELED);
    CHECK_OK(pm_cap_drop(weak));
    message = next_question();
  }
  answer(&message, 0, PM_CAP_NONE);
}

static void destroy(pm_container_t container, uint64_t round) {
  (void)round;
  pm_error_t error;
  while ((error = pm_container_destroy(container)) == PM_EBUSY) {}
  CHECK_OK(error);
}

static void revoke(pm_container_t container, uint64_t round) {
  (void)round;
  pm_error_t error;
  while ((error = pm_container_revoke(container)) == PM_EBUSY) {}
  CHECK_OK(error);
}

static pm_container_t target;

static pm_error_t copy_from(pm_container_t weak) {
  if (!target) target = make_container(0);
  return pm_container_copy(weak, 0, target, 0, MANY, NULL);
}

PM_TEST(source_destroyed, 0, 2, "Safety: containers are destroyed while another task copies from them") {
  if (!join(2)) take(copy_from, 1);
  else offer(make_large(1), destroy, 25);
}

static pm_error_t copy_to(pm_container_t weak) {
  if (!target) target = make_large(2);
  return pm_container_copy(target, 0, weak, 0, MANY, NULL);
}

PM_TEST(destination_destroyed, 0, 2, "Safety: containers are destroyed while another task copies onto their frames") {
  if (!join(2)) take(copy_to, 1);
  else offer(make_large(1), destroy, 25);
}

static pm_error_t copy_within(pm_container_t weak) { return pm_container_copy(weak, 0, weak, 1, MANY - 1, NULL); }

static void free_some(pm_container_t container, uint64_t round) {
  uint32_t count = MANY / 2;
  CHECK_OK(pm_container_deallocate(container, (pm_frame_t)(round * 1000 % MANY), &count, PM_DEALLOC_SQUASH));
  count = MANY;
  CHECK_OK(pm_container_allocate(container, 0, &count, PM_ALLOC_SQUASH));
  revoke(container, round);
}

PM_TEST(frames_freed, 0, 2, "Safety: half of the frames are freed and allocated again while another task copies them") {
  if (!join(2)) take(copy_within, 0);
  else offer(make_large(1), free_some, 25);
}

static pm_error_t lock_and_unlock(pm_container_t weak) {
  pm_error_t error = pm_container_lock(weak, 10000);
  if (error) return error;
  error = pm_container_unlock(weak);
  return error == PM_EPERM ? PM_OK : error;
}

PM_TEST(locked_and_revoked, 0, 2,
        "Safety: a container is locked and unlocked in a tight loop while its owner revokes") {
  if (!join(2)) take(lock_and_unlock, 0);
  else offer(make_large(1), revoke, 25);
}

static pm_error_t pin_and_unpin(pm_container_t weak) {
  uint64_t physical[100];
  pm_error_t error = pm_container_pin(weak, 500, 100, 10000, physical);
  if (error) return error;
  error = pm_container_unpin(weak, 500, 100);
  return error == PM_ENOENT ? PM_OK : error;
}

PM_TEST(pinned_and_destroyed, 0, 2, "Safety: frames are pinned and unpinned in a tight loop while the owner destroys") {
  if (!join(2)) take(pin_and_unpin, 1);
  else offer(make_large(1), destroy, 25);
}

static pm_error_t map_and_write(pm_container_t weak) {
  pm_error_t error = pm_container_map(weak, 0, 64, REGION_2, LAZY_READ_WRITE);
  for (int i = 0; !error && i < 64 && !write_faults(PAGE(REGION_2, i)); i++) {}
  return error;
}

PM_TEST(mapped_and_destroyed, 0, 2, "Safety: frames are mapped and written while their owner destroys the container") {
  if (!join(2)) take(map_and_write, 1);
  else offer(make_large(1), destroy, 25);
}

// ---- reuse of a destroyed container's slot ----------------------------------------------

#define SECRET 0x5ec1e7

/// 60,000 copies of one frame onto 1,000 ids: long enough for its container to be destroyed, and its slot reused.
static pm_error_t copy_long(pm_container_t weak) {
  static pm_frame_t from[60000], to[60000];
  if (!target) {
    target = map_fresh(REGION, 1000);
    for (uint32_t i = 0; i < 60000; i++) to[i] = i % 1000;
  }
  pm_error_t error = pm_container_copy_scatter_gather(weak, from, target, to, 60000, NULL);
  for (uint32_t i = 0; i < 1000; i += 111) CHECK(WORD(REGION, i) != SECRET);
  return error;
}

PM_TEST(source_reused, 0, 2,
        "Safety: a task's new container is not mistaken for the one that another task copies from") {
  if (!join(2)) return take(copy_long, 0);
  uint64_t random = 7;
  for (int round = 0; round < 60; round++) {
    pm_container_t shared = map_numbered(REGION, 1, 1), weak;
    CHECK_OK(pm_container_share(shared, PM_CAP_NONE, &weak));
    struct pm_message message = {.words = {1}, .caps = {weak}, .moves = 1};
    CHECK_OK(pm_call(partner, &message, LONG_US));
    pm_sleep(next_random(&random) % 10000);
    CHECK_OK(pm_container_destroy(shared));
    pm_container_t secret = map_numbered(REGION, 1, SECRET);
    pm_sleep(20000);
    CHECK_EQ(WORD(REGION, 0), SECRET);
    CHECK_OK(pm_container_destroy(secret));
  }
  ask(0, PM_CAP_NONE);
}

static pm_error_t lock_briefly(pm_container_t weak) { return pm_container_lock(weak, 1); }

PM_TEST(briefly_locked, 0, 2, "Safety: large containers are locked briefly, and destroyed meanwhile") {
  if (!join(2)) return take(lock_briefly, 0);
  uint64_t random = 7;
  for (int round = 0; round < 60; round++) {
    pm_container_t large = make_container(50000), weak;
    CHECK_OK(pm_container_share(large, PM_CAP_NONE, &weak));
    struct pm_message message = {.words = {1}, .caps = {weak}, .moves = 1};
    CHECK_OK(pm_call(partner, &message, LONG_US));
    pm_sleep(next_random(&random) % 3000);
    destroy(large, 0);
  }
  ask(0, PM_CAP_NONE);
}

/// Pins the last frame; while it is pinned, it must be present, and mapped nowhere else.
static pm_error_t pin_last(pm_container_t weak) {
  uint64_t physical;
  pm_error_t error = pm_container_pin(weak, MANY - 1, 1, PM_LOCK_MAXIMUM_US, &physical);
  if (error) return error;
  uint64_t start = pm_clock_us();
  CHECK_OK(pm_container_map(weak, MANY - 1, 1, REGION_2, LAZY_READ_WRITE));
  WORD(REGION_2, 0) = start;
  while (pm_clock_us() - start < 3000) {
    CHECK_EQ(mapping_at(REGION_2).physical, physical);
    CHECK_EQ(WORD(REGION_2, 0), start);
  }
  return pm_container_unpin(weak, MANY - 1, 1);
}

/// A long call that reaches the last frame at its end.
static void change_last(pm_container_t container, uint64_t round) {
  uint32_t count = MANY;
  for (int i = 0; i < 20; i++) {
    switch ((round + (uint64_t)i) % 3) {
      case 0: (void)pm_container_allocate(container, 0, &count, PM_ALLOC_SQUASH); break;
      case 1: (void)pm_container_copy(target, 0, container, 0, MANY, NULL); break;
      default: (void)pm_container_copy(container, 0, target, 0, MANY, NULL); break;
    }
    count = MANY;
  }
  revoke(container, round);
}

PM_TEST(pinned_meanwhile, 0, 2, "R22: a frame that is pinned during its owner's long call stays in place") {
  if (!join(2)) return take(pin_last, 0);
  target = make_large(5);
  offer(make_large(1), change_last, 20);
}

// ---- everything at once ----------------------------------------------------------------------

enum { OWN = 4, OTHERS = 24, IDS = 30 };

static pm_container_t own[OWN], others[OTHERS], scratch;
static uint64_t state;

static uint32_t below(uint32_t limit) { return (uint32_t)(next_random(&state) >> 20) % limit; }
static pm_container_t any(void) { return below(3) ? others[below(OTHERS)] : own[below(OWN)]; }

/// Maps a scratch page in place of a page that was unmapped.
static int put_scratch(const struct pm_fault *fault) {
  return pm_container_map(scratch, 0, 1, (void *)(fault->address & -4096ull), PM_MAP_FORCE_WRITE);
}

static void remake(int which) {
  uint32_t count = IDS;
  if (own[which] && pm_container_destroy(own[which])) return;
  CHECK_OK(pm_container_create(&own[which]));
  CHECK_OK(pm_container_allocate(own[which], 0, &count, 0));
}

static void keep(pm_container_t weak) {
  if (!weak) return;
  uint32_t which = below(OTHERS);
  if (others[which]) (void)pm_cap_drop(others[which]);
  others[which] = weak;
}

/// Sends a random capability and takes one, as a caller or as a receiver.
static void exchange(unsigned number, pm_cap_t *endpoints, unsigned tasks) {
  struct pm_message message = {.moves = below(4)};
  bool calls = below(2);
  unsigned other = below(tasks);
  if (!calls && pm_receive(endpoints[number], &message, below(2000))) return;
  for (int i = 0; i < 4; i++) {
    keep(message.caps[i]);
    message.caps[i] = PM_CAP_NONE;
  }
  if (pm_container_share(own[below(OWN)], PM_CAP_NONE, &message.caps[0])) message.caps[0] = PM_CAP_NONE;
  if (!calls) {
    (void)pm_reply(&message);
  } else if (!pm_call(endpoints[other], &message, below(3000))) {
    for (int i = 0; i < 4; i++) keep(message.caps[i]);
  }
}

static void touch_some(void) {
  char *page = PAGE(REGION, below(16) * IDS + below(IDS));
  if (below(2)) *(volatile char *)page = 1;
  else (void)*(volatile char *)page;
}

/// One call that may fail in any way.
static void act(void) {
  static uint64_t physical[IDS];
  static pm_frame_t from[8], to[8];
  uint32_t start = below(IDS), count = below(8) + 1;
  for (int i = 0; i < 8; i++) from[i] = below(IDS), to[i] = below(IDS);
  switch (below(14)) {
    case 0: (void)pm_container_copy(any(), start, any(), below(IDS), count, NULL); break;
    case 1: (void)pm_container_copy_gather(any(), from, any(), start, count, NULL); break;
    case 2: (void)pm_container_copy_scatter_gather(any(), from, any(), to, count, NULL); break;
    case 3: (void)pm_container_pin(any(), start, count, below(5000), physical); break;
    case 4: (void)pm_container_unpin(any(), start, count); break;
    case 5: (void)pm_container_lock(any(), below(3000)); break;
    case 6: (void)pm_container_unlock(any()); break;
    case 7: (void)pm_container_deallocate(own[below(OWN)], start, &count, below(4)); break;
    case 8: (void)pm_container_allocate(own[below(OWN)], start, &count, below(4)); break;
    case 9: (void)pm_release_data(any(), from, count); break;
    case 10: (void)pm_container_revoke(own[below(OWN)]); break;
    case 11:
      if (!below(4)) remake((int)below(OWN));
      break;
    default: {
      const uint32_t flags[] = {LAZY_READ_WRITE, PM_MAP_FORCE_WRITE, PM_MAP_READ, PM_MAP_READ | PM_MAP_WRITE};
      (void)pm_container_map(any(), start, count, PAGE(REGION, below(16) * IDS), flags[below(4)]);
    }
  }
}

/// `tasks` tasks, each with an endpoint that all others know.
static void run_all(unsigned tasks, int steps) {
  unsigned number = join(tasks);
  pm_cap_t endpoints[16];
  char name[] = "task a";
  for (unsigned i = 0; i < tasks; i++) {
    name[5] = (char)('a' + (number + i) % tasks);
    if (i) CHECK_OK(pm_name_lookup(name, &endpoints[(number + i) % tasks], LONG_US));
    else CHECK_OK(pm_endpoint_create(&endpoints[number]));
    if (!i) CHECK_OK(pm_name_register(name, endpoints[number]));
  }
  state = pm_clock_us() * 2 + 1 + number * 1000003;
  scratch = make_container(1);
  for (int i = 0; i < OWN; i++) remake(i);
  CHECK_OK(pm_on_fault(put_scratch));
  for (int step = 0; step < steps; step++) {
    uint32_t choice = below(8);
    if (choice == 0) exchange(number, endpoints, tasks);
    else if (choice < 4) touch_some();
    else act();
  }
}

PM_TEST(everything, 0, 3, "Safety: three tasks make random calls on each other's containers") {
  run_all(3, 3000);
}

PM_TEST(everything_by_many, 0, 12, "Safety: twelve tasks make random calls on each other's containers") {
  run_all(12, 600);
}
