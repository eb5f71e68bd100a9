// Names for endpoints (R20).
#include "test.h"

static pm_cap_t new_endpoint(void) {
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  return endpoint;
}

static bool is_known(const char *name) {
  pm_cap_t endpoint = 0;
  pm_error_t error = pm_name_lookup(name, &endpoint, 0);
  if (error == PM_ENOENT) return false;
  CHECK_OK(error);
  CHECK_OK(pm_cap_drop(endpoint));
  return true;
}

PM_TEST(register_and_look_up, 0, 1, "R20: a name lasts from its registration to the end of its endpoint") {
  CHECK(!is_known("one"));
  pm_cap_t endpoint = new_endpoint();
  CHECK_OK(pm_name_register("one", endpoint));
  CHECK(is_known("one"));
  CHECK(!is_known("on"));
  CHECK(!is_known("one "));
  CHECK_ERROR(pm_name_register("one", endpoint), PM_EEXIST);
  CHECK_ERROR(pm_name_register("one", new_endpoint()), PM_EEXIST);
  CHECK_OK(pm_cap_drop(endpoint));
  CHECK(!is_known("one"));
  CHECK_OK(pm_name_register("one", new_endpoint()));
  CHECK(is_known("one"));
}

PM_TEST(several_names, 0, 1, "R20: an endpoint may have several names; all end with it") {
  pm_cap_t endpoint = new_endpoint();
  const char *const names[] = {"a", "b", "c"};
  for (int i = 0; i < 3; i++) CHECK_OK(pm_name_register(names[i], endpoint));
  for (int i = 0; i < 3; i++) CHECK(is_known(names[i]));
  CHECK_OK(pm_cap_drop(endpoint));
  for (int i = 0; i < 3; i++) CHECK(!is_known(names[i]));
}

PM_TEST(lengths, 0, 1, "R20: names have 1 to PM_NAME_MAXIMUM bytes") {
  char name[PM_NAME_MAXIMUM + 2];
  pm_cap_t endpoint = new_endpoint(), found;
  CHECK_ERROR(pm_name_register("", endpoint), PM_EINVAL);
  CHECK_ERROR(pm_name_lookup("", &found, 0), PM_EINVAL);
  memset(name, 'x', sizeof name);
  name[PM_NAME_MAXIMUM + 1] = 0;
  CHECK_ERROR(pm_name_register(name, endpoint), PM_EINVAL);
  CHECK_ERROR(pm_name_lookup(name, &found, 0), PM_EINVAL);
  for (size_t length = PM_NAME_MAXIMUM; length > 0; length--) {
    name[length] = 0;
    CHECK(!is_known(name));
    CHECK_OK(pm_name_register(name, endpoint));
    CHECK(is_known(name));
  }
}

PM_TEST(bytes, 0, 1, "R20: names are bytes: names that only look alike differ") {
  // An e with an acute accent, as one character and as two; upper case; bytes beside printable ASCII.
  const char *const names[] = {"caf\xc3\xa9", "cafe\xcc\x81", "name", "NAME", "n\x01", "n\x7f", " ", "\n"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    CHECK(!is_known(names[i]));
    CHECK_OK(pm_name_register(names[i], new_endpoint()));
  }
}

PM_TEST(name_pointers, 0, 1, "Safety: names and results at addresses that the task cannot use") {
  const uint64_t wild[] = {0, 1, 0x1000, PM_USER_END - 1, PM_USER_END, UINT64_MAX, 0xffff800000000000};
  pm_cap_t endpoint = new_endpoint(), found;
  for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
    CHECK_ERROR(pm_name_register((const char *)wild[i], endpoint), PM_EFAULT);
    CHECK_ERROR(pm_name_lookup((const char *)wild[i], &found, 0), PM_EFAULT);
    CHECK_ERROR(pm_name_lookup("none", (pm_cap_t *)wild[i], PM_FOREVER), PM_EFAULT);
  }
  CHECK_OK(pm_name_register("one", endpoint));
  CHECK_ERROR(pm_name_lookup("one", (pm_cap_t *)(uintptr_t) "read-only", 0), PM_EFAULT);
}

