// Superpages: memory mapped by a superpage behaves to a task like single pages (R18, R24 to R26).
// The server decides whether to map one: the cases look for adjacent frames, and continue without.
#include "test.h"

enum { PAGES = 512, TRIES = 6 };

static pm_container_t container;

/// Whether the frames of 2 MiB are adjacent, from a multiple of 2 MiB on.
static bool is_block(const char *base) {
  uint64_t first = mapping_at(base).physical;
  if (first % (PAGES * PM_PAGE_SIZE)) return false;
  for (int i = 1; i < PAGES; i++)
    if (mapping_at(PAGE(base, i)).physical != first + (uint64_t)i * PM_PAGE_SIZE) return false;
  return true;
}

/// 2 MiB in a new container, which the first access maps by a superpage: the server prepares huge pages once it
/// sees a use for them. If it never does, these are single pages.
static char *make_superpage(void) {
  static char *next = REGION + (2ull << 40);
  for (int i = 0;; i++) {
    char *base = next;
    next += PAGES * PM_PAGE_SIZE;
    container = map_fresh(base, PAGES);
    WORD(base, 17) = 0;
    if (i == TRIES || (mapping_at(PAGE(base, 400)).physical && is_block(base))) return base;
    CHECK_OK(pm_container_destroy(container));
    pm_sleep(20000);
  }
}

PM_TEST(zero_at_first, 0, 1, "R18: 2 MiB that one fault makes resident read as zeros, even after other tasks' use") {
  for (int round = 0; round < 6; round++) {
    char *base = make_superpage();
    CHECK(is_zero(base, PAGES * PM_PAGE_SIZE));
    fill_pages(base, PAGES, 1);
    check_pages(base, PAGES, 1);
    CHECK_OK(pm_container_destroy(container));
  }
}

PM_TEST(first_touch_anywhere, 0, 1, "R16: the fault may be at any page of the superpage, for reading or writing") {
  for (int round = 0; round < 4; round++) {
    char *base = make_superpage();
    CHECK_EQ(rights_at(PAGE(base, 511)) & PM_MAP_EXECUTE, 0);
    WORD(base, 511) = 5;
    CHECK_EQ(WORD(base, 0), 0);
    CHECK_EQ(WORD(base, 511), 5);
    CHECK_EQ(mapping_at(PAGE(base, 300)).frame, 300);
  }
}

PM_TEST(copied, 0, 1, "R24, R26: pages of a superpage are copied on write one by one, and the others do not change") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 2);
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 100, copies, 0, 8, NULL));
  map_lazily(copies, 0, 8, REGION_2);
  check_copied_pages(REGION_2, PAGE(base, 100), 8, 2);
  WORD(base, 101) = 1;
  WORD(REGION_2, 3) = 2;
  CHECK_EQ(WORD(base, 101), 1);
  CHECK_EQ(WORD(REGION_2, 3), 2);
  check_pages(base, 101, 2);
  check_pages(PAGE(base, 102), PAGES - 102, 2);
  check_copied_pages(REGION_2, PAGE(base, 100), 3, 2);
  check_copied_pages(PAGE(REGION_2, 4), PAGE(base, 104), 4, 2);
  CHECK(mapping_at(PAGE(base, 101)).physical != mapping_at(PAGE(REGION_2, 1)).physical);
}

PM_TEST(copied_whole, 0, 1, "R24, R26: a logical copy of a whole superpage loses no write on either side") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 3);
  pm_container_t copies = make_container(0);
  CHECK_OK(pm_container_copy(container, 0, copies, 0, PAGES, NULL));
  for (int i = 0; i < PAGES; i += 5) WORD(base, i) = 77;
  map_lazily(copies, 0, PAGES, REGION_2);
  check_copied_pages(REGION_2, base, PAGES, 3);
  for (int i = 0; i < PAGES; i++)
    if (i % 5) check_pages(PAGE(base, i), 1, 3);
    else CHECK_EQ(WORD(base, i), 77);
}

PM_TEST(unmapped_in_the_middle, 0, 1, "R25: pages in the middle of a superpage can be unmapped, and the others stay") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 4);
  CHECK_OK(pm_unmap(PAGE(base, 200), 2));
  CHECK(read_faults(PAGE(base, 200)));
  CHECK(write_faults(PAGE(base, 201)));
  check_pages(base, 200, 4);
  check_pages(PAGE(base, 202), PAGES - 202, 4);
  // Maps the same frames elsewhere and back.
  map_lazily(container, 200, 2, REGION_2);
  check_copied_pages(REGION_2, PAGE(base, 200), 2, 4);
  map_lazily(container, 200, 2, PAGE(base, 200));
  check_pages(base, PAGES, 4);
}

PM_TEST(replaced_in_the_middle, 0, 1,
        "R25: another frame mapped in the middle of a superpage is read and written there") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 5);
  pm_container_t other = map_numbered(REGION_2, 4, 900);
  map_lazily(other, 0, 4, PAGE(base, 50));
  check_numbered(PAGE(base, 50), 4, 900);
  WORD(base, 51) = 1;
  CHECK_EQ(WORD(REGION_2, 1), 1);
  check_pages(base, 50, 5);
  check_pages(PAGE(base, 54), PAGES - 54, 5);
}

PM_TEST(mapped_again, 0, 1,
        "R25: a superpage unmapped and mapped again, at the same address and elsewhere, keeps its data") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 6);
  for (int round = 0; round < 4; round++) {
    CHECK_OK(pm_unmap(base, PAGES));
    CHECK(read_faults(PAGE(base, 99)));
    map_lazily(container, 0, PAGES, round % 2 ? base : REGION_2);
    check_copied_pages(round % 2 ? base : REGION_2, base, PAGES, 6);
    map_lazily(container, 0, PAGES, base);
    check_pages(base, PAGES, 6);
  }
}

