// The task's own fault handler.
#include <physmem.h>

#include "library.h"
#include "state.h"

// Room for two handlers: a fault in one, or in a pm_return_pages handler that interrupts it, may enter it again.
static PM_HANDLER_STACK(fault) uint8_t fault_stack[2 * PM_HANDLER_STACK_SIZE];
static int (*fault_handler)(const struct pm_fault *fault);

static pm_error_t set_entry(void (*entry)(void), void *stack_top) {
  pm_error_t error;
  __asm__ volatile("out %%al, %1"
                   : "=a"(error)
                   : "i"(PM_CALL_PORT), "0"(PM_CALL_ON_FAULT), "D"(entry), "S"(stack_top)
                   : "memory");
  return error;
}

/// Where the server enters: RDI = address, RSI = rip, RDX = access, RCX = present, RSP = the top of the fault stack, or
/// below the frame of an interrupted handler. For backtraces the frame looks like a call from the fault.
__attribute__((naked)) static void fault_entry(void) {
  __asm__(
      "cld\n\t"
      "push %%rsi\n\t"
      "push %%rbp\n\t"
      "mov %%rsp, %%rbp\n\t"
      "sub $32, %%rsp\n\t"
      "mov %%rdi, (%%rsp)\n\t"
      "mov %%rsi, 8(%%rsp)\n\t"
      "mov %%edx, 16(%%rsp)\n\t"
      "mov %%ecx, 20(%%rsp)\n\t"
      "mov %%rsp, %%rdi\n\t"
      PM_SAVE_STATE
      "call *%c[handler]\n\t"
      "mov %%eax, %%edi\n\t"
      PM_RESTORE_STATE
      "mov %[fault_return], %%eax\n\t"
      "out %%al, %[port]\n\t"
      "ud2" ::[handler] "i"(&fault_handler), [fault_return] "i"(PM_CALL_FAULT_RETURN), [port] "i"(PM_CALL_PORT));
}

pm_error_t pm_set_fault_handler(int (*handler)(const struct pm_fault *fault)) {
  if (!handler) return set_entry(NULL, NULL);
  pm_error_t error = pm_measure_state();
  if (error) return error;
  fault_handler = handler;
  return set_entry(fault_entry, fault_stack + sizeof fault_stack);
}
