// Reads a disk sequentially in passes, with the given request size and queue depth, and prints bytes and nanoseconds of
// each pass.
#include <physmem/block.h>

PM_PROGRAM("Reads a disk sequentially. Arguments: passes, frames per request, queue depth, scattered.");

#define BUFFERS ((char *)0x200000000000ull)
#define MOST 1024

static struct pm_block disk;
static uint64_t physical[MOST];

static void check(const char *what, pm_error_t error) {
  if (!error) return;
  printf("diskread: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

static void take_one(void) {
  struct pm_block_result result;
  check("completing", pm_block_complete(&disk, &result, PM_FOREVER));
  check("reading", result.error);
}

static void read_all(pm_container_t container, uint32_t frames, uint32_t depth) {
  uint32_t under_way = 0, sectors = frames * 8;
  uint64_t count = disk.sectors / sectors;
  for (uint64_t request = 0; request < count; request++) {
    if (under_way == depth) {
      take_one();
      under_way--;
    }
    // A buffer is free when its previous request has completed: they complete in order.
    if (request % 1024 == 0)
      check("pinning", pm_container_pin(container, 0, frames * depth, PM_LOCK_MAXIMUM_US, physical));
    check("submitting", pm_block_submit(&disk, PM_BLOCK_READ, request * sectors, physical + request % depth * frames,
                                        sectors, request));
    under_way++;
  }
  while (under_way-- > 0) take_one();
}

int main(int argc, char **argv) {
  uint32_t passes = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1;
  uint32_t frames = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 32;
  uint32_t depth = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 8, count = frames * depth;
  if (count == 0 || count > MOST) return 64;
  check("opening", pm_block_open(&disk, 0));
  pm_container_t container;
  check("creating", pm_container_create(&container));
  // Adjacent frames need one descriptor; scattered frames are the fallback.
  struct pm_placement placement = {.contiguous = 1, .below = disk.address_bits < 64 ? 1ull << disk.address_bits : 0};
  if (argc > 4 || pm_container_allocate_placed(container, 0, &count, 0, &placement)) {
    count = frames * depth;
    check("allocating", pm_block_allocate(&disk, container, 0, &count, 0));
  }
  check("mapping", pm_container_map(container, 0, count, BUFFERS, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY));
  for (uint32_t pass = 0; pass < passes; pass++) {
    uint64_t start = pm_clock_us();
    read_all(container, frames, depth);
    printf("%lu %lu\n", disk.sectors / (frames * 8) * frames * PM_PAGE_SIZE, (pm_clock_us() - start) * 1000);
  }
  return 0;
}
