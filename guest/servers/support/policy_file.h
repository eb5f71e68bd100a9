// The policy server's file: what tasks get that have no contract. See docs/reference/policy.md.
#ifndef POLICY_FILE_H
#define POLICY_FILE_H

#include <physmem.h>

struct quota {
  uint64_t guaranteed;  // frames
  bool extra;
};

/// How long a reduction is put off, in microseconds.
extern uint64_t grace_us;

/// Takes over a file's text, which stays where it is and is cut into words. False: some lines are wrong, and each has
/// been printed as a sentence.
bool read_policy(char *text);
/// What the file says of tasks of that name, or of all others.
struct quota quota_of(const char *name);

#endif
