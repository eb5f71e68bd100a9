// Copy on write: fresh pages, a logical copy of them, and between two marker calls one write to each page of the copy.
// With `copy` nothing is written, and the call between the markers is the logical copy itself.
#include <physmem.h>

PM_PROGRAM("Writes each page of a logical copy, or copies them. Arguments: PAGES write|copy untouched|resident|mapped.");

#define REGION 0x200000000000ull
#define COPY 0x210000000000ull

static void mark(void) {
  __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_NULL), "i"(PM_CALL_PORT) : "memory");
}

static void touch(uint64_t address, uint64_t pages) {
  __asm__ volatile(
      "1:\tmovb $1, (%0)\n\t"
      "add %2, %0\n\t"
      "dec %1\n\t"
      "jnz 1b"
      : "+r"(address), "+r"(pages)
      : "i"(PM_PAGE_SIZE)
      : "memory", "cc");
}

static int fail(const char *what, pm_error_t error) {
  printf("cow: %s: %s\n", what, pm_strerror(error));
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 4) return 64;
  uint32_t pages = (uint32_t)strtoul(argv[1], NULL, 0);
  bool writes = !strcmp(argv[2], "write");
  pm_container_t source, copy;
  pm_error_t error = pm_container_create(&source);
  if (!error) error = pm_container_create(&copy);
  if (!error) error = pm_container_allocate(source, 0, &pages, PM_ALLOC_EXTRA);
  if (!error && !writes) error = pm_container_allocate(copy, 0, &pages, PM_ALLOC_EXTRA);
  const uint32_t flags = PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY;
  if (!error) error = pm_container_map(source, 0, pages, (void *)REGION, flags);
  if (error) return fail("setting up", error);
  if (strcmp(argv[3], "untouched")) touch(REGION, pages);
  if (strcmp(argv[3], "mapped")) error = pm_unmap((void *)REGION, pages);
  if (error) return fail("unmapping", error);
  if (!writes) {
    mark();
    error = pm_container_copy(source, 0, copy, 0, pages, NULL);
    mark();
    return error ? fail("copying", error) : 0;
  }
  error = pm_container_copy(source, 0, copy, 0, pages, NULL);
  if (!error) error = pm_container_map(copy, 0, pages, (void *)COPY, PM_MAP_FORCE_WRITE | PM_MAP_LAZY);
  if (error) return fail("copying", error);
  mark();
  touch(COPY, pages);
  mark();
  return 0;
}
