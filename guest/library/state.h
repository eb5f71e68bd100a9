// Trampolines of handlers that the server enters by interrupting other code. The server saves the general registers;
// the trampoline saves vector and floating-point state, which would cost the server more than the task.
#ifndef PHYSMEM_STATE_H
#define PHYSMEM_STATE_H

#include <stdint.h>

/// Bytes that PM_SAVE_STATE needs, and whether it uses XSAVE; set by pm_measure_state.
extern uint64_t pm_state_size;
extern uint32_t pm_uses_xsave;

/// The task's own fault handler is running: a fault in it ends the task. A pm_return_pages handler above it may fault.
extern uint32_t pm_calls_task_handler;

/// Determines the state to save. PM_ENOMEM: it is too large for a handler's stack.
int32_t pm_measure_state(void);

/// Whole pages, with unmapped ones below them: see task.ld.
#define PM_HANDLER_STACK(name) __attribute__((section(".bss.pm_" #name "_stack"), aligned(4096)))
/// A handler's stack: room for the state, and at least 32 KiB for the handler.
#define PM_HANDLER_STACK_SIZE (48u << 10)
/// The largest state today, with matrix tiles, takes 11 KiB.
#define PM_STATE_MOST (16u << 10)

/// Saves the state below RSP, aligns RSP for a call, and sets RBX to the saved state. Destroys RAX and RDX.
/// XSAVE does not write most of the area's header, and XRSTOR needs it to be zero.
#define PM_SAVE_STATE              \
  "sub pm_state_size, %%rsp\n\t"   \
  "and $-64, %%rsp\n\t"            \
  "mov %%rsp, %%rbx\n\t"           \
  "cmpl $0, pm_uses_xsave\n\t"     \
  "je 1f\n\t"                      \
  "xor %%eax, %%eax\n\t"           \
  "mov %%rax, 512(%%rbx)\n\t"      \
  "mov %%rax, 520(%%rbx)\n\t"      \
  "mov %%rax, 528(%%rbx)\n\t"      \
  "mov %%rax, 536(%%rbx)\n\t"      \
  "mov %%rax, 544(%%rbx)\n\t"      \
  "mov %%rax, 552(%%rbx)\n\t"      \
  "mov %%rax, 560(%%rbx)\n\t"      \
  "mov %%rax, 568(%%rbx)\n\t"      \
  "mov $-1, %%eax\n\t"             \
  "mov $-1, %%edx\n\t"             \
  "xsave64 (%%rbx)\n\t"            \
  "jmp 2f\n"                       \
  "1:\n\t"                         \
  "fxsave64 (%%rbx)\n"             \
  "2:\n\t"

/// Restores the state at RBX. Destroys RAX and RDX.
#define PM_RESTORE_STATE       \
  "mov $-1, %%eax\n\t"         \
  "mov $-1, %%edx\n\t"         \
  "cmpl $0, pm_uses_xsave\n\t" \
  "je 3f\n\t"                  \
  "xrstor64 (%%rbx)\n\t"       \
  "jmp 4f\n"                   \
  "3:\n\t"                     \
  "fxrstor64 (%%rbx)\n"        \
  "4:\n\t"

#endif
