// The clock. It asks the server at most once a second; in between it adds the time elapsed on the TSC.
#include <physmem.h>

#include "library.h"

// Microseconds per tick are a fixed-point number with this many bits after the point.
#define FRACTION_BITS 53
#define RESYNC_US 1000000u

uint64_t pm_tsc_khz;

static struct {
  uint64_t ticks, us;  // one moment on both clocks; ticks 0: not known yet
  uint64_t us_per_tick;
  uint64_t last;  // the latest time returned: a new moment may be slightly earlier
} reference;

static uint64_t ask_server(void) {
  uint64_t us = 0;
  pm_error_t error;
  __asm__ volatile("out %%al, %1" : "=a"(error) : "i"(PM_CALL_PORT), "0"(PM_CALL_CLOCK), "D"(&us) : "memory");
  return us;
}

/// Takes the server's answer as the time half way through the call.
static void synchronise(void) {
  uint64_t before = __builtin_ia32_rdtsc();
  reference.us = ask_server();
  if (!pm_tsc_khz) return;
  reference.ticks = before + (__builtin_ia32_rdtsc() - before) / 2;
  reference.us_per_tick = (1000ull << FRACTION_BITS) / pm_tsc_khz;
}

static uint64_t elapsed_us(uint64_t now) {
  return (uint64_t)((unsigned __int128)(now - reference.ticks) * reference.us_per_tick >> FRACTION_BITS);
}

uint64_t pm_clock_us(void) {
  uint64_t now = __builtin_ia32_rdtsc();
  uint64_t elapsed = reference.ticks && now >= reference.ticks ? elapsed_us(now) : RESYNC_US;
  if (elapsed >= RESYNC_US) {
    synchronise();
    elapsed = 0;
  }
  uint64_t us = reference.us + elapsed;
  if (us < reference.last) us = reference.last;
  reference.last = us;
  return us;
}
