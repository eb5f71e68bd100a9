// Helpers of many test cases.
#include "../test.h"

void fail_check(const char *file, int line, const char *condition) {
  printf("%s:%d: failed: %s\n", file, line, condition);
  pm_exit(1);
}

void fail_equal(const char *file, int line, const char *condition, uint64_t left, uint64_t right) {
  printf("%s:%d: failed: %s: %lu (%#lx) is not %lu (%#lx)\n", file, line, condition, left, left, right, right);
  pm_exit(1);
}

void fail_error(const char *file, int line, const char *call, pm_error_t result, pm_error_t expected) {
  printf("%s:%d: failed: %s: %s (%d), not %s\n", file, line, call, pm_strerror(result), result, pm_strerror(expected));
  pm_exit(1);
}

pm_container_t make_container(uint32_t count) {
  pm_container_t container = 0;
  CHECK_OK(pm_container_create(&container));
  CHECK(container != 0);
  uint32_t done = count;
  if (count) CHECK_OK(pm_container_allocate(container, 0, &done, 0));
  CHECK_EQ(done, count);
  return container;
}

pm_container_t map_fresh(void *address, uint32_t count) {
  pm_container_t container = make_container(count);
  CHECK_OK(pm_container_map(container, 0, count, address, LAZY_READ_WRITE));
  return container;
}

uint64_t allocated_frames(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  return info.allocated;
}

struct pm_mapping mapping_at(const void *address) {
  const uint32_t forgets = PM_START_NO_MAPPING_CACHE | PM_START_REVOKES;
  struct pm_mapping mapping;
  pm_error_t error;
  // If the task never mapped the page, the access ends it.
  while ((error = pm_mapping(address, &mapping)) == PM_ENOENT && (pm_start_flags & forgets) == forgets)
    (void)*(const volatile char *)address;
  CHECK_OK(error);
  return mapping;
}

uint32_t rights_at(const void *address) {
  uint32_t rights;
  while (!(rights = mapping_at(address).rights) && pm_start_flags & PM_START_REVOKES)
    (void)*(const volatile char *)address;
  return rights;
}

bool is_zero(const void *bytes, size_t size) {
  const unsigned char *at = bytes;
  while (size && !*at) at++, size--;
  return size == 0;
}

static uint64_t word_for(const void *address, uint64_t seed) {
  return ((uintptr_t)address ^ seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
}

void fill_pages(void *address, uint32_t count, uint64_t seed) {
  uint64_t *word = address;
  for (size_t i = 0; i < (size_t)count * PM_PAGE_SIZE / sizeof *word; i++) word[i] = word_for(word + i, seed);
}

void check_copied_pages(const void *address, const void *filled, uint32_t count, uint64_t seed) {
  const uint64_t *word = address, *original = filled;
  for (size_t i = 0; i < (size_t)count * PM_PAGE_SIZE / sizeof *word; i++)
    CHECK_EQ(word[i], word_for(original + i, seed));
}

void check_pages(const void *address, uint32_t count, uint64_t seed) {
  check_copied_pages(address, address, count, seed);
}

void map_lazily(pm_container_t container, pm_frame_t start, uint32_t count, void *address) {
  CHECK_OK(pm_container_map(container, start, count, address, LAZY_READ_WRITE));
}

pm_container_t map_numbered(void *address, uint32_t count, uint64_t first) {
  pm_container_t container = map_fresh(address, count);
  for (uint32_t i = 0; i < count; i++) WORD(address, i) = first + i;
  return container;
}

void check_numbered(const void *address, uint32_t count, uint64_t first) {
  for (uint32_t i = 0; i < count; i++) CHECK_EQ(WORD(address, i), first + i);
}

uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

pm_error_t raw_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
  register uint64_t fifth __asm__("r8") = e, sixth __asm__("r9") = 0;
  pm_error_t error;
  __asm__ volatile("out %%al, %1"
                   : "=a"(error)
                   : "i"(PM_CALL_PORT), "0"(number), "D"(a), "S"(b), "d"(c), "c"(d), "r"(fifth), "r"(sixth)
                   : "memory");
  return error;
}
