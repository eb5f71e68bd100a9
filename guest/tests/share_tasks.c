// Containers shared between tasks (R20, R21, R40, R42): the client owns the container, the server has a weak
// capability.
#include "test.h"

enum { DONE = 1000 };

/// In the client: `count` numbered frames at REGION, and a weak capability for `remote`.
static pm_container_t container, weak;
static void set_up(uint32_t count, pm_cap_t remote) {
  container = map_numbered(REGION, count, 100);
  CHECK_OK(pm_container_share(container, remote, &weak));
}

/// In the server: maps the weak capability of the next question at REGION_2.
static struct pm_message receive_and_map(uint32_t count) {
  struct pm_message message = next_question();
  weak = message.caps[0];
  CHECK_OK(pm_container_map(weak, 0, count, REGION_2, LAZY_READ_WRITE));
  return message;
}

PM_TEST(both_write, 0, 2, "R20: the client sees what the server writes through a weak capability, and vice versa") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(10);
    check_numbered(REGION_2, 10, 100);
    for (uint32_t i = 0; i < 10; i++) WORD(REGION_2, i) = 500 + i;
    answer(&message, 0, PM_CAP_NONE);
    message = next_question();
    check_numbered(REGION_2, 10, 900);
    return answer(&message, 0, PM_CAP_NONE);
  }
  set_up(10, PM_CAP_NONE);
  ask(0, weak);
  check_numbered(REGION, 10, 500);
  for (uint32_t i = 0; i < 10; i++) WORD(REGION, i) = 900 + i;
  ask(0, PM_CAP_NONE);
}

PM_TEST(one_counter, 0, 2, "R20: both tasks count in one frame concurrently, and no count is lost") {
  enum { COUNT = 200000 };
  struct pm_message message;
  bool is_server = !join(2);
  volatile uint64_t *counter = (uint64_t *)(is_server ? REGION_2 : REGION);
  if (is_server) {
    message = receive_and_map(1);
    answer(&message, 0, PM_CAP_NONE);
  } else {
    set_up(1, PM_CAP_NONE);
    ask(0, weak);
  }
  for (int i = 0; i < COUNT; i++) __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
  if (is_server) {
    message = next_question();
    return answer(&message, 0, PM_CAP_NONE);
  }
  ask(0, PM_CAP_NONE);
  CHECK_EQ(*counter, 100 + 2 * COUNT);
}

PM_TEST(fill_by_copies, 0, 2, "R6, R40: the server fills the client's container by copies; the client is charged") {
  if (!join(2)) {
    pm_container_t cache = map_numbered(REGION, 20, 7000);
    uint64_t before = allocated_frames();
    struct pm_message message = next_question();
    CHECK_OK(pm_container_copy(cache, 5, message.caps[0], 0, 10, NULL));
    CHECK_EQ(allocated_frames(), before);
    answer(&message, mapping_at(PAGE(REGION, 5)).physical, PM_CAP_NONE);
    message = next_question();
    check_numbered(REGION, 20, 7000);
    return answer(&message, 0, PM_CAP_NONE);
  }
  container = make_container(10);
  uint64_t before = allocated_frames();
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  uint64_t physical = ask(0, weak).words[0];
  CHECK_OK(pm_container_revoke(container));
  map_lazily(container, 0, 10, REGION);
  check_numbered(REGION, 10, 7005);
  CHECK_SAME_FRAME(mapping_at(REGION).physical, physical);
  CHECK_EQ(allocated_frames(), before);
  for (uint32_t i = 0; i < 10; i++) WORD(REGION, i) = i;
  ask(0, PM_CAP_NONE);
}

