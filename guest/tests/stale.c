// Stale translations: one task writes all the time, on its own vCPU and without exits, while another one takes its
// frames. No write may reach a frame after it was zapped, whatever KVM and the processor have cached
// (Safety; R24 to R26). Each case fails if a zap does nothing; docs/internals/notes/backends.md lists where it was tried.
#include "test.h"

enum { PAGES = 8, ROUNDS = 60, LOOKS = 3000 };

/// Watches words for a while: long enough for an outstanding write on another vCPU to land.
static void check_still(const char *base, const uint64_t *expected, int word) {
  for (int look = 0; look < LOOKS; look++)
    for (int i = 0; i < PAGES; i++) CHECK_EQ(((volatile uint64_t *)PAGE(base, i))[word], expected[i]);
}

// ---- freed and reused ----------------------------------------------------------------

static pm_container_t scratch;
static volatile bool has_gone;

/// The first page that is unmapped ends the round; further writes go to a scratch page.
static int note_end(const struct pm_fault *fault) {
  has_gone = true;
  return pm_container_map(scratch, 0, 1, (void *)(fault->address & -4096ull), LAZY_READ_WRITE);
}

static void write_until_gone(void) {
  scratch = make_container(1);
  CHECK_OK(pm_on_fault(note_end));
  struct pm_message message = next_question();
  for (; message.words[0]; message = next_question()) {
    CHECK_OK(pm_container_map(message.caps[0], 0, PAGES, REGION_2, LAZY_READ_WRITE));
    for (int i = 0; i < PAGES; i++) WORD(REGION_2, i) = 1;
    has_gone = false;
    answer(&message, 0, PM_CAP_NONE);
    for (uint64_t n = 1; !has_gone; n++)
      for (int i = 0; i < PAGES; i++) WORD(REGION_2, i) = ~n;
    CHECK_OK(pm_unmap(REGION_2, PAGES));
    CHECK_OK(pm_cap_drop(message.caps[0]));
  }
  answer(&message, 0, PM_CAP_NONE);
}

/// Takes all frames but a few, so that freed frames are reused next.
static void take_the_rest(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  CHECK(info.available > 4 * PAGES);
  uint32_t count = (uint32_t)info.available - 4 * PAGES;
  char *hoard = REGION + (1ull << 40);
  (void)map_fresh(hoard, count);
  for (uint32_t i = 0; i < count; i++) WORD(hoard, i) = i;
}

PM_TEST(freed, 0, 2, "Safety: frames are freed while a task writes them, and it does not change their next contents") {
  if (!join(2)) return write_until_gone();
  take_the_rest();
  for (uint64_t round = 1; round <= ROUNDS; round++) {
    pm_container_t victim = map_fresh(REGION, PAGES), weak;
    CHECK_OK(pm_container_share(victim, PM_CAP_NONE, &weak));
    ask(1, weak);
    CHECK_OK(pm_cap_drop(weak));
    pm_sleep(500);
    CHECK_OK(pm_container_destroy(victim));
    // More than were freed, since some other frames are free too.
    pm_container_t fresh = map_fresh(REGION, 3 * PAGES);
    uint64_t expected[PAGES];
    for (int part = 0; part < 3; part++) {
      char *base = PAGE(REGION, part * PAGES);
      for (int i = 0; i < PAGES; i++) {
        CHECK_EQ(WORD(base, i), 0);
        WORD(base, i) = expected[i] = round << 8 | (uint64_t)i;
      }
      check_still(base, expected, 0);
    }
    CHECK_OK(pm_container_destroy(fresh));
  }
  ask(0, PM_CAP_NONE);
}

// ---- copied on write -----------------------------------------------------------------------

// Each writer has its own word in each page; a word of the page after the last tells them to stop.
enum { STOP = PAGES };

/// Counts up in its word of each page, and checks what it wrote, at once and in the next round.
static void write_until_stopped(unsigned number) {
  pm_container_t weak = ask(1, PM_CAP_NONE).caps[0];
  map_lazily(weak, 0, PAGES + 1, REGION_2);
  for (uint64_t n = 0; !WORD(REGION_2, STOP); n++)
    for (int i = 0; i < PAGES; i++) {
      volatile uint64_t *word = (volatile uint64_t *)PAGE(REGION_2, i) + number;
      CHECK_EQ(*word, n);
      *word = n + 1;
      CHECK_EQ(*word, n + 1);
    }
  ask(2, PM_CAP_NONE);
}

/// Creates the pages at REGION, and lets `writers` tasks write them.
static pm_container_t start_writers(unsigned writers) {
  pm_container_t source = map_fresh(REGION, PAGES + 1), weak;
  for (unsigned i = 0; i < writers; i++) {
    struct pm_message question = next_question();
    CHECK_OK(pm_container_share(source, PM_CAP_NONE, &weak));
    answer(&question, 0, weak);
  }
  return source;
}

/// Waits for the writers, whose data ends with its owner.
static void stop_writers(unsigned writers) {
  WORD(REGION, STOP) = 1;
  for (unsigned i = 0; i < writers; i++) {
    struct pm_message question = next_question();
    answer(&question, 0, PM_CAP_NONE);
  }
}

/// Copies the pages in a loop while `writers` tasks write the source.
static void copy_under(unsigned writers) {
  pm_container_t source = start_writers(writers), copies = make_container(PAGES);
  map_lazily(copies, 0, PAGES, REGION_2);
  uint64_t before[3][PAGES] = {};
  bool have_moved = false;
  // Until the writers advanced during a copy: else there was no race.
  for (int round = 0; round < ROUNDS || !have_moved; round++) {
    have_moved = true;
    CHECK_OK(pm_container_copy(source, 0, copies, 0, PAGES, NULL));
    for (unsigned word = 1; word <= writers; word++) {
      uint64_t *expected = before[word];
      for (int i = 0; i < PAGES; i++) {
        uint64_t now = ((volatile uint64_t *)PAGE(REGION_2, i))[word];
        CHECK(now >= expected[i]);
        have_moved &= expected[i] > 0 && now > expected[i];
        expected[i] = now;
      }
      check_still(REGION_2, expected, (int)word);
    }
  }
  stop_writers(writers);
}

PM_TEST(copied, 0, 2, "R24: a copy of pages that another task keeps writing does not change, and no write is lost") {
  unsigned number = join(2);
  if (number) write_until_stopped(number);
  else copy_under(1);
}

PM_TEST(copied_under_two, 0, 3, "R24, R26: the same with two tasks that write one page: each finds its own writes") {
  unsigned number = join(3);
  if (number) write_until_stopped(number);
  else copy_under(2);
}

// ---- revoked -----------------------------------------------------------------------------

PM_TEST(revoked, 0, 3, "R25: two tasks write pages while the server unmaps them at random, with --revoke-every") {
  unsigned number = join(3);
  if (number) return write_until_stopped(number);
  start_writers(2);
  pm_sleep(1000000);
  stop_writers(2);
}
