// Answers every call, forever.
#include <physmem.h>

PM_PROGRAM("Answers the calls of ping.");

int main(void) {
  pm_cap_t endpoint;
  if (pm_endpoint_create(&endpoint) || pm_name_register("pong", endpoint)) return 1;
  struct pm_message message;
  pm_error_t error = pm_receive(endpoint, &message, PM_FOREVER);
  for (;;) {
    if (error) {
      // The caller has ended meanwhile: serve the next one.
      error = pm_receive(endpoint, &message, PM_FOREVER);
      continue;
    }
    pm_message_drop_caps(&message);
    message.words[0] = 2;
    error = pm_reply_receive(endpoint, &message, PM_FOREVER);
  }
}
