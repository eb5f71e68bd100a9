// Sleeps without printing anything.
#include <physmem.h>

PM_PROGRAM("Sleeps for the given number of milliseconds.");

int main(int argc, char **argv) {
  if (argc < 2) return 64;
  pm_sleep(strtoull(argv[1], NULL, 10) * 1000);
  return 0;
}
