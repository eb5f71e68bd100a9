// Allocates frames at given physical addresses, and prints where they are or which obstacle there is.
#include <physmem.h>

PM_PROGRAM("Places frames: [count=N] [below=A] [alignment=A] [boundary=A] [fixed=A] [contiguous] [scatter=PERCENT].");

#define REGION ((char *)0x200000000000ull)
#define MOST 65536

static uint64_t physical[MOST];

/// Reads a number with an optional K, M or G. Returns false if there is none, or it is too large.
static bool read_size(const char *text, uint64_t *number) {
  char *end;
  *number = strtoull(text, &end, 0);
  int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
  bool is_number = text[0] >= '0' && text[0] <= '9' && end[shift > 0] == 0 && *number <= UINT64_MAX >> shift;
  *number <<= shift;
  return is_number;
}

static int fail(const char *what, pm_error_t error) {
  printf("place: %s: %s\n", what, pm_strerror(error));
  return 1;
}

/// Fills that much of the machine and frees every other page, which leaves contents scattered over it.
static pm_error_t scatter(uint64_t percent) {
  struct pm_task_info info;
  pm_container_t container;
  pm_error_t error = pm_task_info(&info);
  uint32_t count = (uint32_t)(info.available * percent / 100), one = 1;
  if (!error) error = pm_container_create(&container);
  if (!error) error = pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA);
  if (!error) error = pm_container_map(container, 0, count, REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  for (uint64_t page = 0; !error && page < count; page++) REGION[page * PM_PAGE_SIZE] = 1;
  for (uint32_t page = 0; !error && page < count; page += 2) error = pm_container_deallocate(container, page, &one, 0);
  return error;
}

static void print_runs(uint32_t count) {
  for (uint32_t i = 0; i < count;) {
    uint32_t length = 1;
    while (i + length < count && physical[i + length] == physical[i] + (uint64_t)length * PM_PAGE_SIZE) length++;
    printf("%6u frame%s at %#llx\n", length, length == 1 ? "" : "s", (unsigned long long)physical[i]);
    i += length;
  }
}

int main(int argc, char **argv) {
  static const char *const obstacles[] = {"nothing in particular", "a frame of the machine itself", "a page table",
                                          "a pinned frame",        "a placed frame",
                                          "a frame that another placement takes"};
  struct pm_placement placement = {0};
  uint32_t count = 1;
  uint64_t percent = 0;
  for (int i = 1; i < argc; i++) {
    char *equals = strchr(argv[i], '=');
    uint64_t value = 0;
    if (equals && !read_size(equals + 1, &value)) return printf("place: %s is not a number\n", equals + 1), 64;
    if (!strncmp(argv[i], "count=", 6)) count = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    else if (!strncmp(argv[i], "below=", 6)) placement.below = value;
    else if (!strncmp(argv[i], "alignment=", 10)) placement.alignment = value;
    else if (!strncmp(argv[i], "boundary=", 9)) placement.boundary = value;
    else if (!strncmp(argv[i], "fixed=", 6)) placement.fixed = value;
    else if (!strcmp(argv[i], "contiguous")) placement.contiguous = 1;
    else if (!strncmp(argv[i], "scatter=", 8)) percent = value > 95 ? 95 : value;
    else return printf("place: unknown argument %s\n", argv[i]), 64;
  }
  pm_container_t container;
  pm_error_t error = percent ? scatter(percent) : PM_OK;
  if (error) return fail("scattering contents", error);
  error = pm_container_create(&container);
  if (error) return fail("making a container", error);
  uint64_t start = pm_clock_us();
  error = pm_container_allocate_placed(container, 0, &count, PM_ALLOC_EXTRA, &placement);
  uint64_t took = pm_clock_us() - start;
  if (error == PM_ENOMEM) {
    struct pm_obstacle obstacle = {0};
    pm_placement_obstacle(&obstacle);
    printf("no place; in the way: %s", obstacles[obstacle.kind < 6 ? obstacle.kind : 0]);
    if (obstacle.kind) printf(" at %#llx", (unsigned long long)obstacle.physical);
    printf("\n");
    return 1;
  }
  if (error) return fail("placing", error);
  printf("%u frames placed in %llu us\n", count, (unsigned long long)took);
  error = pm_container_pin(container, 0, count, 1000000, physical);
  if (error) return fail("pinning", error);
  print_runs(count);
  return 0;
}
