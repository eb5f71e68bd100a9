// The smallest C program that prints something.
#include <physmem.h>

PM_PROGRAM("Prints a greeting, the task's id and its arguments.");

int main(int argc, char **argv) {
  struct pm_task_info info;
  if (pm_task_info(&info)) return 1;
  printf("Hello from task %lu.\n", info.id);
  for (int i = 1; i < argc; i++) printf("argument %d: %s\n", i, argv[i]);
  return 0;
}
