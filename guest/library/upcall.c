// The handlers for pm_return_pages and for device interrupts. Only one of them runs at a time, so they share one stack.
#include <physmem.h>

#include "library.h"
#include "state.h"

static PM_HANDLER_STACK(upcall) uint8_t upcall_stack[PM_HANDLER_STACK_SIZE];
static void (*upcall_handler)(uint32_t count);

// No other code writes these while the handler runs, and the handler does not nest.
static volatile uint32_t holds, held_back;
static volatile uint64_t held_interrupts;

static void (*interrupt_handler)(uint64_t devices);

static pm_error_t set_entry(uint32_t call, void (*entry)(void)) {
  pm_error_t error;
  __asm__ volatile("out %%al, %1"
                   : "=a"(error)
                   : "i"(PM_CALL_PORT), "0"(call), "D"(entry), "S"(entry ? upcall_stack + sizeof upcall_stack : NULL)
                   : "memory");
  return error;
}

__attribute__((used)) static void handle_upcall(uint32_t count) {
  uint32_t interrupted = pm_calls_task_handler;
  pm_calls_task_handler = 0;
  if (holds) held_back += count;
  else if (upcall_handler) upcall_handler(count);
  pm_calls_task_handler = interrupted;
}

__attribute__((used)) static void handle_interrupt(uint64_t devices) {
  uint32_t interrupted = pm_calls_task_handler;
  pm_calls_task_handler = 0;
  if (holds) held_interrupts |= devices;
  else if (interrupt_handler) interrupt_handler(devices);
  pm_calls_task_handler = interrupted;
}

/// Where the server enters: RDI = the handler's argument, RSP = the top of the upcall stack.
#define ENTRY(name, handle)                                                                                   \
  __attribute__((naked)) static void name(void) {                                                             \
    __asm__(                                                                                                  \
        "cld\n\t"                                                                                             \
        "xor %%ebp, %%ebp\n\t"                                                                                \
        PM_SAVE_STATE                                                                                         \
        "call %c[handler]\n\t"                                                                                \
        PM_RESTORE_STATE                                                                                      \
        "mov %[upcall_return], %%eax\n\t"                                                                     \
        "out %%al, %[port]\n\t"                                                                               \
        "ud2" ::[handler] "i"(handle), [upcall_return] "i"(PM_CALL_UPCALL_RETURN), [port] "i"(PM_CALL_PORT)); \
  }

ENTRY(upcall_entry, handle_upcall)
ENTRY(interrupt_entry, handle_interrupt)

pm_error_t pm_on_return_pages(void (*handler)(uint32_t count)) {
  if (!handler) {
    pm_error_t error = set_entry(PM_CALL_ON_RETURN_PAGES, NULL);
    if (!error) upcall_handler = NULL;
    return error;
  }
  pm_error_t error = pm_measure_state();
  if (error) return error;
  upcall_handler = handler;
  return set_entry(PM_CALL_ON_RETURN_PAGES, upcall_entry);
}

pm_error_t pm_on_interrupt(void (*handler)(uint64_t devices)) {
  pm_error_t error = handler ? pm_measure_state() : PM_OK;
  if (error) return error;
  if (!handler) {
    // From here on no interrupt arrives, so the handler can be cleared.
    error = set_entry(PM_CALL_ON_INTERRUPT, NULL);
    if (!error) interrupt_handler = NULL;
    return error;
  }
  interrupt_handler = handler;
  return set_entry(PM_CALL_ON_INTERRUPT, interrupt_entry);
}

void pm_hold_upcalls(void) { holds++; }

void pm_let_upcalls(void) {
  if (holds > 1) {
    holds--;
    return;
  }
  // An upcall that arrives while the handler runs here is held back too: repeat until there is none.
  do {
    holds = 1;
    for (uint32_t count; (count = __atomic_exchange_n(&held_back, 0, __ATOMIC_RELAXED));)
      if (upcall_handler) upcall_handler(count);
    for (uint64_t devices; (devices = __atomic_exchange_n(&held_interrupts, 0, __ATOMIC_RELAXED));)
      if (interrupt_handler) interrupt_handler(devices);
    holds = 0;
  } while (held_back || held_interrupts);
}
