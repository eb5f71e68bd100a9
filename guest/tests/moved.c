// Instructions that take long, or that KVM emulates, on pages whose contents are moved between frames all the
// time: strings, atomic operations, and on a KVM in software far calls. No write is lost (R17, R25).
// docs/internals/notes/grace-periods.md lists the instructions that KVM emulates.
#include "test.h"

enum { PAGES = 4, WORKERS = 2, ROUNDS = 40 };

/// Data that the tasks of a case share, in the page after the last one.
struct board {
  volatile uint64_t is_over;
};
#define BOARD ((struct board *)PAGE(REGION_2, PAGES))

/// Works on the pages until the others are done, and counts the rounds.
static void work(unsigned number, void (*body)(unsigned number, char *page, uint64_t round)) {
  pm_cap_t weak = ask(1, PM_CAP_NONE).caps[0];
  map_lazily(weak, 0, PAGES + 1, REGION_2);
  uint64_t rounds = 0;
  for (; !BOARD->is_over; rounds++)
    for (int i = 0; i < PAGES; i++) body(number, PAGE(REGION_2, i), rounds);
  ask(rounds, PM_CAP_NONE);
}

/// Makes the server move a frame's content, and fills the frame.
static void take_frame(pm_container_t container, uint64_t physical, int byte) {
  uint32_t count = 1;
  pm_error_t error = pm_container_allocate_placed(container, 0, &count, 0, &(struct pm_placement){.fixed = physical});
  // The content may have moved already, and the content there now may be immovable.
  if (error == PM_ENOMEM) return;
  CHECK_OK(error);
  memset(REGION, byte, PM_PAGE_SIZE);
  count = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
}

/// Moves the pages that the workers use.
/// - Returns: how many rounds they did together.
static uint64_t move_all(void) {
  pm_container_t shared = map_fresh(REGION_2, PAGES + 1), container = make_container(1), weak;
  map_lazily(container, 0, 1, REGION);
  uint32_t count = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
  for (int i = 0; i < PAGES; i++) WORD(REGION_2, i) = 0;
  for (int i = 0; i < WORKERS; i++) {
    struct pm_message message = next_question();
    CHECK_OK(pm_container_share(shared, PM_CAP_NONE, &weak));
    answer(&message, 0, weak);
  }
  for (int round = 0; round < ROUNDS; round++)
    for (int i = 0; i < PAGES; i++)
      take_frame(container, mapping_at(PAGE(REGION_2, i)).physical, round & 1 ? 0x06 : 0x00);
  BOARD->is_over = 1;
  uint64_t rounds = 0;
  for (int i = 0; i < WORKERS; i++) {
    struct pm_message message = next_question();
    rounds += message.words[0];
    answer(&message, 0, PM_CAP_NONE);
  }
  CHECK(rounds > 0);
  return rounds;
}

/// Each worker has its own kilobyte of a page.
static char *own_part(unsigned number, char *page) { return page + number * 1024; }

// ---- strings -------------------------------------------------------------------------------

static void write_strings(unsigned number, char *page, uint64_t round) {
  static char copy[512];
  uint64_t *part = (uint64_t *)own_part(number, page), fill = round * 0x9e3779b97f4a7c15ull + number;
  const void *from = part;
  void *to = part;
  uint64_t count = 128;
  __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(fill) : "memory");
  for (int i = 0; i < 128; i++) CHECK_EQ(part[i], fill);
  to = copy;
  count = sizeof copy;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
  for (size_t i = 0; i < sizeof copy; i += 8) CHECK_EQ(*(uint64_t *)(copy + i), fill);
  // Backwards, one half of the part onto the other, which differs.
  for (int i = 0; i < 64; i++) part[i] = ~fill;
  from = part + 63;
  to = part + 127;
  count = 64;
  __asm__ volatile("std\n\trep movsq\n\tcld" : "+D"(to), "+S"(from), "+c"(count)::"memory", "cc");
  for (int i = 0; i < 128; i++) CHECK_EQ(part[i], ~fill);
}

PM_TEST(strings, 0, 3, "R17, R25: strings are written, copied and read back while their pages are moved") {
  unsigned number = join(3);
  if (number) work(number, write_strings);
  else move_all();
}

/// Each byte is a call, and KVM reads it from the page.
static void call_by_string(unsigned number, char *page, uint64_t round) {
  (void)round;
  const char *from = own_part(number, page);
  uint64_t count = 4, result = PM_CALL_NULL;
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count), "+a"(result) : "d"(PM_CALL_PORT) : "memory");
  CHECK_EQ(count, 0);
  CHECK_EQ(from, own_part(number, page) + 4);
  CHECK_EQ(result, PM_OK);
}

PM_TEST(strings_to_port, 0, 3, "R17, R25: strings are written to the call port while their pages are moved") {
  unsigned number = join(3);
  if (number) work(number, call_by_string);
  else move_all();
}

// ---- atomic operations ------------------------------------------------------------------------

struct pair {
  uint64_t low, high;
} __attribute__((aligned(16)));

/// Counts in a word and in a pair of words of the page, which all workers share.
static void count_atomically(unsigned number, char *page, uint64_t round) {
  (void)number, (void)round;
  uint64_t one = 1;
  __asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(*(uint64_t *)page)::"memory", "cc");
  struct pair *pair = (struct pair *)(page + 64);
  uint64_t low = pair->low, high = pair->high;
  bool done;
  do
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*pair), "+a"(low), "+d"(high)
                     : "b"(low + 1), "c"(high - 1)
                     : "memory");
  while (!done);
  __asm__ volatile("lock btsq %1, %0" : "+m"(*(uint64_t *)(page + 128)) : "r"(round % 64) : "memory", "cc");
}

PM_TEST(atomics, 0, 3, "R17, R25: two tasks count in pages that are moved: no count is lost") {
  unsigned number = join(3);
  if (number) return work(number, count_atomically);
  uint64_t rounds = move_all();
  for (int i = 0; i < PAGES; i++) {
    struct pair *pair = (struct pair *)(PAGE(REGION_2, i) + 64);
    CHECK_EQ(WORD(REGION_2, i), rounds);
    CHECK_EQ(pair->low, rounds);
    CHECK_EQ(pair->high, -rounds);
  }
}

// ---- far calls ---------------------------------------------------------------------------------

/// The code segment of tasks in the machine's table. On kvm_pvm the processor's table has another entry there, and
/// KVM emulates the call: it pushes two words on a stack in the page.
#define TASK_CODE_SEGMENT 0x1b

static void call_far(unsigned number, char *page, uint64_t round) {
  struct {
    uint32_t offset;
    uint16_t segment;
  } __attribute__((packed)) target = {.segment = TASK_CODE_SEGMENT};
  volatile uint64_t *top = (uint64_t *)own_part(number, page) + 2 + round % 100;
  uint64_t back;
  top[-1] = ~round;
  __asm__ volatile(
      "lea 1f(%%rip), %[back]\n\tmov %k[back], (%[target])\n\tmov %%rsp, %%rbx\n\tmov %[top], %%rsp\n\t"
      "lcall *(%[target])\n1:\n\tmov %%rbx, %%rsp"
      : [back] "=&r"(back)
      : [target] "r"(&target), [top] "r"(top)
      : "rbx", "memory");
  CHECK_EQ(top[-1], (uint64_t)TASK_CODE_SEGMENT << 32 | (uint32_t)back);
}

PM_TEST(far_calls, 0, 3, "R17, R25: far calls push correctly while the pages of their stacks are moved") {
  unsigned number = join(3);
  if (number) work(number, call_far);
  else move_all();
}
