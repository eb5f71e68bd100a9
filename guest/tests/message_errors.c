// Messages that cannot be sent, received or answered, and buffers that cannot hold them.
#include "test.h"

static pm_cap_t own_endpoint(void) {
  pm_cap_t endpoint = 0;
  CHECK_OK(pm_endpoint_create(&endpoint));
  CHECK(endpoint != 0);
  return endpoint;
}

PM_TEST(no_endpoint, 0, 1, "Safety: calls and receives with handles that are not endpoints") {
  pm_container_t container = map_numbered(REGION, 1, 5), weak;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  uint64_t state = 77;
  pm_cap_t bad[20] = {PM_CAP_NONE, PM_CAP_SELF, PM_CAP_CONTAINER, container, weak, 0x10003, UINT32_MAX};
  for (int i = 7; i < 20; i++) bad[i] = (pm_cap_t)next_random(&state) | 0x100;
  for (int i = 0; i < 20; i++) {
    struct pm_message message = {.words = {1}};
    CHECK_ERROR(pm_call(bad[i], &message, PM_FOREVER), PM_EINVAL);
    CHECK_ERROR(pm_receive(bad[i], &message, PM_FOREVER), PM_EINVAL);
    CHECK_ERROR(pm_name_register("name", bad[i]), PM_EINVAL);
    CHECK_EQ(message.words[0], 1);
  }
}

PM_TEST(oneself, 0, 1, "Safety: a call to the task's own endpoint") {
  pm_cap_t own = own_endpoint(), other;
  struct pm_message message = {.words = {1}};
  CHECK_ERROR(pm_call(own, &message, PM_FOREVER), PM_EINVAL);
  CHECK_ERROR(pm_call(own, &message, 0), PM_EINVAL);
  CHECK_OK(pm_name_register("own", own));
  CHECK_OK(pm_name_lookup("own", &other, 0));
  CHECK_ERROR(pm_call(other, &message, PM_FOREVER), PM_EINVAL);
  CHECK_ERROR(pm_receive(other, &message, PM_FOREVER), PM_EPERM);
  CHECK_ERROR(pm_receive(own, &message, 0), PM_ETIMEDOUT);
}

PM_TEST(not_ones_own, 0, 2, "R20: only the task that created an endpoint receives on it, or names it") {
  if (!join(2)) {
    struct pm_message message = next_question();
    return answer(&message, 0, 0);
  }
  struct pm_message message = {.words = {1}};
  CHECK_ERROR(pm_receive(partner, &message, PM_FOREVER), PM_EPERM);
  message.reply = 0;
  CHECK(pm_reply_receive(partner, &message, 0) != PM_OK);
  CHECK_ERROR(pm_name_register("mine", partner), PM_EINVAL);
  ask(0, 0);
}

PM_TEST(forged_replies, 0, 3,
        "Safety: replies to calls that never existed, are another task's, or are answered already") {
  unsigned number = join(3);
  if (number == 0) {
    struct pm_message message = next_question(), other = next_question(), forged = {.words = {666}};
    if (message.words[0] == 2) {
      struct pm_message first = message;
      message = other;
      other = first;
    }
    uint64_t state = 13;
    for (int i = 0; i < 1000; i++) {
      forged.reply = next_random(&state) >> (i % 64);
      if (forged.reply != message.reply) CHECK_ERROR(pm_reply(&forged), PM_EINVAL);
    }
    for (int64_t i = -100; i <= 100; i++) {
      forged.reply = message.reply + (uint64_t)i;
      if (i) CHECK_ERROR(pm_reply(&forged), PM_EINVAL);
      forged.reply = message.reply ^ 1ull << (i & 63);
      CHECK_ERROR(pm_reply(&forged), PM_EINVAL);
    }
    // The other client answers in the server's place.
    answer(&other, message.reply, 0);
    other = next_question();
    answer(&message, 5, 0);
    CHECK_ERROR(pm_reply(&message), PM_EINVAL);
    answer(&other, 0, 0);
    return;
  }
  if (number == 1) return CHECK_EQ(ask(1, 0).words[0], 5);
  struct pm_message forged = {.words = {666}, .reply = ask(2, 0).words[0]};
  CHECK_ERROR(pm_reply(&forged), PM_EINVAL);
  ask(3, 0);
}

// ---- buffers --------------------------------------------------------------------------------

static const uint64_t wild[] = {0,           1,          0x1000,     0x100000000000,     PM_USER_END - 8,
                                PM_USER_END, UINT64_MAX, 0xffffffff, 0xffff800000000000, 0x4141414141414141};

