// Starts and ends at once: measures the launch and the end of a task.
#include <physmem.h>

PM_PROGRAM("Does nothing: for measuring a launch.");

int main(void) { return 0; }