PM_TEST(private_page, 0, 2, "R42: the client's page does not change when the server writes its own and dies") {
  if (!join(2)) {
    pm_container_t cache = map_numbered(REGION, 5, 7000);
    struct pm_message message = next_question();
    CHECK_OK(pm_container_copy(cache, 0, message.caps[0], 0, 5, NULL));
    for (uint32_t i = 0; i < 5; i++) WORD(REGION, i) = 1;
    answer(&message, 0, PM_CAP_NONE);
    pm_exit(0);
  }
  container = make_container(5);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  ask(0, weak);
  map_lazily(container, 0, 5, REGION);
  for (int i = 0; i < 20; i++) {
    check_numbered(REGION, 5, 7000);
    pm_sleep(2000);
  }
}

// ---- revocation and ends --------------------------------------------------------------------

PM_TEST(revoked, 0, 2,
        "R21: the client revokes: the server's mapping is removed, its capability revoked, and the data stays") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(3);
    WORD(REGION_2, 0) = 55;
    answer(&message, 0, PM_CAP_NONE);
    message = next_question();
    CHECK(read_faults(REGION_2));
    CHECK(write_faults(PAGE(REGION_2, 1)));
    CHECK_ERROR(pm_container_map(weak, 0, 3, REGION_2, LAZY_READ_WRITE), PM_ECANCELED);
    return answer(&message, 0, PM_CAP_NONE);
  }
  set_up(3, PM_CAP_NONE);
  ask(0, weak);
  CHECK_OK(pm_container_revoke(container));
  ask(0, PM_CAP_NONE);
  CHECK_EQ(WORD(REGION, 0), 55);
  CHECK_EQ(WORD(REGION, 1), 101);
}

static int leave_quietly(const struct pm_fault *fault) {
  pm_exit(fault->address / PM_PAGE_SIZE == (uint64_t)REGION_2 / PM_PAGE_SIZE ? 0 : 1);
}

PM_TEST(revoked_while_writing, 0, 2, "R21: revoked while the server writes as fast as it can: only the server faults") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(1);
    CHECK_OK(pm_on_fault(leave_quietly));
    answer(&message, 0, PM_CAP_NONE);
    while (true) WORD(REGION_2, 0)++;
  }
  set_up(1, PM_CAP_NONE);
  ask(0, weak);
  // Until the server writes, however long that takes on this machine.
  while (WORD(REGION, 0) <= 100) pm_sleep(1000);
  CHECK_OK(pm_container_revoke(container));
  uint64_t now = WORD(REGION, 0);
  pm_sleep(5000);
  CHECK_EQ(WORD(REGION, 0), now);
}

PM_TEST(freed_while_writing, 0, 2,
        "R18, R20: frames freed while the server writes are not reused while it can still reach them") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(1);
    CHECK_OK(pm_on_fault(leave_quietly));
    answer(&message, 0, PM_CAP_NONE);
    while (true) WORD(REGION_2, 0) = 1;
  }
  set_up(1, PM_CAP_NONE);
  ask(0, weak);
  pm_sleep(2000);
  uint32_t one = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &one, 0));
  pm_container_t others = map_fresh(PAGE(REGION, 10), 200);
  CHECK(is_zero(PAGE(REGION, 10), 200 * PM_PAGE_SIZE));
  pm_sleep(2000);
  CHECK(is_zero(PAGE(REGION, 10), 200 * PM_PAGE_SIZE));
  CHECK_OK(pm_container_destroy(others));
}

PM_TEST(copied_while_writing, 0, 2, "R24: copied repeatedly while the server writes: no copy ever changes") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(1);
    CHECK_OK(pm_on_fault(leave_quietly));
    answer(&message, 0, PM_CAP_NONE);
    // Two words that differ by at most one in every copy of the page.
    while (true) WORD(REGION_2, 0)++, ((volatile uint64_t *)REGION_2)[511] = WORD(REGION_2, 0);
  }
  set_up(1, PM_CAP_NONE);
  ((volatile uint64_t *)REGION)[511] = 100;
  ask(0, weak);
  pm_container_t copies = make_container(1);
  map_lazily(copies, 0, 1, REGION_2);
  for (int i = 0; i < 300; i++) {
    CHECK_OK(pm_container_copy(container, 0, copies, 0, 1, NULL));
    uint64_t first = WORD(REGION_2, 0), last = ((volatile uint64_t *)REGION_2)[511];
    CHECK(first - last <= 1);
    CHECK_EQ(WORD(REGION_2, 0), first);
  }
  CHECK_OK(pm_container_revoke(container));
}

