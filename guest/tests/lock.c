// Locks on a shared container make the owner wait, for a limited time (R21). The client owns it, the server locks it.
#include "test.h"

/// In the client: `count` numbered frames at REGION, and a weak capability.
static pm_container_t container, weak;
static void set_up(uint32_t count) {
  container = map_numbered(REGION, count, 100);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
}

/// In the server: maps the weak capability of the next question at REGION_2.
static struct pm_message receive_and_map(uint32_t count) {
  struct pm_message message = next_question();
  weak = message.caps[0];
  CHECK_OK(pm_container_map(weak, 0, count, REGION_2, LAZY_READ_WRITE));
  return message;
}

static uint64_t milliseconds_since(uint64_t start) { return (pm_clock_us() - start) / 1000; }

// ---- arguments --------------------------------------------------------------------------------

PM_TEST(arguments, 0, 1, "R21: the owner's handle, a bad handle, no time, too much time; unlocking without a lock") {
  set_up(1);
  CHECK_ERROR(pm_container_lock(container, 1000), PM_EPERM);
  CHECK_ERROR(pm_container_lock(PM_CAP_CONTAINER, 1000), PM_EPERM);
  CHECK_ERROR(pm_container_lock(PM_CAP_NONE, 1000), PM_EINVAL);
  CHECK_ERROR(pm_container_lock(PM_CAP_SELF, 1000), PM_EINVAL);
  CHECK_ERROR(pm_container_lock(4321, 1000), PM_EINVAL);
  CHECK_ERROR(pm_container_lock(weak, 0), PM_EINVAL);
  CHECK_ERROR(pm_container_lock(weak, PM_LOCK_MAXIMUM_US + 1), PM_EINVAL);
  CHECK_ERROR(pm_container_lock(weak, PM_FOREVER), PM_EINVAL);
  CHECK_ERROR(pm_container_unlock(weak), PM_EPERM);
  CHECK_ERROR(pm_container_unlock(container), PM_EPERM);
  CHECK_ERROR(pm_container_unlock(PM_CAP_NONE), PM_EINVAL);
  check_numbered(REGION, 1, 100);
}

PM_TEST(of_ones_own, 0, 1, "R21, Safety: the owner, with a weak capability of its own, cannot lock itself out") {
  set_up(1);
  CHECK_ERROR(pm_container_lock(weak, PM_LOCK_MAXIMUM_US), PM_EPERM);
  check_numbered(REGION, 1, 100);
  CHECK_OK(pm_container_destroy(container));
}

// ---- the owner waits ------------------------------------------------------------------------------

/// The server of the cases below: locks for words[1] µs, answers with the time before that, works on the frame for
/// words[2] µs, then does what words[0] says. With WHEN_TOLD it starts to work when the next question comes.
enum { UNLOCK = 1, LEAVE_LOCKED, END, WHEN_TOLD = 16 };
static void serve_lock(void) {
  struct pm_message message = receive_and_map(2);
  uint64_t what = message.words[0], before = pm_clock_us();
  CHECK_OK(pm_container_lock(weak, message.words[1]));
  answer(&message, before, PM_CAP_NONE);
  if (what & WHEN_TOLD) {
    struct pm_message told = next_question();
    answer(&told, 0, PM_CAP_NONE);
  }
  uint64_t start = pm_clock_us();
  while (pm_clock_us() - start < message.words[2]) WORD(REGION_2, 0)++;
  WORD(REGION_2, 0) = 777;
  if ((what & ~WHEN_TOLD) == UNLOCK) CHECK_OK(pm_container_unlock(weak));
  if (what == END) pm_exit(0);
  message = next_question();
  answer(&message, 0, PM_CAP_NONE);
}

/// In the client: asks the server to lock the container. Returns a time before the lock began.
static uint64_t lock_by_server(uint64_t what, uint64_t lock_us, uint64_t work_us) {
  struct pm_message message = {.words = {what, lock_us, work_us}, .caps = {weak}};
  CHECK_OK(pm_call(partner, &message, LONG_US));
  return message.words[0];
}

