// The cases of swift_sharing.swift.
#include "test.h"

PM_TEST_ELSEWHERE(copies, 0, 1, "Swift, R24, R38: the four kinds of copies, their errors, and releaseData");
PM_TEST_ELSEWHERE(made_of_copies, 0, 1, "Swift, R23: containers created, filled and shared in one call");
PM_TEST_ELSEWHERE(weak, 0, 1, "Swift, R20, R21, R22: share, revoke, pin; a weak capability ends with its value");
/// Takes all free frames, which a closure gives back; checks that it did.
void swift_borrow(void);
void swift_check_returned(void);

PM_TEST_CONTRACT(return_pages, 0, 2, 900, 8, "Swift, R28: a closure gives back the frames asked for") {
  if (!join(2)) {
    struct pm_message question = next_question();
    for (int i = 0; i < 3; i++) demand_frames();
    answer(&question, 0, PM_CAP_NONE);
    return;
  }
  swift_borrow();
  ask(1, PM_CAP_NONE);
  swift_check_returned();
}

PM_TEST_ELSEWHERE(messages, 0, 2, "Swift, R20: a server and a client, words and capabilities both ways, a lock");
