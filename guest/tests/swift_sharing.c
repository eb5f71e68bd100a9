// The cases of swift_sharing.swift.
#include "test.h"

PM_TEST_ELSEWHERE(copies, 0, 1, "Swift, R24, R38: the four kinds of copies, their errors, and releaseData");
PM_TEST_ELSEWHERE(made_of_copies, 0, 1, "Swift, R23: containers made, filled and shared in one call");
PM_TEST_ELSEWHERE(weak, 0, 1, "Swift, R20, R21, R22: share, revoke, pin; a weak capability ends with its value");
PM_TEST_ELSEWHERE(messages, 0, 2, "Swift, R20: a server and a client, words and capabilities both ways, a lock");
