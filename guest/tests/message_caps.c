// Capabilities in messages: copied, moved, and those that cannot be sent (R20).
#include "test.h"

static pm_cap_t new_endpoint(void) {
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  return endpoint;
}

static pm_error_t call(struct pm_message *message) { return pm_call(partner, message, LONG_US); }

PM_TEST(copied, 0, 2, "R20: four capabilities are sent and stay with the sender; each task has its own handles") {
  if (!join(2)) {
    // Makes the two tasks' handles differ.
    for (int i = 0; i < 5; i++) new_endpoint();
    struct pm_message message = next_question();
    for (int i = 0; i < 3; i++) {
      CHECK(message.caps[i] != 0);
      CHECK_OK(pm_container_map(message.caps[i], 0, 1, PAGE(REGION, i), LAZY_READ_WRITE));
      CHECK_EQ(WORD(REGION, i), 100 + i);
    }
    CHECK_EQ(message.moves, 0);
    struct pm_message question = {};
    CHECK_ERROR(pm_call(message.caps[3], &question, 1000), PM_ETIMEDOUT);
    return answer(&message, 0, 0);
  }
  struct pm_message message = {};
  for (uint32_t i = 0; i < 3; i++)
    CHECK_OK(pm_container_share(map_numbered(PAGE(REGION, i), 1, 100 + i), PM_CAP_NONE, &message.caps[i]));
  message.caps[3] = new_endpoint();
  const struct pm_message sent = message;
  CHECK_OK(call(&message));
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(message.caps[i], 0);
    CHECK_OK(pm_cap_drop(sent.caps[i]));
  }
}

PM_TEST(moved, 0, 2, "R20: a moved capability is the receiver's, and the sender's handle is invalid") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_OK(pm_container_map(message.caps[0], 0, 1, REGION, LAZY_READ_WRITE));
    CHECK_OK(pm_container_map(message.caps[1], 0, 1, REGION_2, LAZY_READ_WRITE));
    CHECK_EQ(WORD(REGION, 0) + WORD(REGION_2, 0), 3);
    // And back.
    message.moves = 3;
    pm_container_t first = message.caps[0];
    CHECK_OK(pm_reply(&message));
    CHECK_ERROR(pm_cap_drop(first), PM_EINVAL);
    return;
  }
  struct pm_message message = {.moves = 1};
  CHECK_OK(pm_container_share(map_numbered(REGION, 1, 1), PM_CAP_NONE, &message.caps[0]));
  CHECK_OK(pm_container_share(map_numbered(PAGE(REGION, 1), 1, 2), PM_CAP_NONE, &message.caps[1]));
  pm_container_t first = message.caps[0], second = message.caps[1];
  CHECK_OK(call(&message));
  CHECK_ERROR(pm_container_map(first, 0, 1, REGION_2, PM_MAP_READ), PM_EINVAL);
  CHECK_OK(pm_container_map(second, 0, 1, REGION_2, PM_MAP_READ));
  CHECK_OK(pm_container_map(message.caps[0], 0, 1, REGION_2, PM_MAP_READ));
  CHECK_EQ(WORD(REGION_2, 0), 1);
  CHECK(message.caps[1] != 0);
}

PM_TEST(moved_twice, 0, 2, "Safety: one capability moved twice in one message, or moved and copied, is sent once") {
  if (!join(2)) {
    for (int i = 0; i < 2; i++) {
      struct pm_message message = next_question();
      CHECK(message.caps[0] != 0);
      CHECK_EQ(message.caps[1], 0);
      CHECK_EQ(message.caps[2], 0);
      CHECK_OK(pm_container_map(message.caps[0], 0, 1, REGION, LAZY_READ_WRITE));
      answer(&message, 0, 0);
    }
    return;
  }
  pm_container_t container = map_numbered(REGION, 1, 1), weak;
  for (uint32_t all = 0; all < 2; all++) {
    CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
    struct pm_message message = {.caps = {weak, weak, weak}, .moves = all ? 7 : 1};
    CHECK_OK(call(&message));
    CHECK_ERROR(pm_cap_drop(weak), PM_EINVAL);
  }
}

