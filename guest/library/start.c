// The first and the last instructions of a task. A program that neither prints nor reads the time touches its
// text page and one stack page, and exits to the host once: the rest of the library is reached through weak symbols
// that are null unless the program links it.
#include <physmem.h>

#include "library.h"

/// The entry point; abi.h describes the registers.
__attribute__((naked, noreturn, section(".text.pm_start"))) void _start(void) {
  __asm__(
      "xor %%ebp, %%ebp\n\t"
      "mov %%ecx, %%eax\n\t"
      "mov $pm_start_flags, %%ecx\n\t"
      "jrcxz 0f\n\t"
      "mov %%eax, (%%rcx)\n"
      "0:\n\t"
      "mov $pm_tsc_khz, %%ecx\n\t"
      "jrcxz 1f\n\t"
      "mov %%rdx, (%%rcx)\n"
      "1:\n\t"
      "mov $pm_arguments, %%ecx\n\t"
      "jrcxz 2f\n\t"
      "mov %%edi, 8(%%rcx)\n\t"
      "mov %%rsi, (%%rcx)\n"
      "2:\n\t"
      "call main\n\t"
      "mov %%eax, %%edi\n\t"
      "call pm_exit\n\t"
      ".weak pm_start_flags\n\t"
      ".weak pm_tsc_khz\n\t"
      ".weak pm_arguments\n\t"
      ".weak pm_flush" ::);
}

__attribute__((naked, noreturn, section(".text.pm_start"))) void pm_exit(int) {
  __asm__(
      "mov $pm_flush, %%ecx\n\t"
      "jrcxz 1f\n\t"
      "push %%rdi\n\t"
      "call *%%rcx\n\t"
      "pop %%rdi\n"
      "1:\n\t"
      "mov %0, %%eax\n\t"
      "out %%al, %1\n\t"
      "ud2" ::"i"(PM_CALL_EXIT),
      "i"(PM_CALL_PORT));
}
