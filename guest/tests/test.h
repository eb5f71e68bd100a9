// Guest-side tests: one program holds many cases, each run in its own machine as `PROGRAM CASE`.
//
//   PM_TEST(reads_as_zero, 0, 1, "R18: a fresh frame reads as zero") { CHECK(…); }
//
// The second argument is the exit status that the task must have: 0, a number that the case exits with, or one of
// the deaths below, or several, `134 or 141`, if processors differ. The third is how many tasks run the
// case at once. Each case has a line in section .physmem.tests, "name|expected|copies|summary", which the host reads
// without running the program.
//
// A Swift test is NAME.swift beside NAME.c, which together make one program: the C file has a PM_TEST_ELSEWHERE for
// each case, and the Swift file defines it as `@_cdecl("test_CASE") public func`.
#ifndef PHYSMEM_TEST_H
#define PHYSMEM_TEST_H

#include <physmem.h>

// Exit statuses of tasks that die by an exception: 128 + its vector.
#define DIES_OF_DIVISION 128
#define DIES_OF_DEBUG_TRAP 129
#define DIES_OF_BREAKPOINT 131
#define DIES_OF_INVALID_INSTRUCTION 134
#define DIES_OF_STACK_FAULT 140
#define DIES_OF_PROTECTION_FAULT 141
#define DIES_OF_PAGE_FAULT 142
#define DIES_OF_ALIGNMENT 145
#define DIES_OF_VECTOR_ARITHMETIC 147
// The exit status of a task that did not give frames back in time.
#define IS_DROPPED 194

struct pm_test {
  const char *name, *summary;
  void (*run)(void);
};

#define PM_TEST_TEXT(...) #__VA_ARGS__
#define PM_TEST_LINE(name, expected, copies, summary) \
  PM_TEST_ASSEMBLY(name, PM_TEST_TEXT(expected), PM_TEST_TEXT(copies), summary)
#define PM_TEST_ASSEMBLY(name, expected, copies, summary)       \
  __asm__(".pushsection .physmem.tests,\"\",@progbits\n\t"      \
          ".ascii \"" #name "|" expected "|" copies "|" summary \
          "\\n\"\n\t.popsection")

/// A case whose function `void test_NAME(void)` is in another file. `summary` is plain text, without | and quotes.
#define PM_TEST_ELSEWHERE(name, expected, copies, summary)                            \
  void test_##name(void);                                                             \
  PM_TEST_LINE(name, expected, copies, summary);                                      \
  static const struct pm_test pm_test_##name = {#name, summary, test_##name};         \
  static const struct pm_test *const pm_test_entry_##name                             \
      __attribute__((used, retain, section(".pm_tests"))) = &pm_test_##name

/// A case whose tasks each have `guaranteed` frames and may have extra ones, in a machine of `mebibytes` MiB.
#define PM_TEST_CONTRACT(name, expected, copies, guaranteed, mebibytes, summary) \
  PM_TEST(name, expected, copies guaranteed mebibytes, summary)

/// A case in a machine with a disk: `copies` is the number of tasks and the options of `--disk`, "1 disk" or "2
/// disk,readonly". The disk has PM_TEST_SECTORS sectors, filled as disk_word says, for this case only. With "1
/// disk,bad-sectors" the host fails to read and write all but those from PM_TEST_GOOD up to PM_TEST_BAD.
#define PM_TEST_DISK(name, expected, copies, summary)                                 \
  void test_##name(void);                                                             \
  PM_TEST_ASSEMBLY(name, PM_TEST_TEXT(expected), copies, summary);                    \
  static const struct pm_test pm_test_##name = {#name, summary, test_##name};         \
  static const struct pm_test *const pm_test_entry_##name                             \
      __attribute__((used, retain, section(".pm_tests"))) = &pm_test_##name;          \
  void test_##name(void)
#define PM_TEST_SECTORS 2052
#define PM_TEST_GOOD 1024
#define PM_TEST_BAD 1536
/// The 64-bit word at byte 8 * `index` of the disk when the case begins.
static inline uint64_t disk_word(uint64_t index) { return (index + 1) * 0x9e3779b97f4a7c15ull; }

/// A case; the function's body follows.
#define PM_TEST(name, expected, copies, summary)      \
  PM_TEST_ELSEWHERE(name, expected, copies, summary); \
  void test_##name(void)

// ---- checks: a failed one prints itself and exits with 1 -------------------