PM_TEST(twice, 0, 2, "R20: one capability copied twice arrives twice") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK(message.caps[0] && message.caps[3] && message.caps[0] != message.caps[3]);
    CHECK_OK(pm_cap_drop(message.caps[0]));
    CHECK_OK(pm_container_map(message.caps[3], 0, 1, REGION, LAZY_READ_WRITE));
    return answer(&message, 0, 0);
  }
  struct pm_message message = {};
  CHECK_OK(pm_container_share(map_numbered(REGION, 1, 1), PM_CAP_NONE, &message.caps[0]));
  message.caps[3] = message.caps[0];
  CHECK_OK(call(&message));
}

PM_TEST(endpoint_copied, 0, 2, "R20: a copy of an endpoint's capability can call, but not receive") {
  if (!join(2)) {
    struct pm_message message = next_question(), question = {.words = {5}};
    pm_cap_t copy = message.caps[0];
    CHECK_ERROR(pm_receive(copy, &question, 0), PM_EPERM);
    CHECK_ERROR(pm_name_register("copy", copy), PM_EINVAL);
    answer(&message, 0, 0);
    CHECK_OK(pm_call(copy, &question, LONG_US));
    return CHECK_OK(pm_cap_drop(copy));
  }
  pm_cap_t own = new_endpoint();
  ask(0, own);
  struct pm_message message;
  CHECK_OK(pm_receive(own, &message, LONG_US));
  CHECK_EQ(message.words[0], 5);
  CHECK_OK(pm_reply(&message));
}

PM_TEST(endpoint_moved, 0, 2, "R20: the new owner of a moved endpoint receives on it, and it keeps its name") {
  if (!join(2)) {
    struct pm_message message = next_question();
    pm_cap_t moved = message.caps[0];
    CHECK_ERROR(pm_call(moved, &message, 0), PM_EINVAL);
    answer(&message, 0, 0);
    CHECK_OK(pm_receive(moved, &message, LONG_US));
    CHECK_EQ(message.words[0], 6);
    CHECK_OK(pm_reply(&message));
    CHECK_OK(pm_cap_drop(moved));
    message = next_question();
    return answer(&message, 0, 0);
  }
  pm_cap_t own = new_endpoint(), other;
  CHECK_OK(pm_name_register("moved", own));
  struct pm_message message = {.caps = {own}, .moves = 1};
  CHECK_OK(call(&message));
  CHECK_ERROR(pm_receive(own, &message, 0), PM_EINVAL);
  CHECK_OK(pm_name_lookup("moved", &other, 0));
  message = (struct pm_message){.words = {6}};
  CHECK_OK(pm_call(other, &message, LONG_US));
  ask(0, 0);
  CHECK_ERROR(pm_call(other, &message, LONG_US), PM_ECANCELED);
  CHECK_ERROR(pm_name_lookup("moved", &own, 0), PM_ENOENT);
}

PM_TEST(endpoint_moved_with_callers, 0, 3, "R20: callers that wait at an endpoint move with it to its new owner") {
  unsigned number = join(3);
  if (number == 0) {
    pm_cap_t own = new_endpoint();
    CHECK_OK(pm_name_register("busy", own));
    struct pm_message message = next_question();
    pm_sleep(50000);
    // The other client waits there by now.
    message.caps[0] = own;
    message.moves = 1;
    CHECK_OK(pm_reply(&message));
    message = next_question();
    return answer(&message, 0, 0);
  }
  struct pm_message message = {.words = {7}};
  if (number == 1) {
    pm_cap_t busy;
    CHECK_OK(pm_name_lookup("busy", &busy, LONG_US));
    CHECK_OK(pm_call(busy, &message, LONG_US));
    return CHECK_EQ(message.words[0], 8);
  }
  pm_cap_t moved = ask(0, 0).caps[0];
  CHECK_OK(pm_receive(moved, &message, LONG_US));
  CHECK_EQ(message.words[0], 7);
  message.words[0]++;
  CHECK_OK(pm_reply(&message));
  ask(0, 0);
}

