// Frames taken back from borrowers for a task that claims its guarantee (R2, R3, R5, R28 to R32): which tasks are asked
// for them, and what all others see. The asker of a case is the server of `join`. upcall.c tests how a handler is
// called.
#include "test.h"

// ---- roles ---------------------------------------------------------------------------------------

static struct pm_task_info own_info(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  return info;
}

/// Frames of this task's guarantee that it has not allocated.
static uint32_t unclaimed(void) { return (uint32_t)(own_info().guaranteed - own_info().allocated); }

static pm_container_t fresh(uint32_t count, uint32_t flags) {
  pm_container_t container;
  CHECK_OK(pm_container_create(&container));
  CHECK_OK(pm_container_allocate(container, 0, &count, flags));
  return container;
}

static pm_container_t borrowed;
static volatile uint32_t borrowed_count;

/// Allocates the whole guarantee: later frames are extra.
static void fill(void) { (void)fresh(unclaimed(), 0); }

static void borrow(uint32_t count) {
  borrowed = fresh(count, PM_ALLOC_EXTRA);
  borrowed_count = count;
}

/// A handler that gives back borrowed frames.
static void return_borrowed(uint32_t count) {
  upcalls++;
  upcall_frames += count;
  CHECK(count <= borrowed_count);
  uint32_t done = count;
  CHECK_OK(pm_container_deallocate(borrowed, borrowed_count - count, &done, 0));
  borrowed_count -= count;
}

static void ignore(uint32_t count) { upcalls += count > 0; }

/// In the asker: lets the clients 1, 2, … take their turn between two questions, one after the other; `held[i]` becomes
/// the second one of client i, which waits for its answer.
static void let_borrow(unsigned clients, struct pm_message *held) {
  for (unsigned i = 1; i <= clients; i++) {
    struct pm_message question = next_question();
    held[question.words[0]] = question;
  }
  for (unsigned i = 1; i <= clients; i++) {
    answer(&held[i], 0, PM_CAP_NONE);
    held[i] = next_question();
  }
}

/// In client `self`: waits for its turn.
static void await_turn(unsigned self) { ask(self, PM_CAP_NONE); }

/// In the asker: allocates its whole guarantee, and uses it.
static uint32_t claim_all(void) {
  uint32_t count = unclaimed();
  (void)map_numbered(REGION_2, count, 5);
  check_numbered(REGION_2, count, 5);
  return count;
}

// ---- victims --------------------------------------------------------------------------------

PM_TEST_CONTRACT(from_several, 0, 4, 450, 8, "R3 R28: a claim is met from several tasks, which lose nothing else") {
  enum { CLIENTS = 3 };
  unsigned self = join(CLIENTS + 1);
  if (self) {
    (void)map_numbered(REGION, 10, self);
    fill();
    CHECK_OK(pm_on_return_pages(return_borrowed));
    await_turn(self);
    borrow((uint32_t)own_info().available / (CLIENTS + 1 - self));
    CHECK_EQ(upcalls, 0);
    ask(self, PM_CAP_NONE);
    check_numbered(REGION, 10, self);
    CHECK(upcalls <= 1);
    ask(upcall_frames, PM_CAP_NONE);
    return;
  }
  struct pm_message held[CLIENTS + 1];
  // Its page tables now, so that frames given back for those are not counted.
  (void)map_numbered(REGION_2, 1, 5);
  let_borrow(CLIENTS, held);
  uint32_t count = claim_all(), sum = 0, asked = 0;
  for (unsigned i = 1; i <= CLIENTS; i++) answer(&held[i], 0, PM_CAP_NONE);
  for (unsigned i = 1; i <= CLIENTS; i++) {
    struct pm_message question = next_question();
    sum += (uint32_t)question.words[0];
    asked += question.words[0] > 0;
    answer(&question, 0, PM_CAP_NONE);
  }
  CHECK(asked >= 2);
  // No frame was free, and the server asks for exactly the missing ones.
  CHECK_EQ(sum, count);
}

