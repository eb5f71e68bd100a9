// What starting and ending a task costs: nothing happens in between.
#include <physmem.h>

PM_PROGRAM("Does nothing: what a launch costs.");

int main(void) { return 0; }
