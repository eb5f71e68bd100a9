// A task that never ends and makes no calls: for trying --timeout.
#include <physmem.h>

PM_PROGRAM("Spins forever without a call; try it with --timeout 1.");

int main(void) {
  for (;;) __asm__ volatile("pause");
}
