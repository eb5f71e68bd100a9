// A client and a server that use one container in turns, at random, compared with a naive model (R20-R24).
#include "test.h"

enum { IDS = 24, STEPS = 1500 };

/// Requests of the client to the server: words[0], with a capability, an id and a number.
enum { MAP = 1, WRITE, READ, COPY_FROM_CACHE, COPY_TO_CACHE, LOCK, UNLOCK, PIN, UNPIN, STOP };

// ---- the server: carries out requests on pages mapped at REGION_2 -------------------------------

static pm_container_t weak, cache;

/// Carries out a call and returns its result to the client, which checks it.
static pm_error_t serve(const struct pm_message *message, uint64_t *result) {
  pm_frame_t id = (pm_frame_t)message->words[1];
  switch (message->words[0]) {
    case MAP:
      if (message->caps[0]) weak = message->caps[0];
      return pm_container_map(weak, 0, IDS, REGION_2, LAZY_READ_WRITE);
    case WRITE: WORD(REGION_2, id) = message->words[2]; return PM_OK;
    case READ: *result = WORD(REGION_2, id); return PM_OK;
    case COPY_FROM_CACHE: return pm_container_copy(cache, 0, weak, id, 1, NULL);
    case COPY_TO_CACHE:
      if (pm_container_copy(weak, id, cache, 0, 1, NULL)) return PM_EINVAL;
      *result = WORD(PAGE(REGION_2, IDS), 0);
      return PM_OK;
    case LOCK: return pm_container_lock(weak, PM_LOCK_MAXIMUM_US);
    case UNLOCK: return pm_container_unlock(weak);
    case PIN: return pm_container_pin(weak, id, 1, PM_LOCK_MAXIMUM_US, result);
    default: return pm_container_unpin(weak, id, 1);
  }
}

static void run_server(void) {
  cache = map_numbered(PAGE(REGION_2, IDS), 1, 7);
  for (struct pm_message message = next_question();; CHECK_OK(pm_reply_receive(partner, &message, LONG_US))) {
    uint64_t result = 0;
    if (message.words[0] == STOP) break;
    if (message.words[0] == COPY_FROM_CACHE) WORD(PAGE(REGION_2, IDS), 0) = message.words[2];
    uint64_t error = (uint64_t)serve(&message, &result);
    message = (struct pm_message){.words = {error, result}, .reply = message.reply};
    if (error) CHECK_EQ(error, PM_ECANCELED);
  }
}

// ---- the client: the owner, and the model -------------------------------------------------------

static uint64_t model[IDS], kept[IDS], state = 4711, last_number;
static pm_container_t container, copies;

static uint32_t below(uint32_t limit) { return (uint32_t)(next_random(&state) >> 20) % limit; }

static uint64_t tell(uint64_t what, uint64_t id, uint64_t number) {
  struct pm_message message = {.words = {what, id, number}};
  CHECK_OK(pm_call(partner, &message, LONG_US));
  CHECK_EQ(message.words[0], PM_OK);
  return message.words[1];
}

static void share(void) {
  struct pm_message message = {.words = {MAP}, .moves = below(2)};
  CHECK_OK(pm_container_share(container, below(2) ? partner : PM_CAP_NONE, &message.caps[0]));
  CHECK_OK(pm_call(partner, &message, LONG_US));
  CHECK_EQ(message.words[0], PM_OK);
}

static void step_server(pm_frame_t id) {
  switch (below(4)) {
    case 0: tell(WRITE, id, model[id] = ++last_number); break;
    case 1: CHECK_EQ(tell(READ, id, 0), model[id]); break;
    case 2: tell(COPY_FROM_CACHE, id, model[id] = ++last_number); break;
    default: CHECK_EQ(tell(COPY_TO_CACHE, id, 0), model[id]); break;
  }
}

static void step_owner(pm_frame_t id) {
  uint32_t one = 1;
  switch (below(6)) {
    case 0: WORD(REGION, id) = model[id] = ++last_number; break;
    case 1: CHECK_OK(pm_container_copy(container, id, copies, id, 1, NULL)), kept[id] = model[id]; break;
    case 2: CHECK_OK(pm_container_copy(copies, id, container, id, 1, NULL)), model[id] = kept[id]; break;
    case 3: CHECK_OK(pm_container_allocate(container, id, &one, PM_ALLOC_SQUASH)), model[id] = 0; break;
    case 4: WORD(PAGE(REGION, IDS), id) = kept[id] = ++last_number; break;
    default: CHECK_EQ(WORD(REGION, id), model[id]); break;
  }
}

static void step_hold(pm_frame_t id) {
  uint32_t one = 1;
  if (below(2)) {
    tell(LOCK, 0, 0);
    CHECK_ERROR(pm_container_allocate(container, id, &one, PM_ALLOC_SQUASH), PM_EBUSY);
    tell(WRITE, id, model[id] = ++last_number);
    tell(UNLOCK, 0, 0);
  } else {
    uint64_t physical = tell(PIN, id, 0);
    CHECK_ERROR(pm_container_deallocate(container, id, &one, 0), PM_EBUSY);
    CHECK_EQ(WORD(REGION, id), model[id]);
    CHECK_SAME_FRAME(mapping_at(PAGE(REGION, id)).physical, physical);
    tell(UNPIN, id, 0);
  }
}

static void run_client(void) {
  container = map_fresh(REGION, IDS);
  copies = map_fresh(PAGE(REGION, IDS), IDS);
  share();
  for (int step = 0; step < STEPS; step++) {
    pm_frame_t id = below(IDS);
    switch (below(16)) {
      case 0:
        CHECK_OK(pm_container_revoke(container));
        share();
        break;
      case 1: step_hold(id); break;
      case 2: tell(MAP, 0, 0); break;
      case 3:
      case 4:
      case 5:
      case 6:
      case 7:
      case 8: step_server(id); break;
      default: step_owner(id); break;
    }
  }
  for (uint32_t id = 0; id < IDS; id++) {
    CHECK_EQ(WORD(REGION, id), model[id]);
    CHECK_EQ(WORD(PAGE(REGION, IDS), id), kept[id]);
    CHECK_EQ(tell(READ, id, 0), model[id]);
  }
  struct pm_message message = {.words = {STOP}};
  CHECK_ERROR(pm_call(partner, &message, LONG_US), PM_ECANCELED);
}

PM_TEST(model, 0, 2, "R20, R21, R22, R24: 1,500 random steps by two tasks agree with a naive model") {
  if (!join(2)) run_server();
  else run_client();
}
