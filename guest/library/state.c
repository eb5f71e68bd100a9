// The size of the vector and floating-point state that a handler must save.
#include <cpuid.h>
#include <physmem.h>

#include "state.h"

uint64_t pm_state_size;
uint32_t pm_uses_xsave;
uint32_t pm_calls_task_handler;

/// The bytes that XSAVE writes for all state the server has enabled; 0 if XSAVE is not enabled.
static unsigned xsave_size(void) {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 0;
  if (!__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx)) return 0;
  return ebx;
}

pm_error_t pm_measure_state(void) {
  if (pm_state_size) return PM_OK;
  unsigned size = xsave_size();
  if (size > PM_STATE_MOST) return PM_ENOMEM;
  pm_uses_xsave = size != 0;
  pm_state_size = size ? size : 512;
  return PM_OK;
}