PM_TEST(name_at_border, 0, 1,
        "Safety: a name that ends with its page, crosses into the next, or is not terminated there") {
  map_fresh(REGION, 2);
  pm_cap_t endpoint = new_endpoint();
  char *last = PAGE(REGION, 2) - 5, *across = PAGE(REGION, 1) - 3;
  strcpy(last, "last");
  CHECK_OK(pm_name_register(last, endpoint));
  CHECK(is_known("last"));
  strcpy(across, "across");
  CHECK_OK(pm_name_register(across, endpoint));
  CHECK(is_known("across"));
  memset(last, 'x', 5);
  CHECK_ERROR(pm_name_register(last, endpoint), PM_EFAULT);
}

PM_TEST(times, 0, 1, "R20: a name that is never registered: PM_ENOENT at once with 0, else PM_ETIMEDOUT") {
  pm_cap_t found = 5;
  CHECK_ERROR(pm_name_lookup("none", &found, 0), PM_ENOENT);
  uint64_t start = pm_clock_us();
  CHECK_ERROR(pm_name_lookup("none", &found, 30000), PM_ETIMEDOUT);
  CHECK(pm_clock_us() - start >= 29000);
  CHECK_EQ(found, 5);
}

PM_TEST(waits, 0, 8, "R20: tasks that wait for names get them at their registration, each its own") {
  unsigned number = join(8);
  char name[] = "late 0";
  pm_cap_t found;
  struct pm_message message = {.words = {number}};
  if (number == 0) {
    pm_sleep(30000);
    for (char i = 1; i < 8; i++) {
      name[5] = (char)('0' + i);
      CHECK_OK(pm_name_register(name, partner));
    }
    for (int i = 1; i < 8; i++) {
      message = next_question();
      answer(&message, message.words[0] * 3, 0);
    }
    return;
  }
  name[5] = (char)('0' + number);
  CHECK_OK(pm_name_lookup(name, &found, number % 2 ? PM_FOREVER : LONG_US));
  CHECK_OK(pm_call(found, &message, LONG_US));
  CHECK_EQ(message.words[0], number * 3);
}

PM_TEST(gives_up, 0, 2, "R20: a task that timed out does not get the name later") {
  if (!join(2)) {
    struct pm_message message = next_question();
    CHECK_OK(pm_name_register("late", partner));
    answer(&message, 0, 0);
    message = next_question();
    return answer(&message, 0, 0);
  }
  pm_cap_t found = 7;
  CHECK_ERROR(pm_name_lookup("late", &found, 10000), PM_ETIMEDOUT);
  ask(0, 0);
  CHECK_EQ(found, 7);
  CHECK(is_known("late"));
  ask(0, 0);
}

PM_TEST(task_ends, 0, 2, "R20: names end with the task that registered them") {
  if (!join(2)) {
    CHECK_OK(pm_name_register("gone", partner));
    struct pm_message message = next_question();
    return answer(&message, 0, 0);
  }
  ask(0, 0);
  while (is_known("gone")) pm_sleep(1000);
  CHECK_OK(pm_name_register("gone", new_endpoint()));
}

PM_TEST(many_names, 0, 1,
        "Safety: registering names without end fails with PM_ENOMEM at worst; their endpoint's end frees them") {
  char name[32];
  pm_cap_t endpoint = new_endpoint();
  pm_error_t error = PM_OK;
  int count = 0;
  for (; count < 100000 && !error; count++) {
    snprintf(name, sizeof name, "name %d", count);
    error = pm_name_register(name, endpoint);
  }
  if (error) CHECK_ERROR(error, PM_ENOMEM);
  CHECK(count > 100);
  CHECK(is_known("name 99"));
  CHECK_OK(pm_cap_drop(endpoint));
  CHECK(!is_known("name 99"));
  CHECK_OK(pm_name_register("name 99", new_endpoint()));
}
