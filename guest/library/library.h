// Declarations that the library's files share and programs do not see.
#ifndef PHYSMEM_LIBRARY_H
#define PHYSMEM_LIBRARY_H

#include <physmem.h>
#include <stddef.h>
#include <stdint.h>

/// The TSC's frequency as passed at the start; 0 if the server does not know it. Set if linked.
extern uint64_t pm_tsc_khz;

/// The PM_START_… flags passed at the start. Set if linked.
extern uint32_t pm_start_flags;

/// The bare calls, without the library's record of mappings.
pm_error_t pm_map_call(pm_container_t container, pm_frame_t start, uint32_t count, void *address, uint32_t flags);
pm_error_t pm_unmap_call(void *address, uint32_t count);
pm_error_t pm_get_policy_buffer_call(pm_cap_t control, void *address, uint32_t *entries);

/// Sets the handler that the fault trampoline calls.
pm_error_t pm_set_fault_handler(int (*handler)(const struct pm_fault *fault));

/// Between the two calls no pm_return_pages handler begins: for data that the handler may need in a consistent state.
/// The second runs a handler that was held off. Null if the program has no such handler.
__attribute__((weak)) void pm_hold_upcalls(void);
__attribute__((weak)) void pm_let_upcalls(void);

/// The arguments of main, for programs whose main does not receive them. Set if linked.
struct pm_arguments {
  char **values;
  int count;
};
extern struct pm_arguments pm_arguments;

/// Writes out the text that printf buffers.
void pm_flush(void);

/// Writes the digits of a floating-point number as printf's `conversion` (one of fFeEgG) would, without sign or
/// padding; returns their number, at most PM_FLOAT_TEXT.
#define PM_FLOAT_TEXT 512
size_t pm_format_float(char *text, double value, char conversion, int precision, int alternative);

/// mantissa * 2^exponent, rounded once, to nearest, half to even, to a number with that many binary digits whose last
/// one is at least 2^least; 53 and -1074 for a double, 24 and -149 for a float. `rest`: the exact value is larger by
/// less than the mantissa's last place; the mantissa has two digits more than the result then.
double pm_round_float(unsigned __int128 mantissa, int exponent, bool rest, int digits, int least);

#endif
