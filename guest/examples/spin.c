// A task that never ends by itself and makes no calls: what --timeout is for.
#include <physmem.h>

PM_PROGRAM("Spins for ever without a call; try it with --timeout 1.");

int main(void) {
  for (;;) __asm__ volatile("pause");
}
