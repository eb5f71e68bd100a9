// A task that claims its guarantee late (R3): it waits, allocates step by step, holds the frames, and ends. The server
// asks the tasks that have borrowed these frames for them first. docs/reference/reclaim.md walks through it.
#include <physmem.h>

PM_PROGRAM("Allocates its guarantee step by step, holds it, and ends: hungry [WAIT_MS [STEPS [HOLD_MS]]].");

#define PAGES ((char *)0x100000000000ull)

static pm_container_t container;

static void check(const char *what, pm_error_t error) {
  if (!error) return;
  printf("hungry: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

static uint64_t argument(int argc, char **argv, int index, uint64_t otherwise) {
  return argc > index ? strtoul(argv[index], NULL, 10) : otherwise;
}

/// Allocates `count` frames from id `first` on, and writes to each.
static void take(uint32_t first, uint32_t count) {
  uint64_t start = pm_clock_us();
  uint32_t done = count;
  check("allocating", pm_container_allocate(container, first, &done, 0));
  uint64_t waited = pm_clock_us() - start;
  char *pages = PAGES + (uint64_t)first * PM_PAGE_SIZE;
  uint32_t rights = PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY;
  check("mapping", pm_container_map(container, first, count, pages, rights));
  for (uint32_t i = 0; i < count; i++) pages[(uint64_t)i * PM_PAGE_SIZE] = 1;
  printf("hungry: %u frames more after %lu.%lu ms\n", count, waited / 1000, waited / 100 % 10);
}

int main(int argc, char **argv) {
  uint64_t wait = argument(argc, argv, 1, 800), steps = argument(argc, argv, 2, 6), hold = argument(argc, argv, 3, 300);
  pm_sleep(wait * 1000);
  struct pm_task_info info;
  check("pm_task_info", pm_task_info(&info));
  uint32_t count = (uint32_t)((info.guaranteed - info.allocated) / (steps ? steps : 1));
  if (count == 0) {
    printf("hungry: the task has no guarantee: give it one.\n");
    return 2;
  }
  uint32_t total = count * (uint32_t)steps;
  check("making a container", pm_container_create(&container));
  for (uint32_t first = 0; first < total; first += count) {
    take(first, count);
    pm_sleep(100000);
  }
  pm_sleep(hold * 1000);
  printf("hungry: has had enough\n");
  return 0;
}
