// Null calls in a tight loop: measures an exit and the server's dispatch.
#include <physmem.h>

PM_PROGRAM("Makes COUNT null calls. Argument: COUNT.");

int main(int argc, char **argv) {
  uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000;
  if (!count) return 0;
  __asm__ volatile(
      "1:\tmov %1, %%eax\n\t"
      "out %%al, %2\n\t"
      "dec %0\n\t"
      "jnz 1b"
      : "+r"(count)
      : "i"(PM_CALL_NULL), "i"(PM_CALL_PORT)
      : "rax", "memory");
  return 0;
}