PM_TEST(self, 0, 2, "R20: PM_CAP_SELF, copied or moved, names the sender, for sharing only") {
  if (!join(2)) {
    for (int i = 0; i < 2; i++) {
      struct pm_message message = next_question();
      pm_cap_t client = message.caps[0], weak;
      CHECK(client != 0 && client != PM_CAP_SELF);
      CHECK_ERROR(pm_receive(client, &message, 0), PM_EINVAL);
      CHECK_ERROR(pm_container_destroy(client), PM_EINVAL);
      CHECK_OK(pm_container_share(map_numbered(PAGE(REGION, i), 1, 30), client, &weak));
      CHECK_ERROR(pm_container_map(weak, 0, 1, REGION_2, PM_MAP_READ), PM_EPERM);
      answer(&message, 0, weak);
      CHECK_OK(pm_cap_drop(client));
    }
    struct pm_message message = next_question();
    return answer(&message, 0, 0);
  }
  for (uint32_t i = 0; i < 2; i++) {
    struct pm_message message = {.caps = {PM_CAP_SELF}, .moves = i};
    CHECK_OK(call(&message));
    CHECK_OK(pm_container_map(message.caps[0], 0, 1, REGION_2, PM_MAP_READ));
    CHECK_EQ(WORD(REGION_2, 0), 30);
    CHECK_ERROR(pm_cap_drop(PM_CAP_SELF), PM_EPERM);
  }
  ask(0, 0);
}

PM_TEST(do_not_travel, 0, 2, "R20: owned containers: PM_EPERM; unknown handles: PM_EINVAL; nothing is sent") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_EQ(message.words[0], 4);
    pm_container_t own = make_container(1);
    message.caps[0] = own;
    CHECK_ERROR(pm_reply(&message), PM_EPERM);
    message.caps[0] = 4321;
    CHECK_ERROR(pm_reply(&message), PM_EINVAL);
    CHECK_ERROR(pm_reply_receive(partner, &message, 0), PM_EINVAL);
    message.caps[0] = 0;
    message.words[0] = 5;
    return CHECK_OK(pm_reply(&message));
  }
  pm_container_t container = map_numbered(REGION, 1, 1), weak;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  for (uint32_t moves = 0; moves < 16; moves++) {
    struct pm_message message = {.caps = {weak, PM_CAP_SELF, 0, container}, .moves = moves};
    CHECK_ERROR(call(&message), PM_EPERM);
    message.caps[3] = PM_CAP_CONTAINER;
    CHECK_ERROR(call(&message), PM_EPERM);
    message.caps[3] = 4321;
    CHECK_ERROR(call(&message), PM_EINVAL);
    message.caps[3] = UINT32_MAX;
    CHECK_ERROR(call(&message), PM_EINVAL);
    CHECK_OK(pm_container_map(weak, 0, 1, REGION_2, PM_MAP_READ));
  }
  CHECK_EQ(ask(4, 0).words[0], 5);
}

PM_TEST(odd_moves, 0, 2, "Safety: bits of `moves` beyond the capabilities, and for empty ones") {
  if (!join(2)) {
    struct pm_message message = next_question();
    for (int i = 0; i < 4; i++) CHECK_EQ(message.caps[i], 0);
    return answer(&message, 0, 0);
  }
  struct pm_message message = {.moves = UINT32_MAX, .reserved = UINT32_MAX};
  CHECK_OK(call(&message));
}

PM_TEST(withdrawn, 0, 2, "R20: a call that was not received has moved nothing") {
  if (!join(2)) {
    pm_cap_t unheard;
    CHECK_OK(pm_endpoint_create(&unheard));
    struct pm_message message = next_question(), none;
    answer(&message, 0, unheard);
    message = next_question();
    CHECK(message.caps[0] != 0);
    CHECK_ERROR(pm_receive(unheard, &none, 0), PM_ETIMEDOUT);
    return answer(&message, 0, 0);
  }
  pm_container_t weak;
  CHECK_OK(pm_container_share(map_numbered(REGION, 1, 1), PM_CAP_NONE, &weak));
  pm_cap_t unheard = ask(0, 0).caps[0];
  struct pm_message message = {.caps = {weak}, .moves = 1};
  CHECK_ERROR(pm_call(unheard, &message, 10000), PM_ETIMEDOUT);
  CHECK_OK(pm_container_map(weak, 0, 1, REGION_2, PM_MAP_READ));
  ask(1, weak);
}

