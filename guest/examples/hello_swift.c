// What hello_swift.swift says of itself: Swift cannot place text in a section of the image.
#include <physmem.h>

PM_PROGRAM("Greets from Embedded Swift, and tells the task's id and arguments.");