PM_TEST(wild_buffers, 0, 2, "Safety: messages at addresses that the task cannot use; nothing is sent") {
  if (!join(2)) {
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
      struct pm_message *bad = (struct pm_message *)wild[i];
      CHECK_ERROR(pm_receive(partner, bad, 0), PM_EFAULT);
      CHECK_ERROR(pm_receive(partner, bad, PM_FOREVER), PM_EFAULT);
      CHECK_ERROR(pm_reply(bad), PM_EFAULT);
      CHECK_ERROR(pm_reply_receive(partner, bad, PM_FOREVER), PM_EFAULT);
    }
    struct pm_message message = next_question();
    CHECK_EQ(message.words[0], 4);
    return answer(&message, 0, 0);
  }
  for (size_t i = 0; i < sizeof wild / sizeof *wild; i++)
    CHECK_ERROR(pm_call(partner, (struct pm_message *)wild[i], PM_FOREVER), PM_EFAULT);
  ask(4, 0);
}

PM_TEST(read_only_buffer, 0, 2,
        "Safety: a message in a read-only page: the reply cannot be stored, so it is not sent") {
  pm_container_t container = make_container(1);
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_READ));
  if (!join(2)) {
    CHECK_ERROR(pm_receive(partner, (struct pm_message *)REGION, PM_FOREVER), PM_EFAULT);
    struct pm_message message = next_question();
    CHECK_EQ(message.words[0], 4);
    return answer(&message, 0, 0);
  }
  CHECK_ERROR(pm_call(partner, (struct pm_message *)REGION, PM_FOREVER), PM_EFAULT);
  ask(4, 0);
}

PM_TEST(across_pages, 0, 2, "Safety: messages across the boundary of two pages, at every offset") {
  bool is_server = !join(2);
  map_fresh(REGION, 3);
  for (size_t offset = 0; offset <= sizeof(struct pm_message); offset++) {
    char *at = PAGE(REGION, 1) - offset;
    struct pm_message message;
    if (is_server) {
      CHECK_OK(pm_receive(partner, (struct pm_message *)(void *)at, LONG_US));
      memcpy(&message, at, sizeof message);
      CHECK_EQ(message.words[0], offset);
      CHECK_EQ(message.words[7], ~offset);
      message.words[7] = 7 * offset;
      memcpy(at, &message, sizeof message);
      CHECK_OK(pm_reply((struct pm_message *)(void *)at));
    } else {
      message = (struct pm_message){.words = {offset, 0, 0, 0, 0, 0, 0, ~offset}};
      memcpy(at, &message, sizeof message);
      CHECK_OK(pm_call(partner, (struct pm_message *)(void *)at, LONG_US));
      memcpy(&message, at, sizeof message);
      CHECK_EQ(message.words[7], 7 * offset);
    }
  }
}

PM_TEST(at_the_edge, 0, 2, "Safety: messages that end with their page, and one byte beyond it") {
  bool is_server = !join(2);
  map_fresh(REGION, 1);
  struct pm_message *last = (struct pm_message *)PAGE(REGION, 1) - 1, *beyond = (struct pm_message *)((char *)last + 1);
  if (is_server) {
    CHECK_ERROR(pm_receive(partner, beyond, PM_FOREVER), PM_EFAULT);
    CHECK_OK(pm_receive(partner, last, LONG_US));
    CHECK_EQ(last->words[0], 3);
    CHECK_OK(pm_reply(last));
    return;
  }
  CHECK_ERROR(pm_call(partner, beyond, PM_FOREVER), PM_EFAULT);
  last->words[0] = 3;
  CHECK_OK(pm_call(partner, last, LONG_US));
}

PM_TEST(untouched_buffers, 0, 2, "R16, R26: buffers in untouched lazy pages, and in pages that are shared copies") {
  bool is_server = !join(2);
  pm_container_t container = map_fresh(REGION, 2), copies = make_container(0);
  WORD(REGION, 1) = 42;
  CHECK_OK(pm_container_copy(container, 1, copies, 0, 1, NULL));
  for (int i = 0; i < 2; i++) {
    struct pm_message *message = (struct pm_message *)PAGE(REGION, i);
    if (is_server) {
      CHECK_OK(pm_receive(partner, message, LONG_US));
      CHECK_EQ(message->words[0], i ? 42 : 0);
      message->words[0] = 5;
      CHECK_OK(pm_reply(message));
    } else {
      CHECK_OK(pm_call(partner, message, LONG_US));
      CHECK_EQ(message->words[0], 5);
    }
  }
  map_lazily(copies, 0, 1, REGION_2);
  CHECK_EQ(WORD(REGION_2, 0), 42);
  CHECK(is_zero(REGION_2 + 8, PM_PAGE_SIZE - 8));
}

