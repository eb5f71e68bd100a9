// The clock is monotonic and agrees with the server's, and a sleep lasts as long as asked.
#include "test.h"

static uint64_t server_clock(void) {
  uint64_t us = 0;
  CHECK_OK(raw_call(PM_CALL_CLOCK, (uint64_t)&us, 0, 0, 0, 0));
  return us;
}

PM_TEST(never_back, 0, 4, "The clock never goes back") {
  uint64_t last = pm_clock_us(), end = last + 200000;
  while (last < end) {
    uint64_t now = pm_clock_us();
    CHECK(now >= last);
    last = now;
  }
}

PM_TEST(agrees, 0, 1, "The library's clock, without calls, agrees with the server's within 5 milliseconds") {
  uint64_t end = server_clock() + 2500000;
  while (server_clock() < end) {
    // The task may be preempted between two readings, but not twenty times in a row.
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
      uint64_t before = server_clock(), own = pm_clock_us(), after = server_clock();
      uint64_t off = own < before ? before - own : own > after ? own - after : 0;
      if (off < least) least = off;
    }
    CHECK(least <= 5000);
    pm_sleep(100000);
  }
}

PM_TEST(cheap, 0, 1, "Reading the clock does not leave the task: 2,000 readings take less than 1,000 calls") {
  for (int i = 0; i < 50; i++) {
    uint64_t start = server_clock();
    for (int j = 0; j < 1000; j++) (void)server_clock();
    uint64_t middle = server_clock();
    for (int j = 0; j < 2000; j++) (void)pm_clock_us();
    // The task may be preempted in either, but not fifty times in a row.
    if (server_clock() - middle < middle - start) return;
  }
  CHECK(!"a reading is a call");
}

PM_TEST(sleeps, 0, 1, "A sleep takes at least the requested time") {
  const uint64_t times[] = {0, 1, 100, 1000, 20000, 100000};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    uint64_t start = server_clock();
    pm_sleep(times[i]);
    CHECK(server_clock() - start >= times[i]);
  }
}

PM_TEST(sleep_together, 0, 32, "32 tasks sleep at the same time, not one after the other") {
  enum { SLEEPERS = 31 };
  if (join(SLEEPERS + 1)) {
    // Each sleeps until that time, unless it has passed already; 0: done.
    for (uint64_t end = ask(0, PM_CAP_NONE).words[0], now; end; end = ask(now < end, PM_CAP_NONE).words[0]) {
      now = server_clock();
      if (now < end) pm_sleep(end - now);
      CHECK(server_clock() >= end);
    }
    return;
  }
  uint64_t slept = 0;
  // A busy machine needs more time until all tasks have the answer.
  for (uint64_t us = 100000;; us *= 2) {
    struct pm_message messages[SLEEPERS];
    slept = 0;
    for (int i = 0; i < SLEEPERS; i++) {
      messages[i] = next_question();
      slept += messages[i].words[0];
    }
    uint64_t end = slept == SLEEPERS ? 0 : server_clock() + us;
    for (int i = 0; i < SLEEPERS; i++) answer(&messages[i], end, PM_CAP_NONE);
    if (!end) return;
  }
}
