// The task's own fault handler. The server keeps the interrupted general registers; the trampoline here keeps vector
// and floating-point state, which costs the server more than the task.
#include <cpuid.h>
#include <physmem.h>

#include "library.h"

#define FAULT_STACK_SIZE (32u << 10)
#define STATE_ALIGNMENT 64u
// The largest state there is today, with matrix tiles, takes 11 KiB.
#define STATE_ROOM (16u << 10)

// Room for two states: a fault in the handler may enter it once more.
static _Alignas(STATE_ALIGNMENT) uint8_t fault_stack[FAULT_STACK_SIZE + 2 * STATE_ROOM];
static int (*fault_handler)(const struct pm_fault *fault);
static int uses_xsave;

static pm_error_t set_entry(void (*entry)(void), void *stack_top) {
  pm_error_t error;
  __asm__ volatile("out %%al, %1"
                   : "=a"(error)
                   : "i"(PM_CALL_PORT), "0"(PM_CALL_ON_FAULT), "D"(entry), "S"(stack_top)
                   : "memory");
  return error;
}

/// Where the server enters: RDI = address, RSI = rip, RDX = access, RCX = present, RSP = the top of the fault stack, or
/// somewhere in it. The frame looks like a call from the faulting instruction, for backtraces; the saved state lies
/// below it. XSAVE leaves most of the area's header alone, and XRSTOR wants that zero.
__attribute__((naked)) static void fault_entry(void) {
  __asm__(
      "cld\n\t"
      "push %%rsi\n\t"
      "push %%rbp\n\t"
      "mov %%rsp, %%rbp\n\t"
      "sub %[state_room], %%rsp\n\t"
      "and %[state_mask], %%rsp\n\t"
      "mov %%rsp, %%rbx\n\t"
      "xor %%eax, %%eax\n\t"
      "mov %%rax, 512(%%rbx)\n\t"
      "mov %%rax, 520(%%rbx)\n\t"
      "mov %%rax, 528(%%rbx)\n\t"
      "mov %%rax, 536(%%rbx)\n\t"
      "mov %%rax, 544(%%rbx)\n\t"
      "mov %%rax, 552(%%rbx)\n\t"
      "mov %%rax, 560(%%rbx)\n\t"
      "mov %%rax, 568(%%rbx)\n\t"
      "sub $32, %%rsp\n\t"
      "mov %%rdi, (%%rsp)\n\t"
      "mov %%rsi, 8(%%rsp)\n\t"
      "mov %%edx, 16(%%rsp)\n\t"
      "mov %%ecx, 20(%%rsp)\n\t"
      "mov $-1, %%eax\n\t"
      "mov $-1, %%edx\n\t"
      "cmpl $0, %c[uses_xsave]\n\t"
      "je 1f\n\t"
      "xsave64 (%%rbx)\n\t"
      "jmp 2f\n"
      "1:\n\t"
      "fxsave64 (%%rbx)\n"
      "2:\n\t"
      "mov %%rsp, %%rdi\n\t"
      "call *%c[handler]\n\t"
      "mov %%eax, %%edi\n\t"
      "mov $-1, %%eax\n\t"
      "mov $-1, %%edx\n\t"
      "cmpl $0, %c[uses_xsave]\n\t"
      "je 3f\n\t"
      "xrstor64 (%%rbx)\n\t"
      "jmp 4f\n"
      "3:\n\t"
      "fxrstor64 (%%rbx)\n"
      "4:\n\t"
      "mov %[fault_return], %%eax\n\t"
      "out %%al, %[port]\n\t"
      "ud2" ::[uses_xsave] "i"(&uses_xsave),
      [state_room] "i"(STATE_ROOM + STATE_ALIGNMENT), [state_mask] "i"(-(int)STATE_ALIGNMENT),
      [handler] "i"(&fault_handler), [fault_return] "i"(PM_CALL_FAULT_RETURN), [port] "i"(PM_CALL_PORT));
}

/// The bytes that XSAVE writes for all state the server has enabled, or 0 where it has not enabled XSAVE.
static unsigned xsave_size(void) {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 0;
  if (!__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx)) return 0;
  return ebx;
}

pm_error_t pm_set_fault_handler(int (*handler)(const struct pm_fault *fault)) {
  if (!handler) return set_entry(NULL, NULL);
  unsigned size = xsave_size();
  if (size > STATE_ROOM) return PM_ENOMEM;
  uses_xsave = size != 0;
  fault_handler = handler;
  return set_entry(fault_entry, fault_stack + sizeof fault_stack);
}
