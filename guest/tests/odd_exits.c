// Ways out of a task that no compiler would think of: strings to and from the call port, flags that act on the next
// instruction, levels and modes that are not for tasks. Whatever becomes of the task, nothing becomes of others.
#include "test.h"

static char bytes[2 * PM_PAGE_SIZE] __attribute__((aligned(PM_PAGE_SIZE))) = {[0 ... 2 * PM_PAGE_SIZE - 1] = 0x5a};

// ---- reading the call port: the I/O bitmap cannot tell it from writing ---------------------------

#define READS(name, summary, count, to, instruction)                                               \
  PM_TEST(name, DIES_OF_PROTECTION_FAULT, 1, summary) {                                            \
    __asm__ volatile(instruction ::"a"(0), "c"(count), "d"(PM_CALL_PORT), "D"(to) : "memory", "cc"); \
  }
READS(in_byte, "Safety: reading the call port", 0, 0, "in %%dx, %%al")
READS(in_string, "Safety: a string of one byte from the call port", 1, bytes, "insb")
READS(in_strings, "Safety: a string of 8 bytes from the call port", 8, bytes, "rep insb")
READS(in_pages, "Safety: a string of more than a page from the call port", 5000, bytes, "rep insb")
READS(in_endless, "Safety: a string without end from the call port", -1, bytes, "rep insb")
READS(in_down, "Safety: a string from the call port, downwards", 5000, bytes + 5000, "std\n\trep insb")
READS(in_unmapped, "Safety: a string from the call port to where nothing is mapped", 8, REGION, "rep insb")
READS(in_supervisor, "Safety: a string from the call port to the supervisor's half", 8, 0xffff800000200000,
      "rep insb")
READS(in_text, "Safety: a string from the call port to text", 8, &test_in_byte, "rep insb")
READS(in_word, "Safety: a word from the call port", 1, bytes, "insw")
READS(in_double_words, "Safety: double words from the call port", 100, bytes, "rep insl")

// ---- writing strings to it: each byte is a call ------------------------------------------------------

static void out_string(const void *from, uint64_t count, uint64_t number) {
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count), "+a"(number) : "d"(PM_CALL_PORT), "D"(7) : "memory");
}

PM_TEST(out_strings, 0, 1, "A string to the call port: each byte is a call, and what comes next is the next instruction") {
  uint64_t count = 100, result = PM_CALL_NULL;
  const char *from = bytes;
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count), "+a"(result) : "d"(PM_CALL_PORT) : "memory");
  CHECK_EQ(count, 0);
  CHECK_EQ(from, bytes + 100);
  CHECK_EQ(result, PM_OK);
}
PM_TEST(out_string_exit, 7, 1, "Safety: a task that ends in the middle of a string") {
  out_string(bytes, 5000, PM_CALL_EXIT);
}
PM_TEST(out_string_exit_endless, 7, 1, "Safety: a task that ends in the middle of a string without end") {
  out_string(bytes, UINT64_MAX, PM_CALL_EXIT);
}
PM_TEST(out_string_unmapped, DIES_OF_PAGE_FAULT, 1, "Safety: a string to the call port from where nothing is mapped") {
  out_string(REGION, 100, PM_CALL_NULL);
}
PM_TEST(out_string_supervisor, DIES_OF_PAGE_FAULT, 1, "Safety: nor from the supervisor's half") {
  out_string((void *)0xffff800000000000, 100, PM_CALL_NULL);
}
PM_TEST(out_string_non_canonical, DIES_OF_PROTECTION_FAULT, 1, "Safety: nor from an address that is none") {
  out_string((void *)0x4141414141414141, 100, PM_CALL_NULL);
}
PM_TEST(out_string_lazy, 0, 1, "R25: a string to the call port from pages that were never touched") {
  map_fresh(REGION, 3);
  out_string(REGION + 100, 2 * PM_PAGE_SIZE, PM_CALL_NULL);
}

// ---- calls that take long ------------------------------------------------------------------------------

PM_TEST(long_write, 0, 1, "Safety: a text of many GiB, which are the same few frames; without more arguments, of 16 MiB") {
  pm_container_t container = make_container(4096);
  uint32_t times = pm_argument_count() > 2 ? 500 : 1;
  for (uint32_t i = 0; i < times; i++)
    CHECK_OK(pm_container_map(container, 0, 4096, PAGE(REGION, i * 4096), PM_MAP_READ | PM_MAP_LAZY));
  CHECK_OK(pm_write(REGION, (size_t)times * 4096 * PM_PAGE_SIZE));
}

// ---- other tasks ---------------------------------------------------------------------------------------

PM_TEST(untouched, 0, 1, "Safety: what other tasks leave unfinished does not land in this one's memory") {
  for (uint64_t end = pm_clock_us() + 300; pm_clock_us() < end;)
    for (size_t i = 0; i < sizeof bytes; i++) CHECK_EQ(bytes[i], 0x5a);
}
