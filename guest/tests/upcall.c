// pm_return_pages: the server asks a task for frames, whatever the task does (R28 to R30). The asker of a case is the
// server of `join`; it demands frames while the victim, its client, is in the state that the case tests.
#include "test.h"

/// Questions to the asker: it demands frames before it answers, or after that, until end_demands is called.
enum { DEMAND, DEMAND_ON };

/// In the asker: answers that many questions.
static void serve(unsigned questions) {
  while (questions--) {
    struct pm_message question = next_question();
    if (question.words[0] == DEMAND) demand_frames();
    answer(&question, question.words[0] + 100, PM_CAP_NONE);
    if (question.words[0] == DEMAND_ON) demand_until_done();
  }
}

/// In the victim.
static void be_victim(void (*handler)(uint32_t count)) {
  CHECK_OK(pm_on_return_pages(handler));
  hoard_frames();
  CHECK(hoarded_frames() > 200);
}

static uint64_t microseconds_since(uint64_t start) { return pm_clock_us() - start; }

// ---- the call -----------------------------------------------------------------------------------

PM_TEST(arguments, 0, 1, "R28: addresses outside the user half, and returns without an upcall") {
  CHECK_ERROR(raw_call(PM_CALL_ON_RETURN_PAGES, 1ull << 47, 0x1000, 0, 0, 0), PM_EINVAL);
  CHECK_ERROR(raw_call(PM_CALL_ON_RETURN_PAGES, 0x400000, 1ull << 63, 0, 0, 0), PM_EINVAL);
  CHECK_ERROR(raw_call(PM_CALL_ON_RETURN_PAGES, 0x400000, 0x800000000000, 0, 0, 0), PM_EINVAL);
  CHECK_ERROR(raw_call(PM_CALL_UPCALL_RETURN, 0, 0, 0, 0, 0), PM_EINVAL);
  CHECK_OK(pm_on_return_pages(count_and_give_back));
  CHECK_ERROR(raw_call(PM_CALL_UPCALL_RETURN, 0, 0, 0, 0, 0), PM_EINVAL);
  CHECK_OK(pm_on_return_pages(NULL));
  CHECK_OK(pm_on_return_pages(NULL));
  CHECK_EQ(upcalls, 0);
}

// ---- waiting -------------------------------------------------------------------------------------

PM_TEST_CONTRACT(waiting_for_a_reply, 0, 2, 900, 8, "R28 R29: while the task waits for a reply, which then arrives") {
  if (!join(2)) return serve(20);
  be_victim(count_and_give_back);
  for (uint32_t i = 0; i < 20; i++) {
    hoard_frames();
    CHECK_EQ(ask(DEMAND, PM_CAP_NONE).words[0], 100);
    CHECK_EQ(upcalls, i + 1);
    CHECK(upcall_frames >= 32);
  }
}

PM_TEST_CONTRACT(waiting_to_be_received, 0, 2, 900, 8, "R28: while the task's call is queued") {
  if (!join(2)) {
    // Answers the first question, so the victim hoards already; the second is queued meanwhile, or comes soon.
    serve(1);
    pm_sleep(20000);
    demand_frames();
    return serve(1);
  }
  be_victim(count_and_give_back);
  CHECK_EQ(ask(7, PM_CAP_NONE).words[0], 107);
  CHECK_EQ(ask(8, PM_CAP_NONE).words[0], 108);
  CHECK_EQ(upcalls, 1);
}

PM_TEST_CONTRACT(waiting_for_a_message, 0, 2, 900, 8, "R28: while the task waits for a message, which then arrives") {
  unsigned self = join(2);
  pm_cap_t endpoint;
  if (self) {
    be_victim(count_and_give_back);
    CHECK_OK(pm_endpoint_create(&endpoint));
    CHECK_EQ(ask(7, endpoint).words[0], 107);
    struct pm_message message;
    CHECK_OK(pm_receive(endpoint, &message, LONG_US));
    CHECK_EQ(message.words[0], 55);
    CHECK_EQ(upcalls, 1);
    message.words[0] = 56;
    CHECK_OK(pm_reply(&message));
    CHECK_ERROR(pm_receive(endpoint, &message, 1000), PM_ETIMEDOUT);
    return;
  }
  struct pm_message question = next_question();
  endpoint = question.caps[0];
  answer(&question, 107, PM_CAP_NONE);
  pm_sleep(20000);
  demand_frames();
  struct pm_message message = {.words = {55}};
  CHECK_OK(pm_call(endpoint, &message, LONG_US));
  CHECK_EQ(message.words[0], 56);
}