PM_TEST(owner_dies, 0, 2, "R21: the client ends: the server's mapping is removed and its capability revoked") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(3);
    check_numbered(REGION_2, 3, 100);
    answer(&message, 0, PM_CAP_NONE);
    pm_error_t error;
    while (!(error = pm_container_map(weak, 0, 1, PAGE(REGION_2, 50), LAZY_READ_WRITE))) pm_sleep(2000);
    CHECK_ERROR(error, PM_ECANCELED);
    while (!read_faults(REGION_2)) pm_sleep(2000);
    return;
  }
  set_up(3, PM_CAP_NONE);
  ask(0, weak);
}

PM_TEST(server_dies, 0, 2, "R21, R42: the server ends in the middle: the client's data and charge are unchanged") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(10);
    pm_container_t copies = make_container(0);
    CHECK_OK(pm_container_copy(weak, 0, copies, 0, 10, NULL));
    WORD(REGION_2, 3) = 33;
    (void)message;
    pm_exit(0);
  }
  set_up(10, PM_CAP_NONE);
  uint64_t before = allocated_frames();
  struct pm_message message = {.caps = {weak}};
  CHECK_ERROR(pm_call(partner, &message, LONG_US), PM_ECANCELED);
  CHECK_EQ(allocated_frames(), before);
  CHECK_EQ(WORD(REGION, 3), 33);
  WORD(REGION, 3) = 103;
  check_numbered(REGION, 10, 100);
  for (uint32_t i = 0; i < 10; i++) WORD(REGION, i) = i;
  check_numbered(REGION, 10, 0);
  CHECK_OK(pm_container_destroy(container));
}

// ---- restricted capabilities ----------------------------------------------------------------------------------

PM_TEST(for_one_task, 0, 3, "R20: a capability for one task: others can pass it on, but not use it") {
  unsigned number = join(3);
  if (number == 0) {
    // Answers the client's question with the permitted task; then the other task sends the capability.
    struct pm_message messages[2] = {next_question(), next_question()};
    int owner = messages[0].words[0] == 1 ? 0 : 1;
    answer(&messages[owner], 0, PM_CAP_SELF);
    struct pm_message message = next_question();
    CHECK(message.caps[0] != 0);
    answer(&messages[!owner], 0, message.caps[0]);
    struct pm_message passed = next_question();
    weak = passed.caps[0];
    CHECK_OK(pm_container_map(weak, 0, 2, REGION_2, LAZY_READ_WRITE));
    check_numbered(REGION_2, 2, 100);
    answer(&passed, 0, PM_CAP_NONE);
    return answer(&message, 0, PM_CAP_NONE);
  }
  struct pm_message message = ask(number, PM_CAP_NONE);
  if (number == 1) {
    set_up(2, message.caps[0]);
    CHECK_ERROR(pm_container_map(weak, 0, 2, REGION_2, LAZY_READ_WRITE), PM_EPERM);
    ask(0, weak);
    return;
  }
  weak = message.caps[0];
  uint64_t physical;
  CHECK_ERROR(pm_container_map(weak, 0, 1, REGION_2, PM_MAP_READ), PM_EPERM);
  CHECK_ERROR(pm_container_copy(weak, 0, make_container(1), 0, 1, NULL), PM_EPERM);
  CHECK_ERROR(pm_container_copy(make_container(1), 0, weak, 0, 1, NULL), PM_EPERM);
  CHECK_ERROR(pm_container_lock(weak, 1000), PM_EPERM);
  CHECK_ERROR(pm_container_pin(weak, 0, 1, 1000, &physical), PM_EPERM);
  ask(0, weak);
}

