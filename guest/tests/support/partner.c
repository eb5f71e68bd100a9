// The tasks of one case find each other by a name: the first to register it is the server.
#include "../test.h"

#define NAME "partner"

pm_cap_t partner;

unsigned join(unsigned copies) {
  CHECK_OK(pm_endpoint_create(&partner));
  pm_error_t error = pm_name_register(NAME, partner);
  if (error != PM_EEXIST) {
    CHECK_OK(error);
    struct pm_message hellos[63];
    CHECK(copies - 1 < 64);
    for (unsigned i = 0; i < copies - 1; i++) hellos[i] = next_question();
    // Answers only when all have arrived, so that none is left waiting when the first one ends.
    for (unsigned i = 0; i < copies - 1; i++) answer(&hellos[i], i + 1, PM_CAP_NONE);
    return 0;
  }
  CHECK_OK(pm_cap_drop(partner));
  CHECK_OK(pm_name_lookup(NAME, &partner, LONG_US));
  return (unsigned)ask(0, PM_CAP_NONE).words[0];
}

struct pm_message ask(uint64_t number, pm_cap_t cap) {
  struct pm_message message = {.words = {number}, .caps = {cap}};
  CHECK_OK(pm_call(partner, &message, LONG_US));
  return message;
}

struct pm_message next_question(void) {
  struct pm_message message;
  CHECK_OK(pm_receive(partner, &message, LONG_US));
  return message;
}

void answer(const struct pm_message *question, uint64_t number, pm_cap_t cap) {
  struct pm_message message = {.words = {number}, .caps = {cap}, .reply = question->reply};
  CHECK_OK(pm_reply(&message));
}
