// The policy server's file: the quotas of tasks without a contract. See docs/reference/policy.md.
#ifndef POLICY_FILE_H
#define POLICY_FILE_H

#include <physmem.h>

struct quota {
  uint64_t guaranteed;  // frames
  bool extra;
};

/// How long a reduction is deferred, in microseconds.
extern uint64_t grace_us;

/// Parses a file's text in place; the text must stay valid. Returns false if lines are wrong, after printing a
/// message for each.
bool read_policy(char *text);
/// The quota for tasks of that name, or the default.
struct quota quota_of(const char *name);

#endif