PM_TEST_CONTRACT(waiting_for_a_name, 0, 2, 900, 8, "R28: while the task waits for a name") {
  pm_cap_t endpoint;
  if (!join(2)) {
    serve(1);
    pm_sleep(20000);
    demand_frames();
    CHECK_OK(pm_endpoint_create(&endpoint));
    CHECK_OK(pm_name_register("awaited", endpoint));
    struct pm_message message;
    CHECK_OK(pm_receive(endpoint, &message, LONG_US));
    return (void)pm_reply(&message);
  }
  be_victim(count_and_give_back);
  ask(7, PM_CAP_NONE);
  CHECK_OK(pm_name_lookup("awaited", &endpoint, LONG_US));
  CHECK_EQ(upcalls, 1);
  struct pm_message message = {0};
  CHECK_OK(pm_call(endpoint, &message, LONG_US));
}

PM_TEST_CONTRACT(sleeping, 0, 2, 900, 8, "R28: while the task sleeps, which lasts as long as requested") {
  if (!join(2)) return serve(1);
  be_victim(count_and_give_back);
  ask(DEMAND_ON, PM_CAP_NONE);
  while (upcalls < 5) {
    uint64_t before = pm_clock_us();
    hoard_frames();
    pm_sleep(30000);
    CHECK(microseconds_since(before) >= 30000);
  }
  end_demands();
}

PM_TEST_CONTRACT(out_of_time, 0, 2, 900, 8, "R28: waits still time out at their deadline") {
  if (!join(2)) return serve(1);
  be_victim(count_and_give_back);
  ask(DEMAND_ON, PM_CAP_NONE);
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  while (upcalls < 5) {
    struct pm_message message;
    uint64_t before = pm_clock_us();
    hoard_frames();
    CHECK_ERROR(pm_receive(endpoint, &message, 20000), PM_ETIMEDOUT);
    CHECK(microseconds_since(before) >= 20000);
  }
  end_demands();
}

PM_TEST_CONTRACT(waiting_for_a_lock, 0, 2, 900, 8, "R28 R21: while an access waits for the end of a lock") {
  if (!join(2)) {
    struct pm_message question = next_question();
    CHECK_OK(pm_container_lock(question.caps[0], PM_LOCK_MAXIMUM_US));
    answer(&question, 0, PM_CAP_NONE);
    pm_sleep(20000);
    demand_frames();
    CHECK_OK(pm_container_unlock(question.caps[0]));
    return serve(1);
  }
  pm_container_t container = map_numbered(REGION, 1, 5), weak;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  be_victim(count_and_give_back);
  ask(0, weak);
  CHECK_EQ(WORD(REGION, 0), 5);
  CHECK_EQ(upcalls, 1);
  ask(7, PM_CAP_NONE);
}

// ---- running ---------------------------------------------------------------------------------------

PM_TEST_CONTRACT(in_faults, 0, 2, 900, 8, "R28: while the task has page faults, and none of its data is lost") {
  if (!join(2)) return serve(1);
  pm_container_t container = map_fresh(REGION, 100);
  be_victim(count_and_give_back);
  ask(DEMAND_ON, PM_CAP_NONE);
  uint64_t seed = 0, start = pm_clock_us();
  while (is_stormy(start)) {
    hoard_frames();
    uint32_t count = 100;
    CHECK_OK(pm_container_allocate(container, 0, &count, PM_ALLOC_SQUASH));
    fill_pages(REGION, 100, ++seed);
    check_pages(REGION, 100, seed);
  }
  end_demands();
}

