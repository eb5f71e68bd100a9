// A task that dies of its own fault: shows the report, and the error that its caller gets.
#include <physmem.h>

PM_PROGRAM("Dies of a fault when it is called; with an argument it calls such a task and prints the call's error.");

#define NAME "broken"

static int serve(void) {
  pm_cap_t endpoint;
  struct pm_message message;
  if (pm_endpoint_create(&endpoint) || pm_name_register(NAME, endpoint)) return 1;
  if (pm_receive(endpoint, &message, PM_FOREVER)) return 1;
  *(volatile int *)8 = 1;
  return 0;
}

int main(int argc, char **argv) {
  (void)argv;
  if (argc < 2) return serve();
  pm_cap_t endpoint;
  struct pm_message message = {0};
  if (pm_name_lookup(NAME, &endpoint, 10000000)) return 1;
  printf("The call ended with %s.\n", pm_strerror(pm_call(endpoint, &message, PM_FOREVER)));
  return 0;
}
