// The task's arguments, for programs whose main does not receive them.
#include <physmem.h>

#include "library.h"

struct pm_arguments pm_arguments;

int pm_argument_count(void) { return pm_arguments.count; }

const char *pm_argument(int index) {
  return index >= 0 && index < pm_arguments.count ? pm_arguments.values[index] : NULL;
}
