// Calls to endpoints: replies, timeouts and ends (R20).
#include "test.h"

static uint64_t own_id(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  return info.id;
}

static uint64_t milliseconds_since(uint64_t start) { return (pm_clock_us() - start) / 1000; }

// ---- words and senders ----------------------------------------------------------------------

PM_TEST(words, 0, 2, "R20: all eight words are sent, and eight others come back") {
  if (!join(2)) {
    struct pm_message message = next_question();
    for (uint64_t i = 0; i < PM_MESSAGE_WORDS; i++) CHECK_EQ(message.words[i], 0x0102030405060708 * (i + 1));
    for (uint64_t i = 0; i < PM_MESSAGE_CAPS; i++) CHECK_EQ(message.caps[i], 0);
    for (uint64_t i = 0; i < PM_MESSAGE_WORDS; i++) message.words[i] = ~i;
    return CHECK_OK(pm_reply(&message));
  }
  struct pm_message message = {.sender = 7};
  for (uint64_t i = 0; i < PM_MESSAGE_WORDS; i++) message.words[i] = 0x0102030405060708 * (i + 1);
  CHECK_OK(pm_call(partner, &message, PM_FOREVER));
  for (uint64_t i = 0; i < PM_MESSAGE_WORDS; i++) CHECK_EQ(message.words[i], ~i);
}

PM_TEST(sender, 0, 2, "R20: receiver and caller get the other's true id, whatever the message said") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_EQ(message.sender, message.words[0]);
    CHECK(message.sender != own_id());
    CHECK(message.reply != 0);
    message.words[0] = own_id();
    message.sender = 0;
    return CHECK_OK(pm_reply(&message));
  }
  struct pm_message message = {.words = {own_id()}, .sender = 1, .reply = UINT64_MAX};
  CHECK_OK(pm_call(partner, &message, PM_FOREVER));
  CHECK_EQ(message.sender, message.words[0]);
}

PM_TEST(reply_receive, 0, 4, "R20: three clients call 1,000 times each; the server answers and receives in one call") {
  unsigned number = join(4);
  if (number == 0) {
    struct pm_message message = next_question();
    for (int left = 3 * 1000; --left;) {
      message.words[1] = message.words[0] * 2 + 1;
      CHECK_OK(pm_reply_receive(partner, &message, LONG_US));
    }
    message.words[1] = message.words[0] * 2 + 1;
    return CHECK_OK(pm_reply(&message));
  }
  for (uint64_t i = 0; i < 1000; i++) CHECK_EQ(ask(number * 10000 + i, 0).words[1], (number * 10000 + i) * 2 + 1);
}

PM_TEST(answered_later, 0, 5, "R20: the server may answer several calls in any order") {
  unsigned number = join(5);
  if (number == 0) {
    struct pm_message messages[5];
    for (int i = 0; i < 4; i++) {
      struct pm_message message = next_question();
      messages[message.words[0]] = message;
    }
    for (unsigned i = 4; i >= 1; i--) answer(&messages[i], i * 100, 0);
    return;
  }
  CHECK_EQ(ask(number, 0).words[0], number * 100);
}

PM_TEST(in_turn, 0, 2, "R20: a server calls its client back on an endpoint that the client created") {
  if (!join(2)) {
    struct pm_message message = next_question();
    pm_cap_t back = message.caps[0];
    answer(&message, 0, 0);
    struct pm_message question = {.words = {20}};
    CHECK_OK(pm_call(back, &question, LONG_US));
    return CHECK_EQ(question.words[0], 21);
  }
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  ask(0, endpoint);
  struct pm_message message;
  CHECK_OK(pm_receive(endpoint, &message, LONG_US));
  message.words[0]++;
  CHECK_OK(pm_reply(&message));
}

PM_TEST(relay, 0, 4, "R20: a chain of tasks, each calling the one before it while its own caller waits") {
  unsigned number = join(4);
  char name[] = "relay 0";
  name[6] = (char)('0' + number);
  pm_cap_t own, next;
  struct pm_message message;
  if (number) {
    CHECK_OK(pm_endpoint_create(&own));
    CHECK_OK(pm_name_register(name, own));
  }
  if (number < 3) {
    name[6]++;
    CHECK_OK(pm_name_lookup(name, &next, LONG_US));
  }
  for (uint64_t i = 0; i < 100; i++) {
    if (number) CHECK_OK(pm_receive(own, &message, LONG_US));
    else message = (struct pm_message){.words = {i}};
    uint64_t reply = message.reply;
    message.words[0]++;
    if (number < 3) CHECK_OK(pm_call(next, &message, LONG_US));
    message.reply = reply;
    if (number) CHECK_OK(pm_reply(&message));
    else CHECK_EQ(message.words[0], i + 4);
  }
}