#define CHECK(condition) \
  ((condition) ? (void)0 : fail_check(__FILE_NAME__, __LINE__, #condition))

/// Checks that two integers or pointers are equal.
#define CHECK_EQ(left, right)                                                                          \
  ({                                                                                                   \
    uint64_t check_left = (uint64_t)(left), check_right = (uint64_t)(right);                           \
    if (check_left != check_right)                                                                     \
      fail_equal(__FILE_NAME__, __LINE__, #left " == " #right, check_left, check_right);               \
  })

/// Checks that a call's result is that error, or PM_OK.
#define CHECK_ERROR(call, error)                                                                       \
  ({                                                                                                   \
    pm_error_t check_result = (call);                                                                  \
    if (check_result != (error)) fail_error(__FILE_NAME__, __LINE__, #call, check_result, error);      \
  })

/// Checks that two physical addresses are equal, unless the server moves frames at random.
#define CHECK_SAME_FRAME(left, right) \
  ((pm_start_flags & PM_START_MOVES) ? (void)((left) == (right)) : CHECK_EQ(left, right))

#define CHECK_OK(call) CHECK_ERROR(call, PM_OK)

__attribute__((noreturn)) void fail_check(const char *file, int line, const char *condition);
__attribute__((noreturn)) void fail_equal(const char *file, int line, const char *condition, uint64_t left,
                                          uint64_t right);
__attribute__((noreturn)) void fail_error(const char *file, int line, const char *call, pm_error_t result,
                                          pm_error_t expected);

// ---- helpers of many cases --------------------------------------------------------

/// The PM_START_… flags: whether the server keeps mappings, and whether it unmaps pages at random (R25). Checks that
/// hold only without either are made only then.
extern uint32_t pm_start_flags;

/// Addresses far from the image, the heap and the stack.
#define REGION ((char *)0x100000000000ull)
#define REGION_2 ((char *)0x200000000000ull)

#define LAZY_READ_WRITE (PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY)

/// A container with frames [0, count) in use.
pm_container_t make_container(uint32_t count);
/// The same, lazily mapped for reading and writing at `address`.
pm_container_t map_fresh(void *address, uint32_t count);
/// The number of frames charged to the task.
uint64_t allocated_frames(void);
/// The mapping at an address; the case fails if there is none. If the server unmaps pages at random and keeps no
/// mappings, the page is touched until it is mapped.
struct pm_mapping mapping_at(const void *address);
/// The rights in force at an address. If the server unmaps pages at random, the page is read until it has some.
uint32_t rights_at(const void *address);
/// Whether `size` bytes are all zero.
bool is_zero(const void *bytes, size_t size);
/// Fills pages with numbers computed from their addresses and `seed`; the second checks them.
void fill_pages(void *address, uint32_t count, uint64_t seed);
void check_pages(const void *address, uint32_t count, uint64_t seed);
/// Checks that pages hold what was filled in at another address.
void check_copied_pages(const void *address, const void *filled, uint32_t count, uint64_t seed);
/// Lazily maps frames for reading and writing.
void map_lazily(pm_container_t container, pm_frame_t start, uint32_t count, void *address);
/// map_fresh, with the number first + n in the first word of frame n; the second checks such pages.
pm_container_t map_numbered(void *address, uint32_t count, uint64_t first);
void check_numbered(const void *address, uint32_t count, uint64_t first);
/// Whether reading or writing there faults; the byte does not change. After a fault nothing is mapped at the page, and
/// `probed` is the fault. Clears the task's fault handler.
bool read_faults(const void *address);
bool write_faults(void *address);
extern struct pm_fault probed;
/// The next number of a random sequence that is the same in each run; `state` starts as any number but 0.
uint64_t next_random(uint64_t *state);
/// A call with any number and arguments.
pm_error_t raw_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);

#define PAGE(base, index) ((char *)(base) + (size_t)(index) * PM_PAGE_SIZE)
/// The first word of a page. Volatile, since two pages may map one frame.
#define WORD(base, index) (*(volatile uint64_t *)PAGE(base, index))

// ---- cases of several tasks --------------------------------------------------------

/// Longer than any wait of a test on any machine: the case's time limit ends one that hangs.
#define LONG_US 3600000000ull

/// Connects the `copies` tasks of a case: returns 0 in one, the server, and 1, 2, … in its clients.
unsigned join(unsigned copies);
/// After join: the endpoint that the server receives on and the clients call.
extern pm_cap_t partner;
/// In a client: sends a number and a capability or PM_CAP_NONE to the server, and returns its answer.
struct pm_message ask(uint64_t number, pm_cap_t cap);
/// In the server: waits for a question, and answers one.
struct pm_message next_question(void);
void answer(const struct pm_message *question, uint64_t number, pm_cap_t cap);

// ---- cases with demands for frames ------------------------------------------

/// In one task: takes all free frames beyond its guarantee; and the number it has taken.
void hoard_frames(void);
uint32_t hoarded_frames(void);
/// pm_return_pages handlers that free some of them; the second counts calls and frames.
void give_back(uint32_t count);
void count_and_give_back(uint32_t count);
extern volatile uint32_t upcalls, upcall_frames;
/// A loop of demands on a task ends after MANY_UPCALLS, or, if each takes long, after STORM_US, but not
/// before FEW_UPCALLS.
enum { FEW_UPCALLS = 5, MANY_UPCALLS = 100, STORM_US = 5000000 };
bool is_stormy(uint64_t start);

/// In another task: allocates some frames of its guarantee, and frees them. With none free, the server asks the first
/// task.
void demand_frames(void);
/// The same in a loop, until the other task, a client of this one, calls end_demands.
void demand_until_done(void);
void end_demands(void);

#endif
