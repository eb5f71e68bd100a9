// The cost of the first access to a page, as the task sees it: times each access with the processor's counter.
#include <physmem.h>

PM_PROGRAM("Times the first access to each of PAGES lazy pages, in order and at random. Argument: PAGES.");

#define REGION ((char *)0x200000000000ull)

static uint64_t ticks(void) {
  __builtin_ia32_lfence();
  uint64_t now = __builtin_ia32_rdtsc();
  __builtin_ia32_lfence();
  return now;
}

static int compare(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return a < b ? -1 : a > b;
}

/// Writes to every page once, in the given order; stores each access's time in `times`.
static void touch(const uint32_t *order, uint64_t *times, uint32_t pages) {
  for (uint32_t i = 0; i < pages; i++) {
    volatile char *page = REGION + (size_t)order[i] * PM_PAGE_SIZE;
    uint64_t start = ticks();
    *page = 1;
    times[i] = ticks() - start;
  }
}

static void report(const char *name, uint64_t *times, uint32_t pages, double ticks_per_us) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < pages; i++) sum += times[i];
  qsort(times, pages, sizeof *times, compare);
  printf("%-22s %9.2f %9.2f %9.2f %9.2f\n", name, (double)times[0] / ticks_per_us,
         (double)times[pages / 2] / ticks_per_us, (double)sum / pages / ticks_per_us,
         (double)times[pages - 1] / ticks_per_us);
}

static void shuffle(uint32_t *order, uint32_t pages) {
  uint64_t state = 1;
  for (uint32_t i = pages; i-- > 1;) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint32_t j = (uint32_t)(state >> 33) % (i + 1), page = order[i];
    order[i] = order[j];
    order[j] = page;
  }
}

static double measure_ticks_per_us(void) {
  uint64_t us = pm_clock_us(), start = ticks();
  while (pm_clock_us() - us < 20000) {}
  return (double)(ticks() - start) / (double)(pm_clock_us() - us);
}

/// Maps fresh frames lazily at REGION.
static pm_error_t make_fresh(pm_container_t container, uint32_t pages) {
  pm_error_t error = pm_container_allocate(container, 0, &pages, PM_ALLOC_SQUASH);
  if (error) return error;
  return pm_container_map(container, 0, pages, REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
}

int main(int argc, char **argv) {
  uint32_t pages = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1024;
  uint32_t *order = calloc(pages, sizeof *order);
  uint64_t *times = calloc(pages, sizeof *times);
  pm_container_t container;
  if (!pages || !order || !times || pm_container_create(&container)) return 1;
  double ticks_per_us = measure_ticks_per_us();
  for (uint32_t i = 0; i < pages; i++) order[i] = i;

  printf("microseconds a page, %u pages\n%-22s %9s %9s %9s %9s\n", pages, "", "least", "median", "mean", "most");
  const char *names[] = {"first access, in order", "once more", "first, at random"};
  for (int pass = 0; pass < 3; pass++) {
    pm_error_t error = pass == 1 ? PM_OK : make_fresh(container, pages);
    if (error) {
      printf("faults: %s\n", pm_strerror(error));
      return 1;
    }
    if (pass == 2) shuffle(order, pages);
    touch(order, times, pages);
    report(names[pass], times, pages, ticks_per_us);
  }
  return 0;
}