PM_TEST_CONTRACT(rogue_among, IS_DROPPED or 0, 5, 360, 8,
                 "R3 R30: one of several returns nothing: only that one is dropped") {
  enum { ROGUE = 3, PEER = 4 };
  unsigned self = join(5);
  if (self == PEER) {
    struct pm_message message = {0};
    pm_cap_t rogue;
    CHECK_OK(pm_name_lookup("rogue", &rogue, LONG_US));
    CHECK_ERROR(pm_call(rogue, &message, LONG_US), PM_ECANCELED);
    return;
  }
  if (self) {
    (void)map_numbered(REGION, 10, self);
    fill();
    CHECK_OK(pm_on_return_pages(self == ROGUE ? ignore : return_borrowed));
    if (self == ROGUE) {
      pm_cap_t endpoint;
      CHECK_OK(pm_endpoint_create(&endpoint));
      CHECK_OK(pm_name_register("rogue", endpoint));
    }
    await_turn(self);
    // The rogue, the last one, has most of them.
    uint32_t available = (uint32_t)own_info().available;
    borrow(self == ROGUE ? available : available / (4 - self) - 10);
    ask(self, PM_CAP_NONE);
    if (self == ROGUE) pm_exit(1);
    check_numbered(REGION, 10, self);
    ask(upcall_frames, PM_CAP_NONE);
    return;
  }
  struct pm_message held[4];
  let_borrow(3, held);
  claim_all();
  uint32_t sum = 0;
  for (unsigned i = 1; i < ROGUE; i++) answer(&held[i], 0, PM_CAP_NONE);
  for (unsigned i = 1; i < ROGUE; i++) {
    struct pm_message question = next_question();
    sum += (uint32_t)question.words[0];
    answer(&question, 0, PM_CAP_NONE);
  }
  CHECK(sum > 0);
  CHECK_ERROR(pm_reply(&held[ROGUE]), PM_ECANCELED);
}

PM_TEST_CONTRACT(most_extra_first, 0, 4, 450, 8,
                 "R30: the task with most extra frames is asked first, as the upcalls show") {
  unsigned self = join(4);
  if (self) {
    fill();
    CHECK_OK(pm_on_return_pages(return_borrowed));
    await_turn(self);
    const uint32_t available = (uint32_t)own_info().available, counts[] = {0, available / 3, available / 5, available};
    borrow(counts[self]);
    ask(counts[self], PM_CAP_NONE);
    CHECK_EQ(ask(upcalls, PM_CAP_NONE).words[0], upcalls);
    return;
  }
  struct pm_message held[4];
  let_borrow(3, held);
  uint32_t extra[4] = {0}, expected[4] = {0};
  for (unsigned i = 1; i < 4; i++) extra[i] = (uint32_t)held[i].words[0];
  for (uint32_t round = 0; round < 6; round++) {
    (void)fresh(50, 0);
    // Of two with equally many, the one asked already is not asked again.
    unsigned most = 1;
    for (unsigned i = 2; i < 4; i++)
      if (extra[i] > extra[most]) most = i;
    CHECK(extra[most] >= 50);
    extra[most] -= 50;
    expected[most]++;
  }
  CHECK(expected[3] >= 2 && expected[1] >= 1);
  for (unsigned i = 1; i < 4; i++) {
    answer(&held[i], 0, PM_CAP_NONE);
    struct pm_message question = next_question();
    CHECK_EQ(question.words[0], expected[i]);
    answer(&question, expected[i], PM_CAP_NONE);
  }
}

PM_TEST_CONTRACT(only_when_asked, IS_DROPPED or 0, 2, 900, 8, "R30: without a handler a task lives until it is asked") {
  if (join(2)) {
    fill();
    borrow((uint32_t)own_info().available - 100);
    ask(1, PM_CAP_NONE);
    ask(2, PM_CAP_NONE);
    pm_exit(1);
  }
  struct pm_message question = next_question();
  (void)fresh(64, 0);
  pm_sleep(150000);
  answer(&question, 0, PM_CAP_NONE);
  question = next_question();
  (void)fresh(64, 0);
  CHECK_ERROR(pm_reply(&question), PM_ECANCELED);
}

