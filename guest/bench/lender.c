// Takes extra frames, touches them, and gives back what is asked for, the most recent first, in one call. Between
// upcalls it waits for messages.
#include <physmem.h>

PM_PROGRAM("Takes extra frames and gives them back when asked. Arguments: FRAMES, 0 for all; rogue.");

#define REGION ((char *)0x200000000000ull)
#define MOST 65536u

static pm_container_t container;
static pm_frame_t ids[MOST];
static uint32_t held;
static bool is_rogue;

static void give_back(uint32_t count) {
  if (is_rogue) return;
  if (count > held) count = held;
  held -= count;
  for (uint32_t i = 0; i < count; i++) ids[i] = held + i;
  (void)pm_release_pages(container, ids, count);
}

int main(int argc, char **argv) {
  uint32_t wanted = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 0;
  is_rogue = argc > 2 && !strcmp(argv[2], "rogue");
  struct pm_task_info info;
  pm_cap_t endpoint;
  if (pm_endpoint_create(&endpoint) || pm_container_create(&container) || pm_task_info(&info)) return 1;
  // Touches the list of ids now, so that the handler does not fault.
  memset(ids, 0, sizeof ids);
  if (pm_on_return_pages(give_back)) return 2;
  held = wanted ? wanted : (uint32_t)info.available;
  pm_error_t error = pm_container_allocate(container, 0, &held, PM_ALLOC_EXTRA | PM_ALLOC_PARTIAL);
  if (error && !held) return 3;
  if (pm_container_map(container, 0, held, REGION, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY)) return 4;
  for (uint32_t i = 0; i < held; i++) ((volatile char *)REGION)[(size_t)i * PM_PAGE_SIZE] = 1;
  if (pm_write("ready\n", 6)) return 5;
  for (;;) {
    struct pm_message message;
    (void)pm_receive(endpoint, &message, PM_FOREVER);
  }
}
