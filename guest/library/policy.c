// Contracts with the policy server: messages to the endpoint named "policy".
#include <physmem/policy.h>

static pm_error_t request(struct pm_message *message) {
  pm_cap_t endpoint;
  pm_error_t error = pm_name_lookup(PM_POLICY_NAME, &endpoint, 0);
  if (error) return error;
  error = pm_call(endpoint, message, PM_FOREVER);
  pm_cap_drop(endpoint);
  if (!error) pm_message_drop_caps(message);
  return error ? error : (pm_error_t)message->words[0];
}

pm_error_t pm_contract_negotiate(uint64_t guaranteed, bool extra, uint64_t duration_us, struct pm_contract *granted) {
  struct pm_message message = {.words = {PM_POLICY_NEGOTIATE, guaranteed, extra, duration_us}};
  pm_error_t error = request(&message);
  if (!error && granted)
    *granted = (struct pm_contract){message.words[1], message.words[2], message.words[3], message.words[4]};
  return error;
}

pm_error_t pm_contract_release(void) {
  struct pm_message message = {.words = {PM_POLICY_RELEASE}};
  return request(&message);
}