static void return_and_end(uint32_t count) {
  return_borrowed(count);
  pm_exit(0);
}

PM_TEST_CONTRACT(traced_sleeper, IS_DROPPED or 129 or 0, 2, 900, 8,
                 "R30: the trap flag over a call does not hide a borrower") {
  if (join(2)) {
    fill();
    borrow((uint32_t)own_info().available - 100);
    CHECK_OK(pm_on_return_pages(return_and_end));
    ask(1, PM_CAP_NONE);
    // A debug exception is due after the call, which never returns by itself.
    __asm__ volatile("pushf\n\torl $0x100, (%%rsp)\n\tpopf\n\tout %%al, %1"
                     ::"a"(PM_CALL_SLEEP), "i"(PM_CALL_PORT), "D"(UINT64_MAX)
                     : "memory", "cc");
    pm_exit(1);
  }
  struct pm_message question = next_question();
  answer(&question, 0, PM_CAP_NONE);
  (void)fresh(500, 0);
}

// ---- page tables -------------------------------------------------------------------------------------

enum { FAR_REGIONS = 60 };

/// Far enough apart that each has its own tables.
static char *far_region(unsigned index) { return REGION + index * (1ull << 39); }

/// Touches a page in each far region: by an access, by a call that stores its result there, by an eager mapping.
static void touch_far_regions(pm_container_t container) {
  for (unsigned i = 0; i < FAR_REGIONS; i++) {
    char *const page = far_region(i);
    uint32_t flags = PM_MAP_READ | PM_MAP_WRITE | (i % 3 == 2 ? 0 : PM_MAP_LAZY);
    CHECK_OK(pm_container_map(container, i, 1, page, flags));
    if (i % 3 == 1) CHECK_OK(pm_task_info((struct pm_task_info *)page));
    else WORD(page, 0) = own_info().id;
  }
  for (unsigned i = 0; i < FAR_REGIONS; i++) CHECK_EQ(WORD(far_region(i), 0), own_info().id);
}

PM_TEST_CONTRACT(far_regions, 0, 3, 300, 8, "R3: with all frames lent, frames for page tables are reclaimed too") {
  unsigned self = join(3);
  if (self) {
    fill();
    CHECK_OK(pm_on_return_pages(return_borrowed));
    await_turn(self);
    borrow((uint32_t)own_info().available / (3 - self));
    ask(self, PM_CAP_NONE);
    CHECK(upcalls > 0);
    return;
  }
  struct pm_message held[3];
  pm_container_t container = fresh(FAR_REGIONS, 0);
  let_borrow(2, held);
  CHECK_EQ(own_info().available, unclaimed());
  CHECK_EQ(own_info().pressure, 100);
  touch_far_regions(container);
  for (unsigned i = 1; i <= 2; i++) answer(&held[i], 0, PM_CAP_NONE);
}

PM_TEST_CONTRACT(far_regions_rogue, IS_DROPPED or 0, 2, 400, 8,
                 "R3 R30: a task that returns none for page tables is dropped") {
  if (join(2)) {
    fill();
    await_turn(1);
    borrow((uint32_t)own_info().available);
    ask(1, PM_CAP_NONE);
    pm_exit(1);
  }
  struct pm_message held[2];
  pm_container_t container = fresh(FAR_REGIONS, 0);
  let_borrow(1, held);
  touch_far_regions(container);
  CHECK_ERROR(pm_reply(&held[1]), PM_ECANCELED);
}

// ---- effects on other tasks -----------------------------------------------------------------------

static pm_cap_t checker;

/// Gives back some, so that there are free frames while the asker still waits, then lets the checker look.
static void return_in_two_parts(uint32_t count) {
  return_borrowed(10);
  struct pm_message message = {0};
  CHECK_OK(pm_call(checker, &message, LONG_US));
  return_borrowed(count - 10);
}