static uint64_t have_it_locked(uint64_t what, uint64_t lock_us, uint64_t work_us) {
  set_up(2);
  return lock_by_server(what, lock_us, work_us);
}

/// Checks that the lock is still held, so what came before happened under it.
static void check_locked(void) { CHECK_ERROR(pm_container_revoke(container), PM_EBUSY); }

PM_TEST(access_waits, 0, 2,
        "R21: an access by the owner waits until the holder unlocks, and sees the holder's writes") {
  if (!join(2)) return serve_lock();
  have_it_locked(UNLOCK, PM_LOCK_MAXIMUM_US, 100000);
  CHECK_EQ(WORD(REGION, 0), 777);
  CHECK_EQ(WORD(REGION, 1), 101);
  WORD(REGION, 0) = 5;
  ask(0, PM_CAP_NONE);
}

PM_TEST(write_waits, 0, 2, "R21: a write by the owner waits too, to a page that it had written before") {
  if (!join(2)) return serve_lock();
  have_it_locked(UNLOCK, PM_LOCK_MAXIMUM_US, 100000);
  // If this did not wait, the holder would overwrite it.
  WORD(REGION, 0) = 5;
  ask(0, PM_CAP_NONE);
  CHECK_EQ(WORD(REGION, 0), 5);
}

PM_TEST(time_is_up, 0, 2, "R21: the lock ends with its time, even if the holder keeps working") {
  if (!join(2)) return serve_lock();
  uint64_t before = have_it_locked(LEAVE_LOCKED, 300000, 1000);
  CHECK_EQ(WORD(REGION, 1), 101);
  CHECK(milliseconds_since(before) >= 295);
  ask(0, PM_CAP_NONE);
}

PM_TEST(holder_dies, 0, 2, "R21, R42: the lock ends with its holder, and the data stays") {
  if (!join(2)) return serve_lock();
  uint64_t before = have_it_locked(END, PM_LOCK_MAXIMUM_US, 50000);
  CHECK_EQ(WORD(REGION, 0), 777);
  CHECK(pm_clock_us() - before < PM_LOCK_MAXIMUM_US);
  CHECK_OK(pm_container_destroy(container));
}

PM_TEST(calls_are_busy, 0, 2, "R21: meanwhile the owner's calls fail with PM_EBUSY and change nothing") {
  if (!join(2)) return serve_lock();
  have_it_locked(UNLOCK | WHEN_TOLD, PM_LOCK_MAXIMUM_US, 1000);
  uint64_t before = allocated_frames();
  uint32_t one = 1;
  const pm_frame_t ids[] = {0, 1};
  pm_container_t other = make_container(2), made = 0;
  CHECK_ERROR(pm_container_destroy(container), PM_EBUSY);
  CHECK_ERROR(pm_cap_drop(container), PM_EBUSY);
  CHECK_ERROR(pm_container_map(container, 0, 1, REGION_2, LAZY_READ_WRITE), PM_EBUSY);
  CHECK_ERROR(pm_container_allocate(container, 5, &one, 0), PM_EBUSY);
  CHECK_ERROR(pm_container_allocate(container, 0, &one, PM_ALLOC_SQUASH), PM_EBUSY);
  CHECK_ERROR(pm_container_deallocate(container, 0, &one, 0), PM_EBUSY);
  CHECK_EQ(one, 1);
  CHECK_ERROR(pm_container_share(container, PM_CAP_NONE, &made), PM_EBUSY);
  CHECK_ERROR(pm_container_revoke(container), PM_EBUSY);
  CHECK_ERROR(pm_container_copy(container, 0, other, 0, 1, NULL), PM_EBUSY);
  CHECK_ERROR(pm_container_copy(other, 0, container, 0, 1, NULL), PM_EBUSY);
  CHECK_ERROR(pm_container_copy_gather(container, ids, other, 0, 2, NULL), PM_EBUSY);
  CHECK_ERROR(pm_container_create_from(&made, container, 0, 1, PM_CAP_NONE, &made), PM_EBUSY);
  CHECK_ERROR(pm_release_data(container, ids, 2), PM_EBUSY);
  CHECK_EQ(allocated_frames(), before + 2);
  ask(0, PM_CAP_NONE);
  CHECK_EQ(WORD(REGION, 0), 777);
  CHECK_EQ(WORD(REGION, 1), 101);
  CHECK_OK(pm_container_destroy(container));
  ask(0, PM_CAP_NONE);
}