PM_TEST(read_only, 0, 1, "R25: after a superpage is mapped again read-only, no page of it can be written") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 7);
  CHECK_OK(pm_container_map(container, 0, PAGES, base, PM_MAP_READ | PM_MAP_LAZY));
  check_pages(base, PAGES, 7);
  CHECK(write_faults(PAGE(base, 3)));
  CHECK(write_faults(PAGE(base, 500)));
  check_pages(PAGE(base, 4), 400, 7);
}

PM_TEST(freed_in_part, 0, 1,
        "R16, R18: freed frames of a superpage come back as zeros, and the others keep their data") {
  char *base = make_superpage();
  for (int round = 0; round < 4; round++) {
    fill_pages(base, PAGES, 8);
    uint32_t count = 64, again = 64;
    CHECK_OK(pm_container_deallocate(container, 128, &count, 0));
    CHECK(read_faults(PAGE(base, 130)));
    CHECK_OK(pm_container_allocate(container, 128, &again, 0));
    map_lazily(container, 128, 64, PAGE(base, 128));
    CHECK(is_zero(PAGE(base, 128), 64 * PM_PAGE_SIZE));
    check_pages(base, 128, 8);
    check_pages(PAGE(base, 192), PAGES - 192, 8);
  }
}

PM_TEST(pinned, 0, 1, "R22: pinned frames of a superpage stay in place, with what is written there") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 9);
  static uint64_t physical[16];
  CHECK_OK(pm_container_pin(container, 40, 16, PM_LOCK_MAXIMUM_US, physical));
  for (int i = 0; i < 16; i++) CHECK_EQ(mapping_at(PAGE(base, 40 + i)).physical, physical[i]);
  uint32_t count = PAGES;
  CHECK_ERROR(pm_container_deallocate(container, 0, &count, 0), PM_EBUSY);
  check_pages(base, PAGES, 9);
  WORD(base, 41) = 1;
  CHECK_OK(pm_container_unpin(container, 40, 16));
  CHECK_EQ(WORD(base, 41), 1);
}

PM_TEST(gathered_after_a_copy, 0, 1,
        "R17, R25: a split superpage with a read-only page is gathered, and loses no data") {
  char *base = make_superpage();
  fill_pages(base, PAGES, 10);
  pm_container_t copies = make_container(0);
  // Page 7 is read-only at first, page 9 gets another frame through another mapping; the superpage stays split.
  CHECK_OK(pm_container_copy(container, 7, copies, 0, 1, NULL));
  CHECK_OK(pm_container_copy(container, 9, copies, 1, 1, NULL));
  map_lazily(container, 9, 1, REGION_2);
  WORD(REGION_2, 0) = WORD(REGION_2, 0);
  CHECK_OK(pm_container_destroy(copies));
  // The server gathers regions once a second, if at all.
  uint64_t before = mapping_at(REGION_2).physical, start = pm_clock_us();
  while (mapping_at(REGION_2).physical == before && pm_clock_us() - start < 1200000) pm_sleep(10000);
  pm_sleep(60000);
  check_pages(base, PAGES, 10);
  WORD(base, 7) = 1;
  CHECK_EQ(WORD(base, 7), 1);
}

// ---- another vCPU writes meanwhile ---------------------------------------------------------

enum { STOP = PAGES, ROUNDS = 30 };

/// Counts up in its word of every page, and checks what it wrote the last time.
static void write_until_stopped(void) {
  pm_container_t weak = ask(1, PM_CAP_NONE).caps[0];
  map_lazily(weak, 0, PAGES + 1, REGION_2);
  for (uint64_t n = 0; !WORD(REGION_2, STOP); n++)
    for (int i = 0; i < PAGES; i++) {
      CHECK_EQ(WORD(REGION_2, i), n);
      WORD(REGION_2, i) = n + 1;
    }
  ask(2, PM_CAP_NONE);
}

PM_TEST(split_under_a_writer, 0, 2,
        "R24, R26: a task writes all of it while pages of it are copied: no write is lost") {
  if (join(2)) return write_until_stopped();
  struct pm_message question = next_question();
  (void)make_superpage();
  pm_container_t weak, copies = make_container(PAGES);
  container = map_fresh(REGION, PAGES + 1);
  CHECK_OK(pm_container_share(container, PM_CAP_NONE, &weak));
  answer(&question, 0, weak);
  map_lazily(copies, 0, PAGES, REGION + (1ull << 40));
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t start = (uint32_t)(round * 37 % 480);
    CHECK_OK(pm_container_copy(container, start, copies, start, 32, NULL));
    uint64_t seen[32];
    for (uint32_t i = 0; i < 32; i++) seen[i] = WORD(REGION + (1ull << 40), start + i);
    for (int look = 0; look < 100; look++)
      for (uint32_t i = 0; i < 32; i++) CHECK_EQ(WORD(REGION + (1ull << 40), start + i), seen[i]);
    // Gets its own frames again, as one superpage.
    if (round % 8 == 7) CHECK_OK(pm_unmap(REGION, PAGES)), map_lazily(container, 0, PAGES, REGION);
    for (uint32_t i = 0; i < 32; i++) CHECK(WORD(REGION, start + i) >= seen[i]);
  }
  WORD(REGION, STOP) = 1;
  question = next_question();
  answer(&question, 0, PM_CAP_NONE);
}
