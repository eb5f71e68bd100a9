// Contracts with the memory policy server (R14): how many frames a task is guaranteed, and for how long. The policy
// server is the task that receives at the name "policy"; the default one is guest/servers/policy-server.c.
#ifndef PHYSMEM_POLICY_H
#define PHYSMEM_POLICY_H

#include <physmem.h>

struct pm_contract {
  uint64_t guaranteed;    // frames
  uint64_t extra;         // 1: it may have extra frames while there are any
  uint64_t expires_us;    // when it ends, by pm_clock_us; PM_FOREVER: with the task
  uint64_t effective_us;  // when it takes effect: later, if it lowers the guarantee
};

/// Asks for a contract, replacing the task's current one: that many frames guaranteed for `duration_us` (PM_FOREVER: as
/// long as the task lives), and optionally extra ones. A larger guarantee is in force when the call returns; a smaller
/// one after a grace time, in which to free frames or send them to swap. When a contract has expired, the quota that
/// the policy server gives to any task of that name comes into force, also after a grace time. `granted` may be null.
/// PM_ENOMEM: too little memory, and nothing has changed; PM_ENOENT: there is no policy server; PM_EINVAL: for no time;
/// others as pm_call.
pm_error_t pm_contract_negotiate(uint64_t guaranteed, bool extra, uint64_t duration_us, struct pm_contract *granted);
/// Ends the task's contract, as if it had expired. PM_ENOENT: there is none, or no policy server.
pm_error_t pm_contract_release(void);

// ---- the messages, for writing a policy server -------------------------------------
// A request is words[0], its arguments follow; words[0] of the answer is a pm_error_t.

#define PM_POLICY_NAME "policy"

enum pm_policy_request {
  PM_POLICY_NEGOTIATE = 1,  // guaranteed, extra, duration_us; the answer: the members of struct pm_contract
  PM_POLICY_RELEASE = 2,
  // Makes the calling task the policy server. The answer is the number of contracts, and in caps[0] an endpoint: each
  // call to it is answered with a contract, and one more call with control and the endpoint of the name "policy", both
  // moved. In between no other task is served.
  PM_POLICY_TAKE_OVER = 3,
};

#endif
