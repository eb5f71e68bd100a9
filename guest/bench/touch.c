// First touches of lazily mapped pages, between two marker calls a round: measures a fault. Between the markers
// there is only the loop.
#include <physmem.h>

PM_PROGRAM("Touches PAGES lazy pages once a round. Arguments: PAGES seq|random ROUNDS [DELAY_MS].");

#define REGION 0x200000000000ull

static void mark(void) {
  __asm__ volatile("out %%al, %1" ::"a"(PM_CALL_NULL), "i"(PM_CALL_PORT) : "memory");
}

static void touch_in_order(uint64_t pages) {
  uint64_t address = REGION;
  __asm__ volatile(
      "1:\tmovb $1, (%0)\n\t"
      "add %2, %0\n\t"
      "dec %1\n\t"
      "jnz 1b"
      : "+r"(address), "+r"(pages)
      : "i"(PM_PAGE_SIZE)
      : "memory", "cc");
}

static void touch_list(const uint64_t *addresses, uint64_t pages) {
  uint64_t address;
  __asm__ volatile(
      "1:\tmov (%0), %2\n\t"
      "movb $1, (%2)\n\t"
      "add $8, %0\n\t"
      "dec %1\n\t"
      "jnz 1b"
      : "+r"(addresses), "+r"(pages), "=&r"(address)
      :
      : "memory", "cc");
}

/// The addresses of all pages in a random order that is the same in each run; null if out of memory.
static uint64_t *random_order(uint64_t pages) {
  uint64_t *addresses = malloc(pages * sizeof *addresses), state = 1;
  if (!addresses) return NULL;
  for (uint64_t i = 0; i < pages; i++) addresses[i] = REGION + i * PM_PAGE_SIZE;
  for (uint64_t i = pages; i-- > 1;) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint64_t j = (state >> 33) % (i + 1), address = addresses[i];
    addresses[i] = addresses[j];
    addresses[j] = address;
  }
  return addresses;
}

static pm_error_t make_fresh(pm_container_t container, uint32_t pages) {
  pm_error_t error = pm_container_allocate(container, 0, &pages, PM_ALLOC_SQUASH);
  if (error) return error;
  return pm_container_map(container, 0, pages, (void *)REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
}

int main(int argc, char **argv) {
  uint32_t pages = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 256;
  bool random = argc > 2 && !strcmp(argv[2], "random");
  uint64_t rounds = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
  if (!pages) return 64;
  if (argc > 4) pm_sleep(strtoull(argv[4], NULL, 0) * 1000);
  const uint64_t *order = random ? random_order(pages) : NULL;
  pm_container_t container;
  if ((random && !order) || pm_container_create(&container)) return 1;
  while (rounds--) {
    pm_error_t error = make_fresh(container, pages);
    if (error) {
      printf("touch: %s\n", pm_strerror(error));
      return 1;
    }
    mark();
    if (random) touch_list(order, pages);
    else touch_in_order(pages);
    mark();
  }
  return 0;
}
