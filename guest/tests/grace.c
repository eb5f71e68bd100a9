// Frames that are taken from a running task and given to another one, while KVM may be about to carry out an instruction
// from them: it has found the frame, and reads it when its thread has the processor again (Safety; R17, R25). Whatever it
// finds there must be what the task had there. Each case fails if frames do not wait for that to be over.
#include "test.h"

enum { ROUNDS = 200, CALLS = 100, CALLERS = 3 };

/// What the tasks of a case have in common.
struct board {
  volatile uint64_t is_over;
};

/// Makes calls, the instruction of which KVM carries out, until the others are done.
static void make_calls(void) {
  pm_cap_t weak = ask(1, PM_CAP_NONE).caps[0];
  map_lazily(weak, 0, 1, REGION_2);
  struct board *board = (struct board *)REGION_2;
  while (!board->is_over)
    for (int i = 0; i < CALLS; i++) (void)pm_cap_drop(PM_CAP_NONE);
  ask(0, PM_CAP_NONE);
}

/// Has the content of a frame moved elsewhere, and uses the frame for something that must not be executed.
static void take_frame(pm_container_t container, uint64_t physical, int byte) {
  uint32_t count = 1;
  pm_error_t error = pm_container_allocate_placed(container, 0, &count, 0, &(struct pm_placement){.fixed = physical});
  // The content may have been moved meanwhile, and what is there now may have to stay.
  if (error == PM_ENOMEM) return;
  CHECK_OK(error);
  memset(REGION, byte, PM_PAGE_SIZE);
  count = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
}

PM_TEST(called, 0, 4, "Safety: the page of tasks' calls is moved, and its frame used, all the time") {
  if (join(4)) return make_calls();
  pm_container_t shared = map_fresh(REGION_2, 1), container = make_container(1), weak;
  // The mapping names the id, and shows whatever frame that has.
  map_lazily(container, 0, 1, REGION);
  uint32_t count = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
  for (int i = 0; i < CALLERS; i++) {
    struct pm_message message = next_question();
    CHECK_OK(pm_container_share(shared, PM_CAP_NONE, &weak));
    answer(&message, 0, weak);
  }
  for (int round = 0; round < ROUNDS; round++)
    // The program is in memory once: this task's own calls come from there as well.
    take_frame(container, mapping_at((const void *)pm_cap_drop).physical, round & 1 ? 0x06 : 0x00);
  ((struct board *)REGION_2)->is_over = 1;
  for (int i = 0; i < CALLERS; i++) {
    struct pm_message message = next_question();
    answer(&message, 0, PM_CAP_NONE);
  }
}