PM_TEST(two_endpoints, 0, 2, "R20: one task with two endpoints receives on each the messages sent to it") {
  if (!join(2)) {
    pm_cap_t second;
    CHECK_OK(pm_endpoint_create(&second));
    struct pm_message message = next_question();
    answer(&message, 0, second);
    CHECK_OK(pm_receive(second, &message, LONG_US));
    CHECK_EQ(message.words[0], 2);
    CHECK_ERROR(pm_receive(partner, &message, 0), PM_ETIMEDOUT);
    return answer(&message, 0, 0);
  }
  struct pm_message message = {.words = {2}};
  pm_cap_t second = ask(0, 0).caps[0];
  CHECK_OK(pm_call(second, &message, LONG_US));
}

// ---- timeouts -----------------------------------------------------------------------------------

PM_TEST(receive_time, 0, 1, "R20: no call: PM_ETIMEDOUT, at once with 0, else after the timeout") {
  struct pm_message message = {.words = {5}};
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  CHECK_ERROR(pm_receive(endpoint, &message, 0), PM_ETIMEDOUT);
  uint64_t start = pm_clock_us();
  CHECK_ERROR(pm_receive(endpoint, &message, 50000), PM_ETIMEDOUT);
  CHECK(milliseconds_since(start) >= 49);
  CHECK_EQ(message.words[0], 5);
}

PM_TEST(call_time, 0, 2, "R20: no receiver: PM_ETIMEDOUT, and the call is withdrawn") {
  if (!join(2)) {
    pm_cap_t second;
    CHECK_OK(pm_endpoint_create(&second));
    struct pm_message message = next_question();
    answer(&message, 0, second);
    // Until the client has tried.
    CHECK_OK(pm_receive(second, &message, LONG_US));
    answer(&message, 0, 0);
    message = next_question();
    CHECK_EQ(message.words[0], 3);
    return answer(&message, 0, 0);
  }
  pm_cap_t second = ask(0, 0).caps[0];
  struct pm_message message = {.words = {1}};
  CHECK_ERROR(pm_call(partner, &message, 0), PM_ETIMEDOUT);
  message.words[0] = 2;
  uint64_t start = pm_clock_us();
  CHECK_ERROR(pm_call(partner, &message, 20000), PM_ETIMEDOUT);
  CHECK(milliseconds_since(start) >= 19);
  CHECK_EQ(message.words[0], 2);
  CHECK_OK(pm_call(second, &message, LONG_US));
  ask(3, 0);
}

enum { UNANSWERED = 1, AFTERWARDS, NOT_RECEIVED = 0 };

/// In the client: a call that the server receives and does not answer in time, and the server's answer to the next one.
static uint64_t time_out(void) {
  uint64_t number = NOT_RECEIVED;
  // On a busy machine the server may receive the call too late.
  for (uint64_t us = 20000; number == NOT_RECEIVED; us *= 2) {
    struct pm_message message = {.words = {UNANSWERED}};
    CHECK_ERROR(pm_call(partner, &message, us), PM_ETIMEDOUT);
    CHECK_EQ(message.words[0], UNANSWERED);
    number = ask(AFTERWARDS, 0).words[0];
  }
  return number;
}

/// In the server: receives that call, and the next one, which comes when its time is up.
static struct pm_message receive_timed_out(struct pm_message *next) {
  struct pm_message first = next_question();
  for (; first.words[0] == AFTERWARDS; first = next_question()) answer(&first, NOT_RECEIVED, 0);
  *next = next_question();
  CHECK_EQ(next->words[0], AFTERWARDS);
  return first;
}

PM_TEST(reply_time, 0, 2, "R20: the server takes too long: PM_ETIMEDOUT for the caller, PM_ECANCELED for the reply") {
  if (join(2)) return CHECK_EQ(time_out(), 4);
  struct pm_message next, message = receive_timed_out(&next), reply = message;
  CHECK_ERROR(pm_reply(&reply), PM_ECANCELED);
  CHECK_ERROR(pm_reply(&reply), PM_EINVAL);
  reply = message;
  CHECK_ERROR(pm_reply_receive(partner, &reply, 0), PM_EINVAL);
  answer(&next, 4, 0);
}

PM_TEST(no_late_reply, 0, 2, "R20: a late reply does not answer the next call") {
  if (join(2)) return CHECK_EQ(time_out(), 222);
  struct pm_message second, first = receive_timed_out(&second);
  first.words[0] = 111;
  CHECK_ERROR(pm_reply(&first), PM_ECANCELED);
  answer(&second, 222, 0);
}

