// Calls pong in a tight loop.
#include <physmem.h>

PM_PROGRAM("Calls the task named pong COUNT times. Argument: COUNT.");

int main(int argc, char **argv) {
  uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
  pm_cap_t pong;
  if (pm_name_lookup("pong", &pong, 5000000)) return 1;
  struct pm_message message = {.words = {1}};
  while (count--)
    if (pm_call(pong, &message, PM_FOREVER)) return 1;
  return message.words[0] == 2 ? 0 : 1;
}
