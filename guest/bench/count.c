// Counts in every page until the time is up; pages that are taken and restored meanwhile must keep their counts.
#include <physmem.h>

PM_PROGRAM("Counts up in each of PAGES lazy pages for MILLISECONDS, and checks each count. Arguments: PAGES MILLISECONDS.");

#define REGION 0x200000000000ull

int main(int argc, char **argv) {
  uint32_t pages = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 512;
  uint64_t milliseconds = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
  pm_container_t container;
  uint32_t count = pages;
  pm_error_t error = pm_container_create(&container);
  if (!error) error = pm_container_allocate(container, 0, &count, 0);
  if (!error)
    error = pm_container_map(container, 0, pages, (void *)REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  if (error) {
    printf("count: %s\n", pm_strerror(error));
    return 1;
  }
  uint64_t end = pm_clock_us() + milliseconds * 1000;
  for (uint64_t n = 0; pm_clock_us() < end; n++)
    for (uint64_t page = 0; page < pages; page++) {
      volatile uint64_t *word = (volatile uint64_t *)(REGION + page * PM_PAGE_SIZE + page % 512 * 8);
      if (*word != n) {
        printf("count: page %lu holds %lu, not %lu\n", page, *word, n);
        return 1;
      }
      *word = n + 1;
    }
  return 0;
}