PM_TEST_CONTRACT(in_calls, 0, 2, 900, 8, "R28: while the task makes calls, whose results are right") {
  if (!join(2)) return serve(1);
  be_victim(count_and_give_back);
  ask(DEMAND_ON, PM_CAP_NONE);
  uint64_t start = pm_clock_us();
  while (is_stormy(start)) {
    hoard_frames();
    for (int i = 0; i < 100; i++) {
      struct pm_task_info info = {0};
      CHECK_OK(pm_task_info(&info));
      CHECK_EQ(info.guaranteed, 900);
      CHECK_ERROR(pm_container_destroy(4321), PM_EINVAL);
    }
  }
  end_demands();
}

static volatile uint32_t handled_faults;

/// Asks for the upcall while a fault is handled.
static pm_container_t pages;
static int ask_in_fault(const struct pm_fault *fault) {
  uint32_t before = upcalls;
  hoard_frames();
  if (ask(DEMAND, PM_CAP_NONE).words[0] != 100 || upcalls != before + 1) return 1;
  handled_faults++;
  uint32_t page = (uint32_t)((fault->address - (uint64_t)REGION) / PM_PAGE_SIZE);
  return pm_container_map(pages, page, 1, PAGE(REGION, page), LAZY_READ_WRITE);
}

PM_TEST_CONTRACT(in_the_fault_handler, 0, 2, 900, 8, "R28 R37: while the task handles its own fault") {
  if (!join(2)) return serve(10);
  pages = make_container(10);
  be_victim(count_and_give_back);
  CHECK_OK(pm_on_fault(ask_in_fault));
  for (uint32_t i = 0; i < 10; i++) {
    WORD(REGION, i) = i;
    CHECK_EQ(handled_faults, i + 1);
  }
  CHECK_OK(pm_on_fault(NULL));
  for (uint32_t i = 0; i < 10; i++) CHECK_EQ(WORD(REGION, i), i);
}

// ---- actions of the handler -------------------------------------------------------------------------

static uint32_t region_2_faults;
static int serve_nested(const struct pm_fault *fault) {
  if (fault->address < (uint64_t)REGION_2) return ask_in_fault(fault);
  // This fault handler runs for the upcall handler: neither return is allowed in it.
  if (raw_call(PM_CALL_UPCALL_RETURN, 0, 0, 0, 0, 0) != PM_EINVAL) return 1;
  uint32_t page = (uint32_t)((fault->address - (uint64_t)REGION_2) / PM_PAGE_SIZE);
  region_2_faults++;
  return pm_container_map(pages, 10 + page, 1, PAGE(REGION_2, page), LAZY_READ_WRITE);
}

static void fault_and_give_back(uint32_t count) {
  uint64_t page = upcalls;
  count_and_give_back(count);
  // The upcall handler must not end the fault handler that it interrupted.
  CHECK_ERROR(raw_call(PM_CALL_FAULT_RETURN, 0, 0, 0, 0, 0), PM_EINVAL);
  WORD(REGION_2, page) = page + 1;
}

PM_TEST_CONTRACT(fault_in_the_handler, 0, 2, 900, 8, "R28 R37: the handler's own faults go to the fault handler") {
  if (!join(2)) return serve(5);
  pages = make_container(20);
  be_victim(fault_and_give_back);
  CHECK_OK(pm_on_fault(serve_nested));
  for (uint32_t i = 0; i < 5; i++) ask(DEMAND, PM_CAP_NONE), hoard_frames();
  CHECK_EQ(region_2_faults, 5);
  for (uint32_t i = 0; i < 5; i++) CHECK_EQ(WORD(REGION_2, i), i + 1);
}

PM_TEST_CONTRACT(fault_in_a_fault, 0, 2, 900, 8,
                 "R28 R37: the handler's own faults go to the fault handler, even if it interrupted that one") {
  if (!join(2)) return serve(10);
  pages = make_container(20);
  be_victim(fault_and_give_back);
  CHECK_OK(pm_on_fault(serve_nested));
  for (uint32_t i = 0; i < 10; i++) WORD(REGION, i) = i + 1;
  CHECK_EQ(region_2_faults, 10);
  CHECK_EQ(handled_faults, 10);
  for (uint32_t i = 0; i < 10; i++) CHECK(WORD(REGION, i) == i + 1 && WORD(REGION_2, i) == i + 1);
}

static void sleep_and_give_back(uint32_t count) {
  static volatile uint32_t depth;
  CHECK_EQ(depth++, 0);
  pm_sleep(30000);
  count_and_give_back(count);
  depth--;
}

