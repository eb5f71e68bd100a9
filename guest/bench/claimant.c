// Claims frames of its guarantee that other tasks have borrowed: between two marker calls, COUNT of them in one call,
// or each with a call and a touch.
#include <physmem.h>

PM_PROGRAM("Allocates guaranteed frames. Arguments: COUNT together|singly.");

#define REGION 0x200000000000ull

static void mark(void) {
  __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_NULL), "i"(PM_CALL_PORT) : "memory");
}

int main(int argc, char **argv) {
  if (argc < 3) return 64;
  uint32_t count = (uint32_t)strtoul(argv[1], NULL, 0);
  pm_container_t container;
  if (pm_container_create(&container)) return 1;
  pm_error_t error = PM_OK;
  mark();
  if (!strcmp(argv[2], "together")) {
    error = pm_container_allocate(container, 0, &count, 0);
  } else {
    for (uint32_t i = 0; i < count && !error; i++) {
      uint32_t one = 1;
      char *page = (char *)REGION + (size_t)i * PM_PAGE_SIZE;
      error = pm_container_allocate(container, i, &one, 0);
      if (!error) error = pm_container_map(container, i, 1, page, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
      if (!error) *(volatile char *)page = 1;
    }
  }
  mark();
  if (error) printf("claimant: %s after %u frames\n", pm_strerror(error), count);
  return error ? 2 : 0;
}
