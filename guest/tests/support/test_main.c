// The main program of every test program: runs the named case, or lists all.
#include "../test.h"

extern const struct pm_test *const pm_tests_start[], *const pm_tests_end[];

int main(int argc, char **argv) {
  for (const struct pm_test *const *entry = pm_tests_start; entry < pm_tests_end; entry++) {
    const struct pm_test *test = *entry;
    if (argc < 2) printf("%s: %s\n", test->name, test->summary);
    else if (!strcmp(test->name, argv[1])) return test->run(), 0;
  }
  if (argc < 2) return 0;
  printf("%s has no case %s\n", argv[0], argv[1]);
  return 64;
}