// ReclaimTests.merged, where the order is known, shows that several demands arrive as one number.
PM_TEST_CONTRACT(not_entered_again, 0, 3, 600, 8, "R28: frames demanded while the handler runs are reported after it") {
  unsigned self = join(3);
  if (self == 2) {
    // Concurrently with the other asker, so that the second demand comes while the victim handles the first.
    ask(7, PM_CAP_NONE);
    demand_frames();
    return;
  }
  if (!self) {
    struct pm_message questions[2];
    for (int i = 0; i < 2; i++) questions[i] = next_question();
    for (int i = 0; i < 2; i++)
      if (questions[i].words[0] == 7) answer(&questions[i], 0, PM_CAP_NONE);
    demand_frames();
    for (int i = 0; i < 2; i++)
      if (questions[i].words[0] != 7) answer(&questions[i], 0, PM_CAP_NONE);
    return serve(1);
  }
  be_victim(sleep_and_give_back);
  ask(8, PM_CAP_NONE);
  CHECK(upcalls >= 1 && upcalls <= 2);
  ask(9, PM_CAP_NONE);
}

static pm_cap_t clerk;
static void call_and_give_back(uint32_t count) {
  struct pm_message message = {.words = {count}};
  CHECK_OK(pm_call(clerk, &message, LONG_US));
  count_and_give_back((uint32_t)message.words[0]);
}

PM_TEST_CONTRACT(calls_another_task, 0, 3, 600, 8,
                 "R28: the handler calls a server, while the task waits for another") {
  unsigned self = join(3);
  if (!self) return serve(10);
  pm_cap_t endpoint;
  if (self == 2) {
    CHECK_OK(pm_endpoint_create(&endpoint));
    CHECK_OK(pm_name_register("clerk", endpoint));
    for (int i = 0; i < 10; i++) {
      struct pm_message message;
      CHECK_OK(pm_receive(endpoint, &message, LONG_US));
      CHECK_OK(pm_reply(&message));
    }
    return;
  }
  CHECK_OK(pm_name_lookup("clerk", &clerk, LONG_US));
  be_victim(call_and_give_back);
  for (uint32_t i = 0; i < 10; i++) {
    hoard_frames();
    // Without a timeout: a reply that went unnoticed while the handler waited would never be seen.
    struct pm_message message = {.words = {DEMAND}};
    CHECK_OK(pm_call(partner, &message, PM_FOREVER));
    CHECK_EQ(message.words[0], 100);
    CHECK_EQ(upcalls, i + 1);
  }
}

PM_TEST_CONTRACT(registered_late, 0, 2, 900, 8, "R28: a demand from before the handler was set reaches it") {
  if (!join(2)) {
    serve(1);
    return demand_frames();
  }
  hoard_frames();
  ask(7, PM_CAP_NONE);
  pm_sleep(20000);
  CHECK_EQ(upcalls, 0);
  CHECK_OK(pm_on_return_pages(count_and_give_back));
  while (!upcalls) {}
  CHECK_EQ(upcalls, 1);
}

// ---- misbehaviour: the other task gets its frames in every case ---------------------------------------

/// The victim ends while it waits, and the asker's reply fails since its caller is gone.
static void outlive(void) {
  struct pm_message question = next_question();
  demand_frames();
  question.words[0] = 0;
  CHECK_ERROR(pm_reply(&question), PM_ECANCELED);
  demand_frames();
}

static void be_lost(void (*handler)(uint32_t count)) {
  be_victim(handler);
  ask(0, PM_CAP_NONE);
  pm_exit(1);
}

static void do_nothing(uint32_t count) { upcalls += count > 0; }
static void spin(uint32_t count) {
  for (volatile uint32_t i = count; i; i = i | 1) {}
}
static void wait_forever(uint32_t count) { pm_sleep(PM_FOREVER - count); }
static void leave(uint32_t count) { pm_exit(count > 0 ? 7 : 1); }
static void touch_nothing(uint32_t count) { WORD(REGION_2, 0) = count; }

