// Time: it never goes back, agrees with the server's clock, and sleep is as long as was asked.
#include "test.h"

static uint64_t server_clock(void) {
  uint64_t us = 0;
  CHECK_OK(raw_call(PM_CALL_CLOCK, (uint64_t)&us, 0, 0, 0, 0));
  return us;
}

PM_TEST(never_back, 0, 4, "Time never goes back") {
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
    // A task may lose the processor between two readings; not twenty times in a row.
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

PM_TEST(cheap, 0, 1, "Reading the clock seldom leaves the task: 100,000 readings in less than a second") {
  uint64_t start = pm_clock_us();
  for (int i = 0; i < 100000; i++) (void)pm_clock_us();
  CHECK(pm_clock_us() - start < 1000000);
}

PM_TEST(sleeps, 0, 1, "A sleep takes at least the time that was asked for") {
  const uint64_t times[] = {0, 1, 100, 1000, 20000, 100000};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    uint64_t start = server_clock();
    pm_sleep(times[i]);
    uint64_t slept = server_clock() - start;
    CHECK(slept >= times[i]);
    CHECK(slept < times[i] + 1000000);
  }
}

PM_TEST(sleep_together, 0, 32, "32 tasks sleep at the same time, not one after the other") {
  uint64_t start = server_clock();
  pm_sleep(200000);
  CHECK(server_clock() - start >= 200000);
  CHECK(server_clock() - start < 4000000);
}
