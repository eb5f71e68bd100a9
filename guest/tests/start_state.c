// What a task finds in its registers when it begins, and a task that leaves as much behind as it can. Run one after
// the other on one vCPU by the machine's own tests; each must hold by itself as well.
#include "test.h"

struct vectors {
  uint8_t bytes[16][32];
} __attribute__((aligned(64)));

static bool has_avx(void) {
  uint32_t a = 1, b, c = 0, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return (c & (1u << 27)) && (c & (1u << 28));
}

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

PM_TEST(clean, 0, 1, "Safety: a task begins with clear vector, segment and control state") {
  static struct vectors seen;
  if (has_avx()) {
#define STORE(n) __asm__ volatile("vmovdqu %%ymm" #n ", %0" : "=m"(seen.bytes[n]));
    EACH(STORE)
  } else {
#define STORE_SSE(n) __asm__ volatile("movdqu %%xmm" #n ", %0" : "=m"(seen.bytes[n]));
    EACH(STORE_SSE)
  }
  uint32_t mxcsr;
  uint16_t control;
  uint64_t flags, fs, gs;
  __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
  __asm__ volatile("fnstcw %0" : "=m"(control));
  __asm__ volatile("pushfq\n\tpop %0" : "=r"(flags));
  __asm__ volatile("rdfsbase %0\n\trdgsbase %1" : "=r"(fs), "=r"(gs));
  // The compiler's own code before this may use the first registers, never the last.
  for (int i = 8; i < 16; i++)
    for (int j = 0; j < 32; j++) CHECK_EQ(seen.bytes[i][j], 0);
  CHECK_EQ(mxcsr, 0x1f80);
  CHECK_EQ(control, 0x37f);
  CHECK_EQ(flags & 0x40500, 0);
  CHECK_EQ(fs, 0);
  CHECK_EQ(gs, 0);
}

PM_TEST(dirty, 7, 1, "Safety: a task that ends with everything changed") {
  static const uint64_t pattern[4] = {~0ull, ~0ull, ~0ull, ~0ull};
  if (has_avx()) {
#define LOAD(n) __asm__ volatile("vmovdqu %0, %%ymm" #n ::"m"(*(const uint64_t(*)[4])pattern));
    EACH(LOAD)
  } else {
#define LOAD_SSE(n) __asm__ volatile("movdqu %0, %%xmm" #n ::"m"(*(const uint64_t(*)[2])pattern));
    EACH(LOAD_SSE)
  }
  static const uint32_t mxcsr = 0x9fc0;
  static const uint16_t control = 0x27f;
  __asm__ volatile("ldmxcsr %0\n\tfldcw %1\n\tfld1" ::"m"(mxcsr), "m"(control));
  __asm__ volatile("wrfsbase %0\n\twrgsbase %0" ::"r"(0x1234000ull));
  // Backwards strings and alignment checks, then the end, without any more code of the library.
  __asm__ volatile(
      "mov $7, %%edi\n\tmov %0, %%eax\n\tpushfq\n\torq $0x40400, (%%rsp)\n\tpopfq\n\tout %%al, %1"
      ::"i"(PM_CALL_EXIT), "i"(PM_CALL_PORT)
      : "rax", "rdi", "memory", "cc");
}
