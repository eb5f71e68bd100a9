// The processor's features, by CPUID. A case that depends on a feature checks for it.
#ifndef PHYSMEM_TEST_PROCESSOR_H
#define PHYSMEM_TEST_PROCESSOR_H

#include <stdbool.h>
#include <stdint.h>

struct cpuid {
  uint32_t a, b, c, d;
};

/// All zero for a leaf beyond the last one.
static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
  struct cpuid r = {.a = leaf & 0x80000000};
  __asm__ volatile("cpuid" : "+a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "2"(0));
  if (r.a < leaf) return (struct cpuid){0};
  r.a = leaf;
  r.c = subleaf;
  __asm__ volatile("cpuid" : "+a"(r.a), "=b"(r.b), "+c"(r.c), "=d"(r.d));
  return r;
}

/// XSAVE is present and enabled; and the value of XCR0.
static inline bool has_xsave(void) { return cpuid(1, 0).c & 1u << 27; }
static inline uint64_t state_components(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}
static inline bool has_sse41(void) { return cpuid(1, 0).c & 1u << 19; }
static inline bool has_fs_gs_base(void) { return cpuid(7, 0).b & 1; }
/// UMIP is present: SGDT, SIDT, SLDT, STR and SMSW can be forbidden.
static inline bool has_instruction_prevention(void) { return cpuid(7, 0).c & 1u << 2; }
/// Protection keys are enabled: WRPKRU and RDPKRU work.
static inline bool has_protection_keys(void) { return cpuid(7, 0).c & 1u << 4; }

#endif
