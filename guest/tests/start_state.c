// A task's registers at its start, and a task that leaves as much state behind as it can. The machine's own tests run
// them one after the other on one vCPU; each must pass alone too. docs/internals/notes/task-state.md lists all the
// state.
#include "processor.h"
#include "test.h"

#define LEGACY 512
#define HEADER 64
#define STATE_MOST (16 << 10)

/// The image that XSAVE writes, in its standard form: Intel SDM volume 1, 13.4.
struct state {
  uint16_t control, status;
  uint8_t tags, reserved;
  uint16_t opcode;
  uint64_t instruction, data;
  uint32_t vector_control, vector_control_mask;
  uint8_t x87[8][16], vectors[16][16];
  uint8_t unused[96];
  uint64_t components, format, zero[6];
  uint8_t extended[STATE_MOST - LEGACY - HEADER];
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct state, components) == LEGACY, "components");

static struct state state;

static void save(void) {
  if (!has_xsave()) {
    __asm__ volatile("fxsave64 %0" : "+m"(state));
    return;
  }
  CHECK(cpuid(0xd, 0).b <= sizeof state);
  __asm__ volatile("xsave64 %0" : "+m"(state) : "a"(-1), "d"(-1));
}

struct selectors {
  uint16_t ds, es, fs, gs;
};

static struct selectors selectors(void) {
  struct selectors s;
  __asm__ volatile("mov %%ds, %0\n\tmov %%es, %1\n\tmov %%fs, %2\n\tmov %%gs, %3"
                   : "=m"(s.ds), "=m"(s.es), "=m"(s.fs), "=m"(s.gs));
  return s;
}

static uint32_t protection_keys(void) {
  uint32_t keys, unused;
  __asm__ volatile("rdpkru" : "=a"(keys), "=d"(unused) : "c"(0));
  return keys;
}

static void check_segments(void) {
  struct selectors s = selectors();
  CHECK_EQ(s.ds, 0);
  CHECK_EQ(s.es, 0);
  CHECK_EQ(s.fs, 0);
  CHECK_EQ(s.gs, 0);
  if (!has_fs_gs_base()) return;
  uint64_t fs, gs;
  __asm__ volatile("rdfsbase %0\n\trdgsbase %1" : "=r"(fs), "=r"(gs));
  CHECK_EQ(fs, 0);
  CHECK_EQ(gs, 0);
}

PM_TEST(clean, 0, 1, "Safety: a task starts with clear vector, floating-point, segment and control state") {
  save();
  uint64_t flags;
  __asm__ volatile("pushfq\n\tpop %0" : "=r"(flags));
  CHECK_EQ(state.vector_control, 0x1f80);
  CHECK_EQ(state.control, 0x37f);
  CHECK_EQ(state.status, 0);
  CHECK_EQ(state.tags, 0);
  CHECK_EQ(state.opcode, 0);
  CHECK_EQ(state.instruction, 0);
  CHECK_EQ(state.data, 0);
  CHECK(is_zero(state.x87, sizeof state.x87));
  // Earlier code of the compiler may use the first vectors, never the last, and none of the extensions.
  CHECK(is_zero(state.vectors[8], sizeof state.vectors / 2));
  CHECK(is_zero(state.extended, sizeof state.extended));
  // Apart from the arithmetic flags: of AC, ID, NT, IOPL, DF, TF, RF and the interrupt flags only IF is set.
  CHECK_EQ(flags & ~0x8d5ull, 0x202);
  check_segments();
  if (has_protection_keys()) CHECK_EQ(protection_keys(), 0);
}

// ---- a task that leaves everything changed ---------------------------------------------------

/// Fills a component of the state, if present, with arbitrary bits.
static void fill(unsigned component) {
  struct cpuid place = cpuid(0xd, component);
  if (!(state_components() >> component & 1) || place.b < LEGACY + HEADER) return;
  memset((uint8_t *)&state + place.b, 0xa5, place.a);
  state.components |= 1ull << component;
}

/// All of the x87, with an unmasked exception, so that AMD's processors keep the pointers; all vectors.
static void spoil_vectors(void) {
  save();
  state.control = 0x27e;
  state.status = 0x80c1;
  state.tags = 0xff;
  state.opcode = 0x123;
  state.instruction = state.data = 0x123456;
  memset(state.x87, 0x5a, sizeof state.x87);
  memset(state.vectors, 0xff, sizeof state.vectors);
  state.vector_control = 0x9fc0;
  if (!has_xsave()) {
    __asm__ volatile("fxrstor64 %0" ::"m"(state));
    return;
  }
  state.components |= 3;
  // AVX; AVX-512's masks, upper halves and further registers. Tasks cannot use MPX bounds.
  const unsigned components[] = {2, 5, 6, 7};
  for (size_t i = 0; i < sizeof components / sizeof *components; i++) fill(components[i]);
  __asm__ volatile("xrstor64 %0" ::"m"(state), "a"(state.components & 0xe7), "d"(0));
}

static void spoil_segments(void) {
  // The stack's data selector is the only one that is valid with any descriptor table.
  __asm__ volatile("mov %%ss, %%eax\n\tmov %%eax, %%ds\n\tmov %%eax, %%es\n\tmov %%eax, %%fs\n\tmov %%eax, %%gs" ::: "rax");
  if (has_fs_gs_base()) __asm__ volatile("wrfsbase %0\n\twrgsbase %0" ::"r"(0x1234000ull));
}

PM_TEST(dirty, 7, 1, "Safety: a task that ends with everything changed") {
  spoil_segments();
  if (has_protection_keys()) __asm__ volatile("wrpkru" ::"a"(0xfffffffc), "c"(0), "d"(0) : "memory");
  spoil_vectors();
  // Direction flag, alignment checks and more flags, then the exit, without further code of the library.
  __asm__ volatile(
      "mov $7, %%edi\n\tmov %0, %%eax\n\tpushfq\n\torq $0x244cd5, (%%rsp)\n\tpopfq\n\tout %%al, %1"
      ::"i"(PM_CALL_EXIT), "i"(PM_CALL_PORT)
      : "rax", "rdi", "memory", "cc");
}

// ---- protection keys: on most machines an invalid instruction --------------------------------

PM_TEST(denies_itself, 0 or 142, 1,
        "Safety: a task that denies itself access to its own pages dies of it, if it has protection keys") {
  if (!has_protection_keys()) return;
  __asm__ volatile("wrpkru" ::"a"(0xffffffff), "c"(0), "d"(0) : "memory");
  *(volatile int *)&state.control = 5;
  __asm__ volatile("wrpkru" ::"a"(0), "c"(0), "d"(0) : "memory");
  CHECK(!"a page was written against the protection keys");
}
PM_TEST(denies_itself_writes, 0 or 142, 1, "Safety: the same for writes, to a page that was read before") {
  if (!has_protection_keys()) return;
  map_fresh(REGION, 1);
  CHECK_EQ(WORD(REGION, 0), 0);
  __asm__ volatile("wrpkru" ::"a"(0xaaaaaaaa), "c"(0), "d"(0) : "memory");
  __asm__ volatile("movl $1, (%0)" ::"r"(REGION) : "memory");
  __asm__ volatile("wrpkru" ::"a"(0), "c"(0), "d"(0) : "memory");
  CHECK(!"a page was written against the protection keys");
}
