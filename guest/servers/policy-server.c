// The default memory policy server (R7, R14): an ordinary task that sets guarantees by a file of quotas and by
// contracts. `policy-server [TEXT OF THE FILE]`. If another policy server is running, it takes over from that one,
// with all contracts (R10).
//
// The life of a task, as the policy server sees it:
//  1. new: it gets the file's quota for its name, and at least what it has allocated, as far as memory allows.
//  2. under contract: it gets the contract's guarantee, until the contract expires or is released.
//  3. after that: the file's quota.
// A guarantee rises at once, or not at all; it falls when a grace time is over.
#include <physmem/policy.h>

#include "support/policy_file.h"

PM_PROGRAM("Sets guarantees by a file of quotas and by contracts.");

#define BUFFER ((volatile struct pm_policy_entry *)0x200000000000ull)
#define CAPACITY 1024  // slots
#define TAKE_OVER_US 2000000

struct client {
  uint64_t task;      // 0: the slot is free
  uint64_t level;     // the guarantee in force
  uint64_t due;       // when a smaller one takes effect; 0: none does
  struct quota base;  // its quota without a contract
  bool has_contract;
  struct quota contract;
  uint64_t expires;
};

static struct client clients[CAPACITY];
static pm_cap_t control, endpoint;
static volatile uint32_t entries;

