// Frames that are taken from a running task and reused while KVM may be about to emulate an instruction in them: it
// has translated the address, and reads the frame when its thread runs again (Safety; R17, R25). It must read what the
// task had there. Each case fails if reuse does not wait for such reads.
#include "test.h"

enum { ROUNDS = 200, CALLS = 100, CALLERS = 3 };

/// Data that the tasks of a case share.
struct board {
  volatile uint64_t is_over;
};

/// Makes calls, whose instruction KVM emulates, until the others are done.
static void make_calls(void) {
  pm_cap_t weak = ask(1, PM_CAP_NONE).caps[0];
  map_lazily(weak, 0, 1, REGION_2);
  struct board *board = (struct board *)REGION_2;
  while (!board->is_over)
    for (int i = 0; i < CALLS; i++) (void)pm_cap_drop(PM_CAP_NONE);
  ask(0, PM_CAP_NONE);
}

/// Makes the server move a frame's content, and fills the frame with bytes that must not be executed.
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

PM_TEST(called, 0, 4, "Safety: the page with tasks' calls is moved, and its frame reused, all the time") {
  if (join(4)) return make_calls();
  pm_container_t shared = map_fresh(REGION_2, 1), container = make_container(1), weak;
  // The mapping names the id, whatever frame that has.
  map_lazily(container, 0, 1, REGION);
  uint32_t count = 1;
  CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
  for (int i = 0; i < CALLERS; i++) {
    struct pm_message message = next_question();
    CHECK_OK(pm_container_share(shared, PM_CAP_NONE, &weak));
    answer(&message, 0, weak);
  }
  for (int round = 0; round < ROUNDS; round++)
    // All tasks share the program's frames: this task's own calls come from there as well.
    take_frame(container, mapping_at((const void *)pm_cap_drop).physical, round & 1 ? 0x06 : 0x00);
  ((struct board *)REGION_2)->is_over = 1;
  for (int i = 0; i < CALLERS; i++) {
    struct pm_message message = next_question();
    answer(&message, 0, PM_CAP_NONE);
  }
}