PM_TEST(for_endpoint, 0, 2, "R20: a capability restricted to the creator of an endpoint") {
  if (!join(2)) {
    struct pm_message message = receive_and_map(2);
    check_numbered(REGION_2, 2, 100);
    return answer(&message, 0, PM_CAP_NONE);
  }
  set_up(2, partner);
  CHECK_ERROR(pm_container_map(weak, 0, 2, REGION_2, LAZY_READ_WRITE), PM_EPERM);
  ask(0, weak);
}

PM_TEST(passed_on, 0, 4, "R20: an unrestricted capability is passed from task to task, and back to its owner") {
  unsigned number = join(4);
  if (number == 0) {
    struct pm_message messages[4] = {};
    for (int i = 0; i < 3; i++) {
      struct pm_message message = next_question();
      messages[message.words[0]] = message;
    }
    pm_cap_t cap = messages[1].caps[0];
    for (int i = 2; i <= 3; i++) {
      answer(&messages[i], 0, cap);
      struct pm_message message = next_question();
      cap = message.caps[0];
      answer(&message, 0, PM_CAP_NONE);
    }
    return answer(&messages[1], 0, cap);
  }
  if (number == 1) {
    set_up(4, PM_CAP_NONE);
    weak = ask(number, weak).caps[0];
    CHECK_EQ(WORD(REGION, 2), 2);
    CHECK_EQ(WORD(REGION, 3), 3);
    CHECK_OK(pm_container_map(weak, 0, 4, REGION_2, LAZY_READ_WRITE));
    CHECK_EQ(WORD(REGION_2, 3), 3);
    return;
  }
  weak = ask(number, PM_CAP_NONE).caps[0];
  CHECK_OK(pm_container_map(weak, 0, 4, REGION_2, LAZY_READ_WRITE));
  WORD(REGION_2, number) = number;
  ask(number, weak);
}

PM_TEST(cycle, 0, 2, "Safety: two tasks share with each other, map each other's frames, and end at the same time") {
  bool is_server = !join(2);
  set_up(20, PM_CAP_NONE);
  pm_container_t others;
  if (is_server) {
    struct pm_message message = next_question();
    others = message.caps[0];
    answer(&message, 0, weak);
  } else {
    others = ask(0, weak).caps[0];
  }
  // From here on the other task may have ended. Copies of copies, both ways.
  if (pm_container_map(others, 0, 20, REGION_2, LAZY_READ_WRITE)) return;
  (void)pm_container_copy(container, 0, others, 0, 10, NULL);
  (void)pm_container_copy(others, 5, container, 10, 10, NULL);
  CHECK_OK(pm_on_fault(leave_quietly));
  for (int i = 0; i < 20; i++) (void)*(volatile char *)PAGE(REGION, i);
  WORD(REGION_2, 0)++;
}

PM_TEST(swarm, 0, 16, "R20, Safety: 15 clients share with one server, which copies from each to each") {
  enum { CLIENTS = 15 };
  unsigned number = join(CLIENTS + 1);
  if (number == 0) {
    struct pm_message messages[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) messages[i] = next_question();
    // Page 1 of each becomes page 0 of the next.
    for (int i = 0; i < CLIENTS; i++)
      CHECK_OK(pm_container_copy(messages[i].caps[0], 0, messages[(i + 1) % CLIENTS].caps[0], 1, 1, NULL));
    for (int i = 0; i < CLIENTS; i++) answer(&messages[i], messages[(i + CLIENTS - 1) % CLIENTS].words[0], 0);
    return;
  }
  set_up(2, PM_CAP_NONE);
  WORD(REGION, 0) = number;
  uint64_t neighbour = ask(number, weak).words[0];
  CHECK_EQ(WORD(REGION, 0), number);
  CHECK_EQ(WORD(REGION, 1), neighbour);
  WORD(REGION, 1) = DONE;
  WORD(REGION, 0) = DONE;
}