PM_TEST(through_own_weak, 0, 2, "R21: the owner cannot reach the frames through its own weak capability either") {
  if (!join(2)) return serve_lock();
  set_up(2);
  pm_container_t own;
  CHECK_OK(pm_container_share(container, PM_CAP_SELF, &own));
  CHECK_OK(pm_container_map(own, 0, 2, REGION_2, LAZY_READ_WRITE));
  check_numbered(REGION_2, 2, 100);
  lock_by_server(UNLOCK | WHEN_TOLD, PM_LOCK_MAXIMUM_US, 100000);
  CHECK_ERROR(pm_container_map(own, 0, 1, PAGE(REGION_2, 10), LAZY_READ_WRITE), PM_EBUSY);
  CHECK_ERROR(pm_container_copy(own, 0, make_container(1), 0, 1, NULL), PM_EBUSY);
  CHECK_ERROR(pm_container_copy(make_container(1), 0, own, 0, 1, NULL), PM_EBUSY);
  ask(0, PM_CAP_NONE);
  CHECK_EQ(WORD(REGION_2, 0), 777);
  ask(0, PM_CAP_NONE);
}

PM_TEST(call_with_pointer, 0, 2, "R21, Safety: an owner's call with a pointer into locked frames fails") {
  if (!join(2)) return serve_lock();
  have_it_locked(UNLOCK | WHEN_TOLD, PM_LOCK_MAXIMUM_US, 1000);
  CHECK_ERROR(pm_task_info((struct pm_task_info *)PAGE(REGION, 1)), PM_EFAULT);
  CHECK_ERROR(pm_write(PAGE(REGION, 1), 8), PM_EFAULT);
  ask(0, PM_CAP_NONE);
  CHECK_EQ(WORD(REGION, 1), 101);
  ask(0, PM_CAP_NONE);
}

PM_TEST(copies_are_free, 0, 2, "R21: logical copies of the frames, in other containers, are not locked") {
  if (!join(2)) return serve_lock();
  set_up(2);
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, 2, NULL));
  map_lazily(copies, 0, 2, REGION_2);
  check_numbered(REGION_2, 2, 100);
  lock_by_server(UNLOCK | WHEN_TOLD, PM_LOCK_MAXIMUM_US, 1000);
  check_numbered(REGION_2, 2, 100);
  WORD(REGION_2, 0) = 1;
  check_locked();
  ask(0, PM_CAP_NONE);
  CHECK_EQ(WORD(REGION, 0), 777);
  CHECK_EQ(WORD(REGION_2, 0), 1);
  ask(0, PM_CAP_NONE);
}

PM_TEST(sleeps_on, 0, 2, "R21: an owner that does not touch the container does not wait") {
  if (!join(2)) return serve_lock();
  have_it_locked(UNLOCK | WHEN_TOLD, PM_LOCK_MAXIMUM_US, 1000);
  map_fresh(REGION_2, 100);
  fill_pages(REGION_2, 100, 1);
  check_pages(REGION_2, 100, 1);
  CHECK_OK(pm_unmap(REGION, 2));
  check_locked();
  ask(0, PM_CAP_NONE);
  ask(0, PM_CAP_NONE);
}

// ---- the holder ----------------------------------------------------------------------------------