PM_TEST_CONTRACT(no_extra_meanwhile, 0, 3, 600, 8,
                 "R2 R5: no task borrows while one waits, and pm_task_info reports it") {
  unsigned self = join(3);
  if (self == 1) {
    fill();
    CHECK_OK(pm_name_lookup("checker", &checker, LONG_US));
    CHECK_OK(pm_on_return_pages(return_in_two_parts));
    await_turn(self);
    borrow((uint32_t)own_info().available);
    ask(self, PM_CAP_NONE);
    CHECK_EQ(upcalls, 2);
    return;
  }
  if (self == 2) {
    fill();
    CHECK_EQ(own_info().guaranteed, own_info().allocated);
    CHECK(own_info().available > 0 && own_info().pressure < 100);
    CHECK_OK(pm_endpoint_create(&checker));
    CHECK_OK(pm_name_register("checker", checker));
    pm_container_t container = make_container(0);
    await_turn(self);
    // All frames are lent.
    CHECK_EQ(own_info().available, 0);
    CHECK_EQ(own_info().pressure, 100);
    struct pm_message request;
    CHECK_OK(pm_receive(checker, &request, LONG_US));
    uint32_t count = 1;
    CHECK_EQ(own_info().available, 0);
    CHECK_EQ(own_info().pressure, 100);
    CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA), PM_ENOMEM);
    CHECK_OK(pm_reply(&request));
    ask(self, PM_CAP_NONE);
    // The asker has given its frames back.
    CHECK(own_info().available >= 64 && own_info().pressure < 100);
    count = 1;
    CHECK_OK(pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA));
    return;
  }
  struct pm_message held[3];
  for (unsigned i = 1; i <= 2; i++) {
    struct pm_message question = next_question();
    held[question.words[0]] = question;
  }
  answer(&held[1], 0, PM_CAP_NONE);
  held[1] = next_question();
  answer(&held[2], 0, PM_CAP_NONE);
  pm_container_t wanted = fresh(64, 0);
  CHECK_OK(pm_container_destroy(wanted));
  struct pm_message question = next_question();
  answer(&question, 0, PM_CAP_NONE);
  answer(&held[1], 0, PM_CAP_NONE);
}

// ---- frames that a handler gives back -------------------------------------------------------------------------

static pm_container_t weak, kept;

static void release_numbers(pm_container_t container, uint32_t first, uint32_t count) {
  static pm_frame_t frames[2048];
  for (uint32_t i = 0; i < count; i++) frames[i] = first + i;
  CHECK_OK(pm_release_pages(container, frames, count));
}

/// Invalid releases change nothing, and do not count.
static void release_wrongly_first(uint32_t count) {
  upcalls++;
  uint64_t before = allocated_frames();
  const pm_frame_t beyond[] = {0, borrowed_count}, twice[] = {0, 0, 0};
  CHECK_ERROR(pm_release_pages(weak, beyond, 1), PM_EPERM);
  CHECK_ERROR(pm_release_pages(borrowed, beyond, 2), PM_ENOENT);
  CHECK_ERROR(pm_release_pages(PM_CAP_SELF, beyond, 1), PM_EINVAL);
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(pm_release_pages(borrowed, twice, 3));
  CHECK_ERROR(pm_release_pages(borrowed, twice, 1), PM_ENOENT);
  CHECK_EQ(allocated_frames(), before - 1);
  release_numbers(borrowed, 1, count - 1);
}

static void be_asked(void (*handler)(uint32_t count)) {
  kept = make_container(200);
  CHECK_OK(pm_container_share(kept, PM_CAP_NONE, &weak));
  fill();
  CHECK_OK(pm_on_return_pages(handler));
  await_turn(1);
  borrow((uint32_t)own_info().available);
  ask(1, PM_CAP_NONE);
}

static struct pm_message demand_some(void) {
  struct pm_message held[2];
  let_borrow(1, held);
  (void)fresh(64, 0);
  return held[1];
}