// A table has 65,536 entries. The server fills all but a few itself, by calls that wait for no other task: the client
// would need 16,000 calls for them, each with two context switches of the host.
#define TAKEN_ALREADY 64000

PM_TEST(no_room, 0, 2,
        "Safety: a client fills its server's table; a capability without room arrives as 0 and is not moved") {
  if (!join(2)) {
    pm_container_t own = make_container(0), weak;
    for (int i = 0; i < TAKEN_ALREADY; i++) CHECK_OK(pm_container_share(own, PM_CAP_NONE, &weak));
    uint64_t got = 0;
    struct pm_message message = next_question();
    while (message.words[0]) {
      for (int i = 0; i < 4; i++) got += message.caps[i] != 0;
      message = (struct pm_message){.words = {got}, .reply = message.reply};
      CHECK_OK(pm_reply_receive(partner, &message, LONG_US));
    }
    CHECK_EQ(message.caps[0], 0);
    pm_cap_t endpoint;
    CHECK_ERROR(pm_endpoint_create(&endpoint), PM_ENOMEM);
    CHECK_ERROR(pm_container_create(&endpoint), PM_ENOMEM);
    answer(&message, got, 0);
    CHECK_OK(pm_cap_drop(partner));
  } else {
    pm_container_t weak;
    CHECK_OK(pm_container_share(map_numbered(REGION, 1, 1), PM_CAP_NONE, &weak));
    for (int i = 0; i < 400; i++) {
      struct pm_message message = {.words = {1}, .caps = {weak, weak, weak, weak}};
      // The first waits until the server has filled its entries, however long that takes.
      CHECK_OK(pm_call(partner, &message, PM_FOREVER));
    }
    struct pm_message message = {.caps = {weak}, .moves = 1};
    CHECK_OK(call(&message));
    // Each task has three entries, and the server an endpoint and a container.
    CHECK_EQ(message.words[0], 65536 - TAKEN_ALREADY - 5);
    CHECK_OK(pm_container_map(weak, 0, 1, REGION_2, PM_MAP_READ));
  }
}

// ---- pm_cap_drop ----------------------------------------------------------------------------

PM_TEST(drop, 0, 1, "R15, R20: every handle can be dropped once, except the task and its initial container") {
  CHECK_ERROR(pm_cap_drop(PM_CAP_SELF), PM_EPERM);
  CHECK_ERROR(pm_cap_drop(PM_CAP_CONTAINER), PM_EPERM);
  CHECK_ERROR(pm_cap_drop(PM_CAP_NONE), PM_EINVAL);
  CHECK_ERROR(pm_cap_drop(4321), PM_EINVAL);
  uint64_t before = allocated_frames();
  pm_container_t container = map_numbered(REGION, 5, 1), weak;
  pm_cap_t endpoint = new_endpoint();
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  const pm_cap_t all[] = {weak, endpoint, container};
  for (int i = 0; i < 3; i++) {
    CHECK_OK(pm_cap_drop(all[i]));
    CHECK_ERROR(pm_cap_drop(all[i]), PM_EINVAL);
  }
  CHECK_EQ(allocated_frames(), before);
  CHECK(read_faults(REGION));
}

PM_TEST(drop_and_make, 0, 1, "Safety: 5,000 handles in turn; none works after it was dropped") {
  pm_cap_t old = new_endpoint();
  CHECK_OK(pm_cap_drop(old));
  for (int i = 0; i < 5000; i++) {
    pm_cap_t endpoint = new_endpoint();
    CHECK(endpoint != old);
    CHECK_OK(pm_cap_drop(endpoint));
  }
  CHECK_ERROR(pm_cap_drop(old), PM_EINVAL);
}
