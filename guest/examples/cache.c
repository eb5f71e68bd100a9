// A cache of computed blocks that uses all extra frames (R5), gives them back when asked (R28), and later recovers
// those that were not reused (R31). docs/reference/reclaim.md walks through it.
//
// Block n has id n in one container and a fixed page, whether it is cached or not.
//
//      absent ── allocated, computed ──▶ here ── released: the least recently used ──▶ released
//                                          ◀── recovered, if the server did not use the frame, else computed ──┘
#include <physmem.h>

PM_PROGRAM("Caches blocks in extra frames, and gives them back when asked: cache [MILLISECONDS].");

#define BLOCKS 6000
#define WORDS (PM_PAGE_SIZE / sizeof(uint64_t))
#define PAGES ((uint64_t (*)[WORDS])0x100000000000ull)
#define ROW_US 100000

enum state { ABSENT, HERE, RELEASED };

/// The blocks that are here form a ring through block 0, which is never requested; the head's next was used last.
static struct block {
  enum state state;
  uint32_t previous, next;
} blocks[BLOCKS];
static pm_container_t container;
static uint64_t hits, misses, recovered;
static volatile uint64_t upcalls;

static void check(const char *what, pm_error_t error) {
  if (!error) return;
  printf("cache: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

// ---- the order of use ------------------------------------------------------------

static void leave_ring(uint32_t block) {
  blocks[blocks[block].previous].next = blocks[block].next;
  blocks[blocks[block].next].previous = blocks[block].previous;
}

static void enter_ring(uint32_t block) {
  blocks[block].previous = 0;
  blocks[block].next = blocks[0].next;
  blocks[blocks[0].next].previous = block;
  blocks[0].next = block;
}

/// Releases the `count` least recently used blocks. The server keeps their contents while it can.
static void release_oldest(uint32_t count) {
  static pm_frame_t oldest[BLOCKS];
  uint32_t found = 0;
  while (found < count && blocks[0].previous) {
    uint32_t block = blocks[0].previous;
    leave_ring(block);
    blocks[block].state = RELEASED;
    oldest[found++] = block;
  }
  if (found) check("releasing", pm_release_pages(container, oldest, found));
}

// ---- requests for frames --------------------------------------------------------

/// While the ring is being changed a request is deferred until the change is done, for some microseconds.
static volatile bool is_busy;
static volatile uint32_t owed;

static void give_back(uint32_t count) {
  upcalls++;
  if (is_busy) owed += count;
  else release_oldest(count);
}

/// Keeps the compiler from moving the changes out of the section that the flag protects.
static void set_busy(bool value) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  is_busy = value;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void begin_change(void) { set_busy(true); }

static void end_change(void) {
  while (true) {
    uint32_t count = __atomic_exchange_n(&owed, 0, __ATOMIC_RELAXED);
    release_oldest(count);
    set_busy(false);
    // A request may have arrived just before.
    if (!owed) return;
    set_busy(true);
  }
}

// ---- blocks ----------------------------------------------------------------------

static void compute(uint32_t block) {
  uint64_t value = block;
  for (uint32_t i = 0; i < WORDS; i++) PAGES[block][i] = value = value * 6364136223846793005u + 1442695040888963407u;
}

static bool is_right(uint32_t block) {
  return PAGES[block][0] == block * 6364136223846793005u + 1442695040888963407u;
}

/// Tries a call that takes a frame. If none is left it releases the least recently used block; or more of them, since
/// another task may be waiting for its guarantee and gets the released frames first.
#define WITH_ROOM(call)                                                     \
  ({                                                                        \
    pm_error_t room_error;                                                  \
    while ((room_error = (call)) == PM_ENOMEM && blocks[0].previous) {      \
      uint32_t room_owed = __atomic_exchange_n(&owed, 0, __ATOMIC_RELAXED); \
      release_oldest(room_owed ? room_owed : 1);                            \
    }                                                                       \
    room_error;                                                             \
  })

static pm_error_t allocate(uint32_t block) {
  uint32_t count = 1;
  return pm_container_allocate(container, block, &count, PM_ALLOC_EXTRA);
}

static void show(uint32_t block) {
  uint32_t rights = PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY;
  check("mapping", pm_container_map(container, block, 1, PAGES[block], rights));
}

/// Returns false if the block's content is gone.
static bool recover(uint32_t block) {
  pm_frame_t frame = block;
  pm_error_t error = WITH_ROOM(pm_recover_pages(container, &frame, 1, NULL));
  if (error != PM_ENOEXIST) check("recovering", error);
  return !error;
}

static void fetch(uint32_t block) {
  if (blocks[block].state == RELEASED && recover(block)) {
    recovered++;
  } else {
    check("allocating", WITH_ROOM(allocate(block)));
    // A mapping names an id, so it still applies if the id had another frame before.
    if (blocks[block].state == ABSENT) show(block);
    compute(block);
    misses++;
  }
  blocks[block].state = HERE;
  enter_ring(block);
}

static void look_up(uint32_t block) {
  begin_change();
  if (blocks[block].state == HERE) {
    hits++;
    leave_ring(block);
    enter_ring(block);
  } else {
    fetch(block);
  }
  if (!is_right(block)) {
    printf("cache: block %u has changed\n", block);
    exit(1);
  }
  end_change();
}

/// Low numbers are more frequent than high ones.
static uint32_t next_block(void) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  uint64_t one = state >> 48, other = state >> 32 & 0xffff;
  return 1 + (uint32_t)((one * other >> 16) * (BLOCKS - 1) >> 16);
}

// ---- the program -----------------------------------------------------------------

static void show_row(uint64_t time) {
  struct pm_task_info info;
  check("pm_task_info", pm_task_info(&info));
  printf("%7lu %10lu %10lu %8lu %8lu %9lu %8lu\n", time / 1000, info.allocated, info.guaranteed, hits, misses,
         recovered, upcalls);
  hits = misses = recovered = 0;
}

int main(int argc, char **argv) {
  uint64_t duration = argc > 1 ? strtoul(argv[1], NULL, 10) * 1000 : 2400000;
  check("making a container", pm_container_create(&container));
  check("pm_on_return_pages", pm_on_return_pages(give_back));
  printf("%7s %10s %10s %8s %8s %9s %8s\n", "ms", "allocated", "guaranteed", "hits", "misses", "recovered", "upcalls");
  uint64_t start = pm_clock_us(), row = ROW_US;
  for (uint64_t time = 0; time < duration; time = pm_clock_us() - start) {
    for (int i = 0; i < 50; i++) look_up(next_block());
    for (; time >= row; row += ROW_US) show_row(row);
    pm_sleep(500);
  }
  return 0;
}
