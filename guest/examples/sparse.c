// Maps one frame at distant addresses until page tables run out, and then waits.
#include <physmem.h>

PM_PROGRAM("Uses up page tables with one frame, then sleeps. Argument: MILLISECONDS.");

static int give_up(const struct pm_fault *fault) {
  (void)fault;
  return 1;
}

int main(int argc, char **argv) {
  pm_container_t container;
  uint32_t one = 1;
  if (pm_container_create(&container) || pm_container_allocate(container, 0, &one, 0)) return 1;
  pm_on_fault(give_up);
  // Eager mappings: without a table the call fails and has no other effect.
  for (uint64_t far = 1; far < 100000; far++)
    if (pm_container_map(container, 0, 1, (void *)(far << 30), PM_MAP_READ)) break;
  if (argc > 1) pm_sleep(strtoull(argv[1], NULL, 10) * 1000);
  return 0;
}
