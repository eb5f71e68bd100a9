// A task that borrows frames and never gives them back: the server drops it (R30). docs/reference/reclaim.md walks through it.
#include <physmem.h>

PM_PROGRAM("Takes all extra frames and keeps them when asked for them: rogue [ignores|spins].");

static volatile bool spins;

static void keep_all(uint32_t count) {
  char line[80];
  int length = snprintf(line, sizeof line, "rogue: %u frames are asked for, and not given\n", count);
  (void)pm_write(line, (size_t)length);
  while (spins) {}
}

static void check(const char *what, pm_error_t error) {
  if (!error) return;
  printf("rogue: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

int main(int argc, char **argv) {
  spins = argc > 1 && !strcmp(argv[1], "spins");
  check("pm_on_return_pages", pm_on_return_pages(keep_all));
  // Lets other tasks load first: the frames of a program's image are not reclaimed.
  pm_sleep(200000);
  pm_container_t container;
  check("making a container", pm_container_create(&container));
  uint32_t count = 1u << 30;
  pm_error_t error = pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA | PM_ALLOC_PARTIAL);
  if (error != PM_ENOMEM) check("allocating", error);
  printf("rogue: has %u frames\n", count);
  while (true) pm_sleep(1000000);
}