PM_TEST_CONTRACT(returns_nothing, IS_DROPPED or 0, 2, 900, 8, "R30: a task whose handler frees nothing is dropped") {
  join(2) ? be_lost(do_nothing) : outlive();
}
PM_TEST_CONTRACT(no_handler, IS_DROPPED or 0, 2, 900, 8, "R30: a task without a handler is dropped") {
  join(2) ? be_lost(NULL) : outlive();
}
PM_TEST_CONTRACT(endless_handler, IS_DROPPED or 0, 2, 900, 8, "R29 R30: a handler that never returns") {
  join(2) ? be_lost(spin) : outlive();
}
PM_TEST_CONTRACT(sleeping_handler, IS_DROPPED or 0, 2, 900, 8, "R29 R30: a handler that sleeps forever") {
  join(2) ? be_lost(wait_forever) : outlive();
}
PM_TEST_CONTRACT(handler_exits, 7 or 0, 2, 900, 8, "R28: a handler that ends the task") {
  join(2) ? be_lost(leave) : outlive();
}
PM_TEST_CONTRACT(handler_dies, DIES_OF_PAGE_FAULT or 0, 2, 900, 8, "R28: an unhandled fault in the handler") {
  join(2) ? be_lost(touch_nothing) : outlive();
}

static void overflow(uint32_t count) {
  (void)count;
  volatile char large[60 << 10];
  for (size_t i = sizeof large; i > 0; i -= 512) large[i - 1] = 1;
}
PM_TEST_CONTRACT(handler_overflows, DIES_OF_PAGE_FAULT or 0, 2, 900, 8, "R28: a handler that overflows its stack") {
  join(2) ? be_lost(overflow) : outlive();
}

PM_TEST_CONTRACT(busy_without_handler, IS_DROPPED or 0, 2, 900, 8, "R30: a task that computes and has no handler") {
  if (!join(2)) {
    serve(1);
    return demand_frames();
  }
  hoard_frames();
  ask(7, PM_CAP_NONE);
  spin(1);
  pm_exit(1);
}

PM_TEST_CONTRACT(peers_are_told, IS_DROPPED or 0, 3, 600, 8, "R30: a call to a task that is dropped fails") {
  unsigned self = join(3);
  pm_cap_t endpoint;
  if (self == 1) {
    CHECK_OK(pm_endpoint_create(&endpoint));
    CHECK_OK(pm_name_register("victim", endpoint));
    hoard_frames();
    struct pm_message first, second;
    CHECK_OK(pm_receive(endpoint, &first, LONG_US));
    ask(7, PM_CAP_NONE);
    (void)pm_receive(endpoint, &second, PM_FOREVER);
    pm_exit(1);
  }
  if (self == 2) {
    struct pm_message message = {0};
    CHECK_OK(pm_name_lookup("victim", &endpoint, LONG_US));
    CHECK_ERROR(pm_call(endpoint, &message, LONG_US), PM_ECANCELED);
    return;
  }
  serve(1);
  demand_frames();
}

/// Sets the handler to `entry`, on a stack at `top`, and waits for a demand.
static void be_lost_with(uint64_t entry, uint64_t top) {
  hoard_frames();
  CHECK_OK(raw_call(PM_CALL_ON_RETURN_PAGES, entry, top, 0, 0, 0));
  ask(0, PM_CAP_NONE);
  pm_exit(1);
}

__attribute__((naked)) static void push_at_once(void) { __asm__("push %rdi\n\tud2"); }

PM_TEST_CONTRACT(stack_unmapped, DIES_OF_PAGE_FAULT or 0, 2, 900, 8, "Safety: a handler whose stack is unmapped") {
  join(2) ? be_lost_with((uint64_t)push_at_once, (uint64_t)REGION) : outlive();
}
PM_TEST_CONTRACT(stack_at_zero, DIES_OF_STACK_FAULT or DIES_OF_PAGE_FAULT or 0, 2, 900, 8,
                 "Safety: a handler whose stack wraps to non-canonical addresses") {
  join(2) ? be_lost_with((uint64_t)push_at_once, 0) : outlive();
}
PM_TEST_CONTRACT(entry_unmapped, DIES_OF_PAGE_FAULT or 0, 2, 900, 8, "Safety: a handler at an unmapped address") {
  join(2) ? be_lost_with((uint64_t)REGION, (uint64_t)REGION) : outlive();
}