PM_TEST(again, 0, 2, "R21: locked again by its holder: the new time applies, longer or shorter") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(2);
    // Too short to last, unless it is renewed at once.
    CHECK_OK(pm_container_lock(weak, 1));
    uint64_t before = pm_clock_us();
    CHECK_OK(pm_container_lock(weak, 300000));
    answer(&message, before, PM_CAP_NONE);
    message = next_question();
    before = pm_clock_us();
    CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
    CHECK_OK(pm_container_lock(weak, 50000));
    answer(&message, before, PM_CAP_NONE);
    message = next_question();
    // Its time is up.
    CHECK_ERROR(pm_container_unlock(weak), PM_EPERM);
    return answer(&message, 0, PM_CAP_NONE);
  }
  set_up(2);
  uint64_t before = ask(0, weak).words[0];
  check_numbered(REGION, 2, 100);
  CHECK(milliseconds_since(before) >= 295);
  before = ask(0, PM_CAP_NONE).words[0];
  check_numbered(REGION, 2, 100);
  CHECK(pm_clock_us() - before < PM_LOCK_MAXIMUM_US);
  ask(0, PM_CAP_NONE);
}

PM_TEST(one_holder, 0, 3, "R21: another holder: PM_EBUSY to lock, PM_EPERM to unlock, and it may keep working") {
  unsigned number = join(3);
  if (number == 0) {
    struct pm_message messages[2] = {next_question(), next_question()};
    int owner = messages[0].words[0] == 1 ? 0 : 1;
    weak = messages[owner].caps[0];
    CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
    answer(&messages[!owner], 0, weak);
    struct pm_message message = next_question();
    CHECK_OK(pm_container_unlock(weak));
    answer(&message, 0, PM_CAP_NONE);
    message = next_question();
    answer(&messages[owner], 0, PM_CAP_NONE);
    return answer(&message, 0, PM_CAP_NONE);
  }
  if (number == 1) {
    set_up(2);
    ask(number, weak);
    CHECK_EQ(WORD(REGION, 0), 9);
    return;
  }
  weak = ask(number, PM_CAP_NONE).caps[0];
  CHECK_ERROR(pm_container_lock(weak, 1000), PM_EBUSY);
  CHECK_ERROR(pm_container_unlock(weak), PM_EPERM);
  CHECK_OK(pm_container_map(weak, 0, 2, REGION_2, LAZY_READ_WRITE));
  check_numbered(REGION_2, 2, 100);
  WORD(REGION_2, 0) = 9;
  ask(number, PM_CAP_NONE);
  CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
  CHECK_OK(pm_container_unlock(weak));
  CHECK_ERROR(pm_container_unlock(weak), PM_EPERM);
  ask(number, PM_CAP_NONE);
}

// More than the owner can count to meanwhile.
#define LOCKED_STEP (1ull << 40)

PM_TEST(many_times, 0, 2, "R21: 200 short locks while the owner counts in the frame") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(1);
    answer(&message, 0, PM_CAP_NONE);
    for (int i = 0; i < 200; i++) {
      CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
      // The owner is stopped now.
      uint64_t now = WORD(REGION_2, 0);
      for (int j = 0; j < 50; j++) CHECK_EQ(WORD(REGION_2, 0), now);
      WORD(REGION_2, 0) = now + LOCKED_STEP;
      if (i == 199) ((volatile uint64_t *)REGION_2)[1] = 1;
      CHECK_OK(pm_container_unlock(weak));
      pm_sleep(20);
    }
    message = next_question();
    return answer(&message, 0, PM_CAP_NONE);
  }
  set_up(1);
  ask(0, weak);
  uint64_t added = 0;
  volatile uint64_t *word = (uint64_t *)REGION;
  while (!word[1]) __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST), added++;
  CHECK_EQ(*word, 200 * LOCKED_STEP + 100 + added);
  ask(0, PM_CAP_NONE);
}

// ---- the owner's end -------------------------------------------------------------------------------

