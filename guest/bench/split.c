// Splits superpages: a logical copy of each 2 MiB of its memory, the first write there, and a null call, which pays for
// the translations that the write invalidated.
#include <physmem.h>

PM_PROGRAM("Copies 2 MiB logically and writes one page of it, region by region. Arguments: REGIONS.");

enum { PAGES = 512 };
#define REGION ((volatile char *)0x200000000000ull)

static void mark(void) {
  __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_NULL), "i"(PM_CALL_PORT) : "memory");
}

int main(int argc, char **argv) {
  uint32_t regions = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1, pages = regions * PAGES;
  pm_container_t source, copy;
  pm_error_t error = pm_container_create(&source);
  if (!error) error = pm_container_create(&copy);
  if (!error) error = pm_container_allocate(source, 0, &pages, 0);
  if (!error) error = pm_container_map(source, 0, pages, (void *)REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  for (uint32_t i = 0; i < pages && !error; i++) REGION[(size_t)i * PM_PAGE_SIZE] = 1;
  for (uint32_t i = 0; i < regions && !error; i++) {
    error = pm_container_copy(source, i * PAGES, copy, 0, PAGES, NULL);
    REGION[(size_t)i * PAGES * PM_PAGE_SIZE] = 2;
    mark();
  }
  if (error) printf("split: %s\n", pm_strerror(error));
  return error != PM_OK;
}
