// The summary of hello_swift.swift: Swift cannot place text in a section of the image.
#include <physmem.h>

PM_PROGRAM("Prints a greeting, the task's id and its arguments, in Embedded Swift.");