PM_TEST(buffer_goes_away, 0, 2, "Safety: the caller's buffer is the server's frame, which it frees: PM_EFAULT") {
  if (!join(2)) {
    pm_container_t container = make_container(1), weak;
    CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
    struct pm_message message = next_question();
    answer(&message, 0, weak);
    message = next_question();
    CHECK_OK(pm_container_revoke(container));
    (void)pm_reply(&message);
    message = next_question();
    // This frame is freed before the message is even received.
    return answer(&message, 0, 0);
  }
  pm_container_t weak = ask(0, 0).caps[0];
  map_lazily(weak, 0, 1, REGION);
  struct pm_message *message = (struct pm_message *)REGION;
  CHECK_ERROR(pm_call(partner, message, LONG_US), PM_EFAULT);
  ask(0, 0);
}

PM_TEST(queued_buffer_goes_away, 0, 2, "Safety: the same before the server has received the call") {
  if (!join(2)) {
    pm_container_t container = make_container(1), weak;
    CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
    struct pm_message message = next_question();
    answer(&message, 0, weak);
    message = next_question();
    answer(&message, 0, PM_CAP_NONE);
    // The call is queued by now, or comes later.
    pm_sleep(50000);
    CHECK_OK(pm_container_revoke(container));
    message = next_question();
    CHECK_EQ(message.words[0], 8);
    return answer(&message, 0, 0);
  }
  map_lazily(ask(0, 0).caps[0], 0, 1, REGION);
  ask(7, 0);
  CHECK_ERROR(pm_call(partner, (struct pm_message *)REGION, LONG_US), PM_EFAULT);
  ask(8, 0);
}

PM_TEST(receiver_buffer_goes_away, 0, 2, "Safety: the receiver's buffer is a freed frame: the call stays queued") {
  if (!join(2)) {
    struct pm_message message = next_question();
    map_lazily(message.caps[0], 0, 1, REGION);
    answer(&message, 0, 0);
    CHECK_ERROR(pm_receive(partner, (struct pm_message *)REGION, LONG_US), PM_EFAULT);
    message = next_question();
    CHECK_EQ(message.words[0], 9);
    return answer(&message, 0, 0);
  }
  pm_container_t container = make_container(1), weak;
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  ask(0, weak);
  // The server waits by now.
  pm_sleep(50000);
  CHECK_OK(pm_container_revoke(container));
  ask(9, 0);
}

PM_TEST(endpoint_results, 0, 1, "Safety: a handle that cannot be stored: PM_EFAULT, and none is lost") {
  pm_container_t container = make_container(1);
  CHECK_OK(pm_container_map(container, 0, 1, REGION, PM_MAP_READ));
  for (int i = 0; i < 1000; i++) CHECK_ERROR(pm_endpoint_create((pm_cap_t *)REGION), PM_EFAULT);
  CHECK_ERROR(pm_endpoint_create(NULL), PM_EFAULT);
  // The low half of a handle is its index in the table.
  CHECK((own_endpoint() & 0xffff) < 100);
}

PM_TEST(endpoints_without_end, 0, 1,
        "Safety: creating endpoints without end fails with PM_ENOMEM at worst, and they can be dropped") {
  static pm_cap_t made[70000];
  pm_error_t error = PM_OK;
  int count = 0;
  while (count < 70000 && !(error = pm_endpoint_create(&made[count]))) count++;
  CHECK_ERROR(error, PM_ENOMEM);
  CHECK(count >= 1000);
  for (int i = 0; i < 1000; i++) CHECK_OK(pm_cap_drop(made[i]));
  CHECK_ERROR(pm_cap_drop(made[0]), PM_EINVAL);
  own_endpoint();
}

PM_TEST(random_calls, 0, 4, "Safety: message calls with random arguments are harmless") {
  uint64_t state = pm_clock_us() | 1;
  map_fresh(REGION, 4);
  pm_cap_t own = own_endpoint();
  for (int i = 0; i < 3000; i++) {
    uint64_t number = PM_CALL_ENDPOINT_CREATE + next_random(&state) % 8, argument[3];
    for (int j = 0; j < 3; j++) {
      uint64_t random = next_random(&state);
      const uint64_t kinds[] = {random, random % 8, own, (uint64_t)REGION + random % 0x5000, -(random % 4096)};
      argument[j] = kinds[(random >> 32) % 5];
    }
    // Waiting is not tested here; the initial container must stay.
    argument[2] %= 2;
    (void)raw_call(number, argument[0], argument[1], argument[2], 0, 0);
  }
  map_fresh(REGION_2, 4);
  fill_pages(REGION_2, 4, 1);
  check_pages(REGION_2, 4, 1);
}