PM_TEST_CONTRACT(wrong_releases, 0, 2, 900, 8, "R31: a handler's invalid releases change nothing") {
  if (join(2)) {
    be_asked(release_wrongly_first);
    CHECK_EQ(upcalls, 1);
    return;
  }
  struct pm_message question = demand_some();
  answer(&question, 0, PM_CAP_NONE);
}

static void release_kept(uint32_t count) {
  upcalls++;
  release_numbers(kept, 0, count);
}

PM_TEST_CONTRACT(any_frames, 0, 2, 900, 8, "R28: the task chooses: frames from before it had extra ones count too") {
  if (join(2)) {
    be_asked(release_kept);
    CHECK_EQ(upcalls, 1);
    // Its extra frames are all present.
    map_lazily(borrowed, 0, borrowed_count, REGION);
    fill_pages(REGION, borrowed_count, 3);
    check_pages(REGION, borrowed_count, 3);
    return;
  }
  struct pm_message question = demand_some();
  answer(&question, 0, PM_CAP_NONE);
}

/// Releases one frame, once for each frame that is asked for.
static void release_one(uint32_t count) {
  static const pm_frame_t frames[2048];
  CHECK_OK(pm_release_pages(borrowed, frames, count));
}

PM_TEST_CONTRACT(one_many_times, IS_DROPPED or 0, 2, 900, 8, "R30: one frame released many times is one frame") {
  if (join(2)) {
    be_asked(release_one);
    pm_exit(1);
  }
  struct pm_message question = demand_some();
  CHECK_ERROR(pm_reply(&question), PM_ECANCELED);
}

// ---- released frames -------------------------------------------------------------------------------------

PM_TEST_CONTRACT(recover_under_pressure, 0, 2, 700, 8, "R31: recovery is limited to the guarantee") {
  enum { HOARD = 1, COUNT = 20, HALF = 10 };
  if (!join(2)) {
    CHECK_OK(pm_on_return_pages(count_and_give_back));
    for (unsigned i = 0; i < 3; i++) {
      struct pm_message question = next_question();
      hoard_frames();
      answer(&question, upcalls, PM_CAP_NONE);
    }
    return;
  }
  pm_container_t container = map_numbered(REGION, COUNT, 100);
  fill();
  release_numbers(container, 0, COUNT);
  // Its 20 frames are lent now. It takes 10 of them back, and lets the other task borrow again what that gave
  // back in excess.
  CHECK_EQ(ask(HOARD, PM_CAP_NONE).words[0], 0);
  (void)fresh(HALF, 0);
  CHECK_EQ(ask(HOARD, PM_CAP_NONE).words[0], 1);
  pm_frame_t frames[COUNT], error = 77;
  for (uint32_t i = 0; i < COUNT; i++) frames[i] = i;
  uint64_t before = allocated_frames();
  CHECK_ERROR(pm_recover_pages(container, frames, COUNT, &error), PM_ENOMEM);
  CHECK_EQ(error, HALF);
  CHECK_EQ(allocated_frames(), before);
  CHECK_OK(pm_recover_pages(container, frames, HALF, &error));
  check_numbered(REGION, HALF, 100);
  CHECK_EQ(ask(HOARD, PM_CAP_NONE).words[0], 2);
}

PM_TEST_CONTRACT(dropped_with_released, IS_DROPPED or 0, 2, 900, 8,
                 "R30 R31: a dropped task leaves no released frames") {
  if (join(2)) {
    pm_container_t container = map_numbered(REGION, 200, 100);
    release_numbers(container, 0, 200);
    be_asked(ignore);
    pm_exit(1);
  }
  struct pm_message question = demand_some();
  CHECK_ERROR(pm_reply(&question), PM_ECANCELED);
  // The whole machine is this task's, and reads as zero. The end of the case counts the contents left.
  uint32_t count = (uint32_t)own_info().available;
  CHECK(count > 900);
  pm_container_t container = fresh(count, PM_ALLOC_EXTRA);
  map_lazily(container, 0, count, REGION);
  for (uint32_t i = 0; i < count; i++) CHECK(is_zero(PAGE(REGION, i), PM_PAGE_SIZE));
}
