// Fills the pool with scattered contents, and allocates a long run of adjacent frames, between two marker calls.
#include <physmem.h>

PM_PROGRAM("Scatters contents over the pool, then allocates adjacent frames. Arguments: PAGES FREED-EVERY RUN.");

#define REGION 0x200000000000ull

static void mark(void) {
  __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_NULL), "i"(PM_CALL_PORT) : "memory");
}

static volatile uint64_t *word(uint64_t page) { return (volatile uint64_t *)(REGION + page * PM_PAGE_SIZE); }

int main(int argc, char **argv) {
  if (argc < 4) return 64;
  uint32_t pages = (uint32_t)strtoul(argv[1], NULL, 0), every = (uint32_t)strtoul(argv[2], NULL, 0);
  uint32_t run = (uint32_t)strtoul(argv[3], NULL, 0), one = 1;
  pm_container_t container, placed;
  pm_error_t error = pm_container_create(&container);
  if (!error) error = pm_container_create(&placed);
  if (!error) error = pm_container_allocate(container, 0, &pages, PM_ALLOC_EXTRA);
  if (!error) error = pm_container_map(container, 0, pages, (void *)REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  // Fault-around would make 16 pages adjacent: this stride visits each page once, out of order.
  uint64_t stride = 7919;
  while (pages % stride == 0) stride += 2;
  for (uint64_t i = 0, page = 0; !error && i < pages; i++, page = (page + stride) % pages) *word(page) = page + 1;
  for (uint32_t page = 0; !error && page < pages; page += every) {
    error = pm_container_deallocate(container, page, &one, 0);
  }
  if (error) {
    printf("scatter: setting up: %s\n", pm_strerror(error));
    return 1;
  }
  const struct pm_placement placement = {.contiguous = 1};
  mark();
  error = pm_container_allocate_placed(placed, 0, &run, PM_ALLOC_EXTRA, &placement);
  mark();
  if (error) printf("scatter: no run of adjacent frames: %s\n", pm_strerror(error));
  for (uint64_t page = 0; page < pages; page++) {
    if (page % every && *word(page) != page + 1) return 1;
  }
  return error ? 1 : 0;
}
