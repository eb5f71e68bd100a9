// Reads and writes its own memory in rounds while other tasks' memory is moved; prints the time of each round.
#include <physmem.h>

PM_PROGRAM("Goes over its memory in rounds, and prints each round's microseconds. Arguments: PAGES ROUNDS.");

#define REGION 0x200000000000ull

int main(int argc, char **argv) {
  if (argc < 3) return 64;
  uint32_t pages = (uint32_t)strtoul(argv[1], NULL, 0), rounds = (uint32_t)strtoul(argv[2], NULL, 0);
  pm_container_t container;
  pm_error_t error = pm_container_create(&container);
  if (!error) error = pm_container_allocate(container, 0, &pages, PM_ALLOC_EXTRA);
  if (!error) error = pm_container_map(container, 0, pages, (void *)REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  uint64_t physical;
  // Pinned, so that they are not moved themselves.
  for (uint32_t page = 0; !error && page < pages; page++) {
    error = pm_container_pin(container, page, 1, PM_LOCK_MAXIMUM_US, &physical);
  }
  if (error) return 1;
  for (uint32_t round = 0; round < rounds; round++) {
    uint64_t start = pm_clock_us();
    for (int times = 0; times < 20; times++)
      for (uint64_t word = 0; word < pages * 512ull; word++) ((volatile uint64_t *)REGION)[word]++;
    printf("%llu\n", (unsigned long long)(pm_clock_us() - start));
  }
  return 0;
}
