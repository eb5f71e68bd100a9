// Reads at addresses all over memory, each computed from the previous read: measures address translation.
// Between two marker calls there are only the reads.
#include <physmem.h>

PM_PROGRAM("Touches PAGES lazy pages, a power of two, and reads READS words all over them. Arguments: PAGES READS.");

#define REGION 0x200000000000ull

enum { LINE = 64 };

static void mark(void) {
  __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_NULL), "i"(PM_CALL_PORT) : "memory");
}

/// All memory is zero, unknown to the compiler. A full-period sequence, so every line is read once before any repeats.
static uint64_t walk(uint64_t lines, uint64_t reads, uint64_t line) {
  while (reads--) {
    uint64_t value = *(const volatile uint64_t *)(REGION + line * LINE);
    line = (line * 6364136223846793005u + 1442695040888963407u + value) & (lines - 1);
  }
  return line;
}

int main(int argc, char **argv) {
  uint32_t pages = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 256;
  uint64_t reads = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
  if (!pages || pages & (pages - 1)) return 64;
  pm_container_t container;
  pm_error_t error = pm_container_create(&container);
  uint32_t count = pages;
  if (!error) error = pm_container_allocate(container, 0, &count, 0);
  if (!error)
    error = pm_container_map(container, 0, pages, (void *)REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  if (error) {
    printf("walk: %s\n", pm_strerror(error));
    return 1;
  }
  for (uint64_t page = 0; page < pages; page++) *(volatile char *)(REGION + page * PM_PAGE_SIZE) = 0;
  uint64_t lines = (uint64_t)pages * PM_PAGE_SIZE / LINE, line = walk(lines, pages * 4, 0);
  mark();
  line = walk(lines, reads, line);
  mark();
  return line < lines ? 0 : 1;
}
