// The C library's names for ending the program.
#include <physmem.h>

#include "library.h"

__attribute__((weak)) void pm_flush(void);

void exit(int status) { pm_exit(status); }

void abort(void) {
  if (pm_flush) pm_flush();
  __builtin_trap();
}
