// Handlers that the server enters in the midst of other code: their trampolines. The server keeps the interrupted
// general registers; vector and floating-point state is kept here, which costs the server more than the task.
#ifndef PHYSMEM_STATE_H
#define PHYSMEM_STATE_H

#include <stdint.h>

/// Bytes that PM_SAVE_STATE needs, and whether XSAVE writes them; set by pm_measure_state.
extern uint64_t pm_state_size;
extern uint32_t pm_uses_xsave;

/// The task's own fault handler is at work: a fault in it is the end. A pm_return_pages handler that interrupts it may have
/// faults of its own.
extern uint32_t pm_calls_task_handler;

/// Finds out what state there is to save. PM_ENOMEM: more than a handler's stack has room for.
int32_t pm_measure_state(void);

/// Whole pages, with unmapped ones below them: see task.ld.
#define PM_HANDLER_STACK(name) __attribute__((section(".bss.pm_" #name "_stack"), aligned(4096)))
/// A handler's stack: room for the state, and 32 KiB for the handler, in any case.
#define PM_HANDLER_STACK_SIZE (48u << 10)
/// The largest state there is today, with matrix tiles, takes 11 KiB.
#define PM_STATE_MOST (16u << 10)

/// Saves the state below RSP, which is aligned for a call then; RBX says where. Destroys RAX and RDX.
/// XSAVE leaves most of the area's header alone, and XRSTOR wants that zero.
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

/// Puts the state back that lies at RBX. Destroys RAX and RDX.
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
