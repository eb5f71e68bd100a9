// The process's arguments, and set-up that must precede Swift's runtime.
#ifndef CSTART_H
#define CSTART_H

/// main's arguments. Swift's CommandLine reads them from /proc, and changes bytes that are not UTF-8.
int cstart_argument_count(void);
const char *_Nonnull cstart_argument(int index);

/// The path under which the kernel started this program; null if unknown.
const char *_Nullable cstart_program(void);

#endif
