// What the process was started with, and what must be so before Swift's runtime begins.
#ifndef CSTART_H
#define CSTART_H

/// main's arguments. Swift's own CommandLine looks for them through /proc, and takes bytes that are not UTF-8 for others.
int cstart_argument_count(void);
const char *_Nonnull cstart_argument(int index);

/// The path that the kernel was given to start this program; null where it does not tell.
const char *_Nullable cstart_program(void);

#endif