__attribute__((noreturn)) static void fail(const char *what, pm_error_t error) {
  printf("policy-server: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

/// The buffer has grown, or was never mapped: asks for it (R13).
static int map_buffer(const struct pm_fault *fault) {
  uint64_t offset = fault->address - (uint64_t)BUFFER;
  uint32_t count;
  if (offset >= CAPACITY * sizeof *BUFFER || pm_get_policy_buffer(control, (void *)BUFFER, &count)) return 1;
  entries = count < CAPACITY ? count : CAPACITY;
  return 0;
}

// ---- clients ----------------------------------------------------------------

static void adopt(uint32_t slot, uint64_t task) {
  char name[PM_NAME_MAXIMUM + 1] = "";
  // The task may have ended already: then the next scan finds the slot empty.
  (void)pm_task_name(control, task, name);
  struct client client = {.task = task, .base = quota_of(name)};
  uint64_t allocated = BUFFER[slot].allocated, granted = BUFFER[slot].granted;
  if (client.base.guaranteed < allocated) client.base.guaranteed = allocated;
  // Before the first commit a task has no guarantee, so its allocation serves as one.
  client.level = granted ? granted : allocated;
  clients[slot] = client;
}

/// Scans for tasks that have come or gone.
static void look_around(void) {
  (void)BUFFER[0].task;
  for (uint32_t slot = 0; slot < entries; slot++) {
    uint64_t task = BUFFER[slot].task;
    if (task == clients[slot].task) continue;
    if (task) adopt(slot, task);
    else clients[slot] = (struct client){0};
  }
}

static struct client *client_of(uint64_t task) {
  for (uint32_t slot = 0; slot < entries; slot++)
    if (clients[slot].task == task) return &clients[slot];
  return NULL;
}

// ---- guarantees ---------------------------------------------------------------

static struct quota wanted(const struct client *client) {
  return client->has_contract ? client->contract : client->base;
}

static void offer(const struct client *client, uint64_t guaranteed) {
  volatile struct pm_policy_entry *entry = &BUFFER[client - clients];
  entry->guaranteed = guaranteed;
  entry->extra = wanted(client).extra;
}

static void end_contract(struct client *client) {
  char name[PM_NAME_MAXIMUM + 1] = "";
  (void)pm_task_name(control, client->task, name);
  client->has_contract = false;
  client->base = quota_of(name);
}

/// Applies what is due: contracts expire, reductions take effect.
static void follow_time(struct client *client, uint64_t now) {
  if (client->has_contract && now >= client->expires) end_contract(client);
  uint64_t guaranteed = wanted(client).guaranteed;
  if (guaranteed >= client->level) client->due = 0;
  else if (!client->due) client->due = now + grace_us;
  if (client->due && now >= client->due) client->level = guaranteed, client->due = 0;
}

static uint64_t raised(const struct client *client) {
  uint64_t guaranteed = wanted(client).guaranteed;
  return guaranteed > client->level ? guaranteed : client->level;
}

#define FOR_EACH_CLIENT(client)                                           \
  for (struct client *client = clients; client < clients + entries; client++) \
    if (client->task)

/// Brings the guarantees in force as close as possible to the intended ones.
static void settle(uint64_t now) {
  FOR_EACH_CLIENT(client) {
    follow_time(client, now);
    offer(client, raised(client));
  }
  if (!pm_policy_commit(control)) {
    FOR_EACH_CLIENT(client) client->level = raised(client);
    return;
  }
  // Memory does not cover all of them. It covers those in force, and then as many of the new ones as fit.
  FOR_EACH_CLIENT(client) offer(client, client->level);
  if (pm_policy_commit(control)) {
    // A task has allocated since the scan: before the first commit nothing holds allocations back.
    FOR_EACH_CLIENT(client) offer(client, client->level = BUFFER[client - clients].granted);
    pm_error_t error = pm_policy_commit(control);
    if (error) fail("committing", error);
  }
  FOR_EACH_CLIENT(client) {
    if (raised(client) == client->level) continue;
    offer(client, raised(client));
    if (pm_policy_commit(control)) offer(client, client->level);
    else client->level = raised(client);
  }
}

/// The next time at which something falls due; PM_FOREVER: never.
static uint64_t next_change(void) {
  uint64_t next = PM_FOREVER;
  FOR_EACH_CLIENT(client) {
    if (client->has_contract && client->expires < next) next = client->expires;
    if (client->due && client->due < next) next = client->due;
  }
  return next;
}

// ---- contracts -------------------------------------------------------------------

static pm_error_t negotiate(struct client *client, const struct pm_message *request, uint64_t now) {
  uint64_t duration = request->words[3];
  if (!duration) return PM_EINVAL;
  struct client before = *client;
  client->contract = (struct quota){request->words[1], request->words[2] != 0};
  client->has_contract = true;
  client->expires = duration > PM_FOREVER - now ? PM_FOREVER : now + duration;
  if (client->contract.guaranteed <= client->level) return PM_OK;
  offer(client, client->contract.guaranteed);
  pm_error_t error = pm_policy_commit(control);
  if (!error) {
    client->level = client->contract.guaranteed;
    return PM_OK;
  }
  *client = before;
  offer(client, client->level);
  return error;
}

static struct pm_message answer_to(const struct pm_message *request, uint64_t now) {
  struct pm_message answer = {.words = {PM_EINVAL}, .reply = request->reply};
  struct client *client = client_of(request->sender);
  if (!client) return answer;
  switch (request->words[0]) {
    case PM_POLICY_NEGOTIATE:
      answer.words[0] = (uint64_t)negotiate(client, request, now);
      if (answer.words[0]) return answer;
      settle(now);
      answer.words[1] = client->contract.guaranteed;
      answer.words[2] = client->contract.extra;
      answer.words[3] = client->expires;
      answer.words[4] = client->due ? client->due : now;
      return answer;
    case PM_POLICY_RELEASE:
      answer.words[0] = client->has_contract ? PM_OK : PM_ENOENT;
      if (client->has_contract) end_contract(client);
      return answer;
    default: return answer;
  }
}

// ---- replacing a policy server (R10) -----------------------------------------------

/// Converts a client to a message, and back: everything except its slot.
static struct pm_message message_of(const struct client *client) {
  uint64_t flags = client->base.extra | (uint64_t)client->has_contract << 1 | (uint64_t)client->contract.extra << 2;
  return (struct pm_message){.words = {client->task, client->level, client->due, client->base.guaranteed,
                                       client->contract.guaranteed, client->expires, flags}};
}

static struct client client_in(const struct pm_message *message) {
  const uint64_t *words = message->words;
  return (struct client){words[0], words[1], words[2], {words[3], words[6] & 1}, words[6] >> 1 & 1,
                         {words[4], words[6] >> 2 & 1}, words[5]};
}

/// Answers the next call of the task that takes over. Returns false if it does not call any more.
static bool answer_successor(pm_cap_t line, uint64_t successor, struct pm_message answer) {
  struct pm_message request;
  pm_error_t error;
  do error = pm_receive(line, &request, TAKE_OVER_US);
  while (error == PM_EAGAIN);
  if (error) return false;
  pm_message_drop_caps(&request);
  if (request.sender != successor) return false;
  answer.reply = request.reply;
  return !pm_reply(&answer);
}

/// A task's launcher chooses its name, so a task cannot make itself a policy server.
static bool may_take_over(uint64_t task) {
  char name[PM_NAME_MAXIMUM + 1];
  return !pm_task_name(control, task, name) && (!strcmp(name, "policy") || !strcmp(name, "policy-server"));
}

/// Hands everything over to the task that asks for it, and ends; returns if that task does not go on.
static void hand_over(const struct pm_message *request) {
  struct pm_message answer = {.words = {PM_EPERM}, .reply = request->reply};
  pm_cap_t line = 0;
  if (may_take_over(request->sender)) answer.words[0] = (uint64_t)pm_endpoint_create(&line);
  FOR_EACH_CLIENT(client) answer.words[1]++;
  answer.caps[0] = line;
  bool goes_on = !pm_reply(&answer) && line;
  FOR_EACH_CLIENT(client) goes_on = goes_on && answer_successor(line, request->sender, message_of(client));
  struct pm_message last = {.caps = {control, endpoint}, .moves = 3};
  if (goes_on && answer_successor(line, request->sender, last)) exit(0);
  if (line) pm_cap_drop(line);
  // PM_EAGAIN about tasks that came or went may have been returned on the line, so scan now.
  look_around();
}

static struct client taken[CAPACITY];

static void take_over(void) {
  pm_cap_t old;
  pm_error_t error = pm_name_lookup(PM_POLICY_NAME, &old, TAKE_OVER_US);
  if (error) fail("another task has control, and is not a policy server", error);
  struct pm_message message = {.words = {PM_POLICY_TAKE_OVER}};
  error = pm_call(old, &message, TAKE_OVER_US);
  if (!error) error = (pm_error_t)message.words[0];
  if (error) fail("the running policy server does not hand over", error);
  pm_cap_t line = message.caps[0];
  message.caps[0] = PM_CAP_NONE;
  pm_message_drop_caps(&message);
  uint64_t count = message.words[1];
  for (uint64_t i = 0; i < count && i < CAPACITY; i++) {
    message = (struct pm_message){0};
    error = pm_call(line, &message, TAKE_OVER_US);
    if (error) fail("taking over contracts", error);
    taken[i] = client_in(&message);
    pm_message_drop_caps(&message);
  }
  message = (struct pm_message){0};
  error = pm_call(line, &message, TAKE_OVER_US);
  if (error) fail("taking over control", error);
  control = message.caps[0];
  endpoint = message.caps[1];
  pm_cap_drop(line);
  pm_cap_drop(old);
  look_around();
  for (uint64_t i = 0; i < count && i < CAPACITY; i++) {
    struct client *client = client_of(taken[i].task);
    if (client) *client = taken[i];
  }
}

// ---- the program -----------------------------------------------------------------

static void begin(void) {
  pm_error_t error = pm_on_fault(map_buffer);
  if (error) fail("waiting for faults", error);
  error = pm_get_control(&control);
  if (error == PM_EPERM) {
    take_over();
    return settle(pm_clock_us());
  }
  if (error) fail("getting control", error);
  look_around();
  settle(pm_clock_us());
  error = pm_endpoint_create(&endpoint);
  if (!error) error = pm_name_register(PM_POLICY_NAME, endpoint);
  if (error) fail("registering the name policy", error);
}

static void serve(struct pm_message *request, uint64_t now) {
  pm_message_drop_caps(request);
  if (request->words[0] == PM_POLICY_TAKE_OVER) return hand_over(request);
  struct pm_message answer = answer_to(request, now);
  // The caller may be gone: the contract holds all the same, and ends with the task.
  (void)pm_reply(&answer);
}

int main(int argc, char **argv) {
  if (argc > 2) {
    printf("policy-server: give the text of a policy file, or nothing.\n");
    return 64;
  }
  if (argc == 2 && !read_policy(argv[1])) return 64;
  begin();
  while (true) {
    uint64_t now = pm_clock_us(), next = next_change();
    struct pm_message request;
    pm_error_t error = pm_receive(endpoint, &request, next == PM_FOREVER ? next : next > now ? next - now : 0);
    if (error && error != PM_EAGAIN && error != PM_ETIMEDOUT) fail("waiting for requests", error);
    look_around();
    now = pm_clock_us();
    if (!error) serve(&request, now);
    settle(now);
  }
}
