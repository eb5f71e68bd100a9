// Upcalls into a loop: measures the time from the demand for frames to the first instruction of the handler, which
// makes a null call.
#include <physmem.h>

PM_PROGRAM("Computes forever, and takes upcalls.");

static _Alignas(16) uint8_t stack[256];

__attribute__((naked)) static void handle(void) {
  __asm__(
      "mov %0, %%eax\n\tout %%al, %2\n\t"
      "mov %1, %%eax\n\tout %%al, %2\n\t"
      "ud2" ::"i"(PM_CALL_NULL), "i"(PM_CALL_UPCALL_RETURN), "i"(PM_CALL_PORT));
}

int main(void) {
  pm_error_t error;
  __asm__ volatile("out %%al, %1"
                   : "=a"(error)
                   : "i"(PM_CALL_PORT), "0"(PM_CALL_ON_RETURN_PAGES), "D"(handle), "S"(stack + sizeof stack)
                   : "memory");
  if (error) return 1;
  for (;;) __asm__ volatile("");
}
