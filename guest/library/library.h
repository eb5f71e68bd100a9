// What the library's files share and programs do not see.
#ifndef PHYSMEM_LIBRARY_H
#define PHYSMEM_LIBRARY_H

#include <physmem.h>
#include <stddef.h>
#include <stdint.h>

/// The TSC's frequency as the task's first registers gave it; 0 where the server does not know. Set where linked.
extern uint64_t pm_tsc_khz;

/// The PM_START_… flags that the task's first registers gave. Set where linked.
extern uint32_t pm_start_flags;

/// The calls themselves, without what the library remembers of mappings.
pm_error_t pm_map_call(pm_container_t container, pm_frame_t start, uint32_t count, void *address, uint32_t flags);
pm_error_t pm_unmap_call(void *address, uint32_t count);
pm_error_t pm_get_policy_buffer_call(pm_cap_t control, void *address, uint32_t *entries);

/// Makes `handler` the one that the fault trampoline calls.
pm_error_t pm_set_fault_handler(int (*handler)(const struct pm_fault *fault));

/// From the first to the second no pm_return_pages handler begins: for code that the handler may need whole. It is called
/// by the second then. Null where the program has no such handler.
__attribute__((weak)) void pm_hold_upcalls(void);
__attribute__((weak)) void pm_let_upcalls(void);

/// What main was called with, for programs whose main does not see it. Set where linked.
struct pm_arguments {
  char **values;
  int count;
};
extern struct pm_arguments pm_arguments;

/// Writes out what printf holds back.
void pm_flush(void);

/// Writes the digits of a floating-point number as printf's `conversion` (one of fFeEgG) would, without sign or
/// padding; returns their number, at most PM_FLOAT_TEXT.
#define PM_FLOAT_TEXT 512
size_t pm_format_float(char *text, double value, char conversion, int precision, int alternative);

/// mantissa * 2^exponent, rounded once, to nearest, half to even, to a number of so many binary digits whose last one is
/// at least 2^least; 53 and -1074 for a double, 24 and -149 for a float. `rest`: something smaller than the mantissa's
/// last place is to be added; the mantissa has two digits more than the result then.
double pm_round_float(unsigned __int128 mantissa, int exponent, bool rest, int digits, int least);

#endif
