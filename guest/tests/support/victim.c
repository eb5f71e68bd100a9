// Two tasks that compete for a machine's frames: the victim takes all free ones, and the asker then claims its
// guarantee, so that the server demands them of the victim.
#include "../test.h"

#define ROUND 64  // frames that the asker claims at a time

volatile uint32_t upcalls, upcall_frames;

static pm_container_t hoard;
static volatile uint32_t hoarded, owed;
static volatile bool is_hoarding;

void give_back(uint32_t count) {
  if (is_hoarding) {
    owed += count;
    return;
  }
  uint32_t done = count;
  CHECK_OK(pm_container_deallocate(hoard, hoarded - count, &done, 0));
  hoarded -= count;
}

void count_and_give_back(uint32_t count) {
  upcalls++;
  upcall_frames += count;
  give_back(count);
}

bool is_stormy(uint64_t start) {
  return upcalls < FEW_UPCALLS || (upcalls < MANY_UPCALLS && pm_clock_us() - start < STORM_US);
}

void hoard_frames(void) {
  is_hoarding = true;
  if (!hoard) CHECK_OK(pm_container_create(&hoard));
  uint32_t count = 1 << 20;
  CHECK_ERROR(pm_container_allocate(hoard, hoarded, &count, PM_ALLOC_PARTIAL | PM_ALLOC_EXTRA), PM_ENOMEM);
  hoarded += count;
  is_hoarding = false;
  uint32_t count_owed = owed;
  owed = 0;
  if (count_owed) give_back(count_owed);
}

uint32_t hoarded_frames(void) { return hoarded; }

void demand_frames(void) {
  static pm_container_t wanted;
  if (!wanted) CHECK_OK(pm_container_create(&wanted));
  uint32_t count = ROUND;
  CHECK_OK(pm_container_allocate(wanted, 0, &count, 0));
  count = ROUND;
  CHECK_OK(pm_container_deallocate(wanted, 0, &count, 0));
}

void demand_until_done(void) {
  pm_cap_t done;
  while (pm_name_lookup("done", &done, 0) == PM_ENOENT) {
    demand_frames();
    pm_sleep(200);
  }
}

void end_demands(void) {
  pm_cap_t done;
  CHECK_OK(pm_endpoint_create(&done));
  CHECK_OK(pm_name_register("done", done));
  // The name goes when this task ends, so wait until the partner has looked it up: it ends then, and cancels this call.
  struct pm_message message = {0};
  CHECK_ERROR(pm_call(partner, &message, LONG_US), PM_ECANCELED);
}
