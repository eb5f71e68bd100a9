// A task's start and end, its arguments, its frame counts, and unknown calls.
#include "test.h"

// ---- the end ------------------------------------------------------------------------

PM_TEST(returns, 0, 1, "A task that returns from main ends with that status") {}
PM_TEST(exit_1, 1, 1, "Exit status 1") { pm_exit(1); }
PM_TEST(exit_127, 127, 1, "Exit status 127") { pm_exit(127); }
PM_TEST(exit_128, 128, 1, "Exit status 128 is the program's own") { pm_exit(128); }
PM_TEST(exit_255, 255, 1, "Exit status 255") { pm_exit(255); }
PM_TEST(exit_256, 0, 1, "Exit status 256: only the low 8 bits count") { pm_exit(256); }
PM_TEST(exit_minus_1, 255, 1, "Exit status -1") { exit(-1); }
PM_TEST(exit_wide, 18, 1, "An exit status of 64 bits: only the low 8 bits count") {
  raw_call(PM_CALL_EXIT, 0xffffffff00000012, 0, 0, 0, 0);
}
PM_TEST(aborts, DIES_OF_INVALID_INSTRUCTION, 1, "abort dies of an invalid instruction") {
  printf("this line ends with no newline");
  abort();
}
PM_TEST(assertion, DIES_OF_INVALID_INSTRUCTION, 1, "A failed assertion aborts") {
  volatile int two = 2;
  assert(two + two == 5);
}
PM_TEST(mapped_at_exit, 3, 4, "A task that ends with containers, mappings and a handler loses all of them") {
  map_fresh(REGION, 500);
  fill_pages(REGION, 500, 1);
  for (int i = 0; i < 50; i++) map_fresh(PAGE(REGION_2, i * 3), 2);
  exit(3);
}

// ---- the beginning ---------------------------------------------------------------------

PM_TEST(arguments, 0, 1, "Arguments: the program's name, the case's, a terminating null, above the stack pointer") {
  CHECK_EQ(pm_argument_count(), 2);
  CHECK(!strcmp(pm_argument(1), "arguments"));
  CHECK(strlen(pm_argument(0)) > 0);
  CHECK(pm_argument(2) == NULL && pm_argument(-1) == NULL);
  for (int i = 0; i < 2; i++) {
    CHECK((uint64_t)pm_argument(i) > (uint64_t)__builtin_frame_address(0));
    CHECK((uint64_t)pm_argument(i) < PM_STACK_TOP);
  }
}

PM_TEST(stack_is_aligned, 0, 1, "The stack is aligned as the calling convention requires") {
  CHECK_EQ((uint64_t)__builtin_frame_address(0) % 16, 0);
}

static int zeroed[5000];
static int initialised[3] = {1, 2, 3};

PM_TEST(data, 0, 16, "R18: each task has its own copy of the image's data, and zeroed data is zero") {
  CHECK(is_zero(zeroed, sizeof zeroed));
  CHECK(initialised[0] == 1 && initialised[1] == 2 && initialised[2] == 3);
  for (size_t i = 0; i < 5000; i++) zeroed[i] = -1;
  initialised[0] = initialised[1] = initialised[2] = -1;
}

// ---- information ------------------------------------------------------------------------

PM_TEST(information, 0, 1, "R2: pm_task_info: an id, and at least the charge for image and stack") {
  struct pm_task_info info;
  memset(&info, 0xff, sizeof info);
  CHECK_OK(pm_task_info(&info));
  CHECK(info.id != 0);
  CHECK(info.allocated >= PM_STACK_PAGES + 2);
  CHECK(info.swapped == 0);
  CHECK(info.pressure <= 100);
  CHECK(info.available > 0 && info.available < 1ull << 40);
}

PM_TEST(information_follows, 0, 1, "R2: an allocation lowers available and raises allocated") {
  struct pm_task_info before, after;
  CHECK_OK(pm_task_info(&before));
  make_container(64);
  CHECK_OK(pm_task_info(&after));
  CHECK_EQ(after.id, before.id);
  CHECK_EQ(after.allocated, before.allocated + 64);
  CHECK(after.available <= before.available - 64);
}

PM_TEST(errors_have_names, 0, 1, "pm_strerror names every error") {
  CHECK(!strcmp(pm_strerror(PM_OK), "PM_OK"));
  CHECK(!strcmp(pm_strerror(PM_EAGAIN), "PM_EAGAIN"));
  for (pm_error_t error = 0; error <= PM_EAGAIN; error++) CHECK(!strncmp(pm_strerror(error), "PM_", 3));
  CHECK(!strcmp(pm_strerror(-1), "unknown error"));
  CHECK(!strcmp(pm_strerror(1000), "unknown error"));
}

// ---- calls --------------------------------------------------------------------------------------

PM_TEST(unknown_calls, 0, 1, "Safety: unknown call numbers fail with any arguments") {
  const uint64_t numbers[] = {0x1000, 0x1001, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    CHECK_ERROR(raw_call(numbers[i], 0, 0, 0, 0, 0), PM_EINVAL);
    CHECK_ERROR(raw_call(numbers[i], UINT64_MAX, (uint64_t)&zeroed, 1, UINT64_MAX, 2), PM_EINVAL);
  }
  uint64_t state = 5;
  for (int i = 0; i < 2000; i++) {
    uint64_t number = (next_random(&state) | 0x10000) & 0xffffffff;
    CHECK_ERROR(raw_call(number, next_random(&state), 1, 2, 3, next_random(&state)), PM_EINVAL);
  }
}

PM_TEST(number_is_32_bits, 0, 1, "The call number is EAX: the upper half of RAX is ignored") {
  CHECK_OK(raw_call(0xffffffff00000000 | PM_CALL_NULL, 0, 0, 0, 0, 0));
}

PM_TEST(random_calls, 0, 4, "Safety: calls with random arguments do not corrupt the task's memory") {
  const uint64_t numbers[] = {PM_CALL_NULL,  PM_CALL_CLOCK,   PM_CALL_TASK_INFO,        PM_CALL_FAULT_RETURN,
                              PM_CALL_UNMAP, PM_CALL_MAPPING, PM_CALL_CONTAINER_CREATE, PM_CALL_CONTAINER_DESTROY};
  uint64_t state = pm_clock_us() | 1;
  map_fresh(REGION, 16);
  for (int i = 0; i < 3000; i++) {
    uint64_t argument[5];
    for (int j = 0; j < 5; j++) {
      uint64_t random = next_random(&state);
      const uint64_t kinds[] = {random, random % 8, (uint64_t)REGION + random % 0x10000, random << 40,
                                -(random % 4096)};
      argument[j] = kinds[(random >> 32) % 5];
    }
    uint64_t number = numbers[next_random(&state) % 8];
    // Image, heap and stack must stay mapped.
    if (number == PM_CALL_UNMAP) argument[0] |= (uint64_t)REGION, argument[1] %= 0x1000;
    (void)raw_call(number, argument[0], argument[1], argument[2], argument[3], argument[4]);
  }
  CHECK(is_zero(zeroed, sizeof zeroed));
  map_fresh(REGION_2, 16);
  fill_pages(REGION_2, 16, 1);
  check_pages(REGION_2, 16, 1);
}

PM_TEST(long_text, 0, 1, "A text of several pages is written whole") {
  char *text = malloc(10000);
  CHECK(text != NULL);
  for (int i = 0; i < 10000; i++) text[i] = i % 100 == 99 ? '\n' : (char)('0' + i / 100 % 10);
  CHECK_OK(pm_write(text, 10000));
}
