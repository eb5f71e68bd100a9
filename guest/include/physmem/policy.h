// Contracts with the memory policy server (R14): how many frames a task is guaranteed, and for how long. The server is
// whoever receives at the name "policy"; the project's own is guest/servers/policy-server.c.
#ifndef PHYSMEM_POLICY_H
#define PHYSMEM_POLICY_H

#include <physmem.h>

struct pm_contract {
  uint64_t guaranteed;    // frames
  uint64_t extra;         // 1: it may have more than that while there is more
  uint64_t expires_us;    // when it ends, by pm_clock_us; PM_FOREVER: with the task
  uint64_t effective_us;  // when it takes effect: later, where the task had a larger guarantee before
};

/// Asks for a contract, in place of the one there was: that many frames guaranteed for `duration_us` (PM_FOREVER: as
/// long as the task lives), and perhaps extra ones. A larger guarantee is in force when the call returns; a smaller one
/// after a time of grace, in which to give frames back or send them to swap. When a contract has expired, what the
/// policy server gives to any task of that name comes into force, after a time of grace too. `granted` may be null.
/// PM_ENOMEM: it cannot be had, and nothing has changed; PM_ENOENT: there is no policy server; PM_EINVAL: for no time;
/// else as pm_call.
pm_error_t pm_contract_negotiate(uint64_t guaranteed, bool extra, uint64_t duration_us, struct pm_contract *granted);
/// Ends the task's contract, as if it had expired. PM_ENOENT: there is none, or no policy server.
pm_error_t pm_contract_release(void);

// ---- the messages, for those who write a policy server of their own ------------------
// A request is words[0], its arguments follow; words[0] of the answer is a pm_error_t.

#define PM_POLICY_NAME "policy"

enum pm_policy_request {
  PM_POLICY_NEGOTIATE = 1,  // guaranteed, extra, duration_us; the answer: the members of struct pm_contract
  PM_POLICY_RELEASE = 2,
  // For a task that is to be the policy server from now on. The answer is how many contracts there are, and in caps[0]
  // an endpoint: each call to it is answered with a contract, and one more call with control and the endpoint of the
  // name "policy", both moved. In between nobody else is served.
  PM_POLICY_TAKE_OVER = 3,
};

#endif