PM_TEST(waiting_receiver, 0, 2, "R20: timeout 0 and a waiting server: the message is delivered") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_EQ(message.words[0], 9);
    message.words[0] = 10;
    (void)pm_reply(&message);
    message = next_question();
    return answer(&message, 0, 0);
  }
  pm_sleep(50000);
  struct pm_message message = {.words = {9}};
  pm_error_t error = pm_call(partner, &message, 0);
  CHECK(error == PM_ETIMEDOUT || message.words[0] == 10);
  ask(1, 0);
}

PM_TEST(each_other, 0, 2, "Safety: two tasks that call each other's endpoints: both time out") {
  pm_cap_t own, others;
  struct pm_message question, message = {0};
  CHECK_OK(pm_endpoint_create(&own));
  bool is_server = !join(2);
  if (is_server) {
    question = next_question();
    others = question.caps[0];
    answer(&question, 0, own);
  } else {
    others = ask(0, own).caps[0];
  }
  for (int i = 0; i < 5; i++) CHECK_ERROR(pm_call(others, &message, 20000), PM_ETIMEDOUT);
  // Neither ends before the other has reached this point.
  if (is_server) {
    question = next_question();
    answer(&question, 0, PM_CAP_NONE);
  } else {
    ask(0, PM_CAP_NONE);
  }
  pm_error_t error = pm_call(others, &message, 30000);
  CHECK(error == PM_ETIMEDOUT || error == PM_ECANCELED);
}

// ---- ends ---------------------------------------------------------------------------------------

PM_TEST(server_ends, 0, 4, "R20, R42: the server ends with one call received and two waiting: PM_ECANCELED") {
  if (!join(4)) {
    struct pm_message message = next_question();
    (void)message;
    pm_sleep(20000);
    return;
  }
  struct pm_message message = {.words = {1}};
  CHECK_ERROR(pm_call(partner, &message, PM_FOREVER), PM_ECANCELED);
  CHECK_ERROR(pm_call(partner, &message, PM_FOREVER), PM_ECANCELED);
  CHECK_ERROR(pm_call(partner, &message, 0), PM_ECANCELED);
}

PM_TEST(server_crashes, 0 or 142, 2, "R42: the server dies of a fault while it works on a call: PM_ECANCELED") {
  if (!join(2)) {
    struct pm_message message = next_question();
    *(volatile uint64_t *)REGION = message.words[0];
  }
  struct pm_message message = {.words = {1}};
  CHECK_ERROR(pm_call(partner, &message, PM_FOREVER), PM_ECANCELED);
}

PM_TEST(endpoint_dropped, 0, 3, "R20: the server drops the endpoint: its callers get PM_ECANCELED") {
  unsigned number = join(3);
  if (number == 0) {
    struct pm_message message = next_question();
    pm_sleep(50000);
    CHECK_OK(pm_cap_drop(partner));
    CHECK_ERROR(pm_receive(partner, &message, 0), PM_EINVAL);
    pm_sleep(50000);
    (void)pm_reply(&message);
    return;
  }
  struct pm_message message = {.words = {1}};
  pm_error_t error = pm_call(partner, &message, PM_FOREVER);
  CHECK(error == PM_OK || error == PM_ECANCELED);
  CHECK_ERROR(pm_call(partner, &message, PM_FOREVER), PM_ECANCELED);
  CHECK_OK(pm_cap_drop(partner));
}

PM_TEST(client_ends, 0, 3, "R20: clients that time out and end while the server works for them: PM_ECANCELED") {
  if (join(3)) return (void)time_out();
  struct pm_message calls[2], message;
  uint64_t senders[2] = {0, 0};
  for (int waiting = 0; waiting < 2;) {
    message = next_question();
    int i = senders[0] == 0 || senders[0] == message.sender ? 0 : 1;
    bool isReceived = senders[i] == message.sender;
    if (message.words[0] == UNANSWERED) {
      senders[i] = message.sender;
      calls[i] = message;
    } else {
      answer(&message, isReceived ? 1 : NOT_RECEIVED, 0);
      waiting += isReceived;
    }
  }
  CHECK_ERROR(pm_reply(&calls[0]), PM_ECANCELED);
  CHECK_ERROR(pm_reply_receive(partner, &calls[1], 0), PM_ECANCELED);
  CHECK_ERROR(pm_receive(partner, &message, 0), PM_ETIMEDOUT);
}

PM_TEST(all_end, 0, 16, "Safety: 16 tasks with outstanding calls to each other end at once") {
  unsigned number = join(16);
  pm_cap_t own;
  struct pm_message message = {.words = {number}};
  CHECK_OK(pm_endpoint_create(&own));
  if (number) {
    (void)pm_call(partner, &message, 5000 * (number % 4));
    return;
  }
  for (int i = 0; i < 8; i++) {
    (void)pm_receive(partner, &message, 10000);
    if (i % 2) (void)pm_reply(&message);
  }
}