PM_TEST(owner_ends, 0, 2, "R21: an owner that ends with its container locked: the holder works until it unlocks") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(2);
    CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
    answer(&message, 0, PM_CAP_NONE);
    uint64_t start = pm_clock_us();
    while (milliseconds_since(start) < 150) WORD(REGION_2, 0)++;
    check_numbered(PAGE(REGION_2, 1), 1, 101);
    CHECK_OK(pm_container_map(weak, 0, 2, PAGE(REGION_2, 10), PM_MAP_READ));
    CHECK_EQ(WORD(REGION_2, 11), 101);
    CHECK_OK(pm_container_unlock(weak));
    pm_error_t error;
    while (!(error = pm_container_lock(weak, 1000))) pm_sleep(1000);
    CHECK_ERROR(error, PM_ECANCELED);
    return;
  }
  set_up(2);
  ask(0, weak);
}

PM_TEST(owner_ends_for_good, 0, 2,
        "R21: an owner that ends with its container locked waits no longer than the lock's time") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(2);
    uint64_t start = pm_clock_us();
    CHECK_OK(pm_container_lock(weak, 200000));
    answer(&message, 0, PM_CAP_NONE);
    pm_error_t error;
    while (!(error = pm_container_map(weak, 0, 2, PAGE(REGION_2, 10), PM_MAP_READ))) pm_sleep(1000);
    CHECK_ERROR(error, PM_ECANCELED);
    return CHECK(milliseconds_since(start) >= 195);
  }
  set_up(2);
  ask(0, weak);
}

PM_TEST(locked_again_and_again, 0, 2,
        "R21: an owner that ends waits no longer than the lock's time, even if the holder locks again") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(2);
    CHECK_OK(pm_container_lock(weak, 100000));
    answer(&message, 0, PM_CAP_NONE);
    pm_error_t error;
    while (!(error = pm_container_lock(weak, 100000))) pm_sleep(1000);
    return CHECK_ERROR(error, PM_ECANCELED);
  }
  set_up(2);
  ask(0, weak);
}

PM_TEST(both_end, 0, 2, "R21, Safety: owner and holder end at the same time, with the lock held") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(2);
    CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
    return answer(&message, 0, PM_CAP_NONE);
  }
  set_up(2);
  ask(0, weak);
}

PM_TEST(whole_task, 0, 2,
        "R21, Safety: the client's initial container, with its text and stack, is locked: the client stops") {
  static const uint64_t enough = 1ull << 62;
  static volatile uint64_t variable = 1;
  if (!join(2)) {
    struct pm_message message = next_question();
    weak = message.caps[0];
    CHECK_OK(pm_container_map(weak, (pm_frame_t)message.words[0], 1, REGION_2, LAZY_READ_WRITE));
    volatile uint64_t *there = (uint64_t *)(REGION_2 + (uintptr_t)&variable % PM_PAGE_SIZE);
    answer(&message, 0, PM_CAP_NONE);
    while (*there < 1000) {}
    CHECK_OK(pm_container_lock(weak, PM_LOCK_MAXIMUM_US));
    uint64_t now = *there, start = pm_clock_us();
    while (milliseconds_since(start) < 50) CHECK_EQ(*there, now);
    // The client may stop before it adds one more.
    *there = enough;
    CHECK_OK(pm_container_unlock(weak));
    return;
  }
  CHECK_OK(pm_container_share(PM_CAP_CONTAINER, PM_CAP_NONE, &weak));
  ask(mapping_at((const void *)&variable).frame, weak);
  while (variable < enough) __atomic_fetch_add(&variable, 1, __ATOMIC_SEQ_CST);
}

PM_TEST(reply_into_lock, 0, 2, "R21, Safety: a reply to a client whose stack the server has locked") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_OK(pm_container_lock(message.caps[0], 200000));
    struct pm_message reply = {.reply = message.reply};
    // It arrives or it does not; both tasks continue.
    (void)pm_reply(&reply);
    return;
  }
  CHECK_OK(pm_container_share(PM_CAP_CONTAINER, PM_CAP_NONE, &weak));
  struct pm_message message = {.caps = {weak}};
  pm_error_t error = pm_call(partner, &message, LONG_US);
  CHECK(error == PM_OK || error == PM_EFAULT || error == PM_ECANCELED);
}
