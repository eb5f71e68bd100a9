// Control and the policy buffer (R4, R8-R13), as tasks see them. Each case is its own policy server.
#include "test.h"

#define BUFFER ((volatile struct pm_policy_entry *)REGION)

static pm_cap_t control;
static uint32_t entries;

static struct pm_task_info own_info(void) {
  struct pm_task_info info;
  CHECK_OK(pm_task_info(&info));
  return info;
}

static void map_buffer(void) { CHECK_OK(pm_get_policy_buffer(control, (void *)BUFFER, &entries)); }

static void take_control(void) {
  CHECK_OK(pm_get_control(&control));
  map_buffer();
}

static volatile struct pm_policy_entry *entry_of(uint64_t task) {
  for (uint32_t i = 0; i < entries; i++)
    if (BUFFER[i].task == task) return &BUFFER[i];
  return NULL;
}

static volatile struct pm_policy_entry *own_entry(void) {
  volatile struct pm_policy_entry *entry = entry_of(own_info().id);
  CHECK(entry != NULL);
  return entry;
}

/// Answers the client's question with control.
static void hand_over(bool is_moved) {
  struct pm_message message = next_question();
  message.caps[0] = control;
  message.moves = is_moved;
  CHECK_OK(pm_reply(&message));
}

PM_TEST(once, 0, 1, "R9: control is given only once, even after it is gone") {
  CHECK_OK(pm_get_control(&control));
  pm_cap_t second = 5;
  CHECK_ERROR(pm_get_control(&second), PM_EPERM);
  CHECK_OK(pm_cap_drop(control));
  CHECK_ERROR(pm_get_control(&second), PM_EPERM);
  CHECK_EQ(second, 5);
}

PM_TEST(bad_arguments, 0, 1, "R11, safety: handles that are not control, bad addresses and bad result pointers") {
  const uint64_t wild[] = {0, 8, 0xfff, 0x1001, PM_USER_END, PM_USER_END + 8, 1ull << 47, UINT64_MAX, UINT64_MAX - 4095};
  const uint64_t beyond[] = {0, 8, PM_USER_END, 1ull << 47, UINT64_MAX};
  char name[PM_NAME_MAXIMUM + 1];
  for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++)
    CHECK_ERROR(pm_get_control((pm_cap_t *)beyond[i]), PM_EFAULT);
  CHECK_OK(pm_get_control(&control));
  CHECK_ERROR(pm_policy_commit(control), PM_ENOENT);
  CHECK_ERROR(pm_get_policy_buffer(PM_CAP_SELF, REGION, &entries), PM_EPERM);
  CHECK_ERROR(pm_get_policy_buffer(PM_CAP_NONE, REGION, &entries), PM_EINVAL);
  CHECK_ERROR(pm_get_policy_buffer(control + 1, REGION, &entries), PM_EINVAL);
  CHECK_ERROR(pm_policy_commit(PM_CAP_CONTAINER), PM_EPERM);
  CHECK_ERROR(pm_policy_commit(77), PM_EINVAL);
  CHECK_ERROR(pm_task_name(PM_CAP_SELF, own_info().id, name), PM_EPERM);
  for (size_t i = 0; i < sizeof wild / sizeof *wild; i++)
    CHECK_ERROR(pm_get_policy_buffer(control, (void *)wild[i], &entries), PM_EINVAL);
  for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
    CHECK_ERROR(pm_get_policy_buffer(control, REGION, (uint32_t *)beyond[i]), PM_EFAULT);
    CHECK_ERROR(pm_task_name(control, own_info().id, (char *)beyond[i]), PM_EFAULT);
  }
  CHECK(read_faults(REGION));
}

PM_TEST(first_buffer, 0, 1, "R12: the first buffer shows the current tasks, and guarantees nothing") {
  pm_container_t container = make_container(10);
  take_control();
  CHECK(entries >= 64);
  volatile struct pm_policy_entry *own = own_entry();
  CHECK_EQ(own->allocated, allocated_frames());
  CHECK_EQ(own->granted, 0);
  CHECK_EQ(own->guaranteed, 0);
  CHECK_EQ(own->extra, 1);
  CHECK_EQ(own->swap_quota, 0);
  uint32_t count = 5;
  CHECK_OK(pm_container_allocate(container, 10, &count, 0));
  CHECK_EQ(own->allocated, allocated_frames());
  CHECK_OK(pm_container_destroy(container));
  CHECK_EQ(own->allocated, allocated_frames());
}

PM_TEST(commit, 0, 1, "R7, R8: written values take effect at the commit") {
  take_control();
  pm_container_t container = make_container(0);
  uint64_t guaranteed = allocated_frames() + 20;
  own_entry()->guaranteed = guaranteed;
  own_entry()->extra = 0;
  CHECK_EQ(own_info().guaranteed, 0);
  uint32_t count = 1000;
  CHECK_OK(pm_container_allocate(container, 0, &count, 0));
  CHECK_OK(pm_container_deallocate(container, 0, &count, 0));
  CHECK_OK(pm_policy_commit(control));
  CHECK_EQ(own_info().guaranteed, guaranteed);
  CHECK_EQ(own_entry()->granted, guaranteed);
  CHECK_EQ(own_info().available, 20);
  count = 21;
  CHECK_ERROR(pm_container_allocate(container, 0, &count, PM_ALLOC_EXTRA), PM_ENOMEM);
  count = 20;
  CHECK_OK(pm_container_allocate(container, 0, &count, 0));
  own_entry()->extra = 1;
  CHECK_OK(pm_policy_commit(control));
  count = 21;
  CHECK_ERROR(pm_container_allocate(container, 20, &count, 0), PM_ENOMEM);
  count = 21;
  CHECK_OK(pm_container_allocate(container, 20, &count, PM_ALLOC_EXTRA));
}

PM_TEST(overcommit, 0, 1, "R4: guaranteeing more than memory fails and changes nothing") {
  const uint64_t absurd[] = {UINT64_MAX, UINT64_MAX - 1, 1ull << 63, INT64_MAX, 1ull << 32, 1 << 20};
  take_control();
  volatile struct pm_policy_entry *own = own_entry();
  own->guaranteed = 100;
  CHECK_OK(pm_policy_commit(control));
  for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
    own->guaranteed = absurd[i];
    own->extra = 0;
    CHECK_ERROR(pm_policy_commit(control), PM_ENOMEM);
    CHECK_EQ(own_info().guaranteed, 100);
    CHECK(own_info().available > 100);
  }
  // Finds the largest possible guarantee by bisection.
  uint64_t low = 100, high = 1 << 20;
  while (low + 1 < high) {
    own->guaranteed = (low + high) / 2;
    if (pm_policy_commit(control)) high = own->guaranteed;
    else low = own->guaranteed;
    CHECK_EQ(own_info().guaranteed, low);
  }
  own->guaranteed = low;
  CHECK_OK(pm_policy_commit(control));
  map_fresh(REGION_2, (uint32_t)(low - allocated_frames()));
  CHECK_EQ(own_info().available, 0);
}

PM_TEST(garbage, 0, 1, "R4, R11, safety: random bytes in the buffer are committed as they are, or rejected") {
  take_control();
  uint64_t state = 1, refused = 0;
  uint32_t slot = (uint32_t)(own_entry() - BUFFER);
  for (int round = 0; round < 300; round++) {
    volatile uint64_t *word = (volatile uint64_t *)BUFFER;
    uint64_t before = own_info().guaranteed;
    for (size_t i = 0; i < entries * sizeof *BUFFER / 8; i++) word[i] = next_random(&state) >> (round * 7 % 64);
    uint64_t wanted = BUFFER[slot].guaranteed;
    pm_error_t error = pm_policy_commit(control);
    CHECK(error == PM_OK || error == PM_ENOMEM);
    refused += error == PM_ENOMEM;
    CHECK_EQ(own_info().guaranteed, error ? before : wanted);
    if (error) continue;
    CHECK_EQ(BUFFER[slot].task, own_info().id);
    CHECK_EQ(BUFFER[slot].granted, wanted);
    CHECK_EQ(BUFFER[slot].allocated, allocated_frames());
    CHECK_EQ(BUFFER[slot ? 0 : 1].guaranteed, 0);
  }
  CHECK(refused > 50 && refused < 290);
}

PM_TEST(mapped_anew, 0, 1, "R11: the buffer is mapped at the address of the last call only") {
  take_control();
  own_entry()->guaranteed = 9;
  CHECK_OK(pm_get_policy_buffer(control, REGION_2, &entries));
  CHECK(read_faults(REGION));
  CHECK_EQ(((struct pm_policy_entry *)REGION_2)[own_info().id - 1].guaranteed, 9);
  // Over other mappings, and over itself.
  pm_container_t container = map_fresh(REGION, 1);
  WORD(REGION, 0) = 77;
  map_buffer();
  CHECK_EQ(own_entry()->guaranteed, 9);
  map_buffer();
  CHECK_EQ(own_entry()->guaranteed, 9);
  CHECK_OK(pm_get_policy_buffer(control, REGION_2, &entries));
  CHECK(read_faults(REGION));
  CHECK_OK(pm_container_map(container, 0, 1, REGION, LAZY_READ_WRITE));
  CHECK_EQ(WORD(REGION, 0), 77);
  CHECK_OK(pm_cap_drop(control));
  CHECK_EQ(WORD(REGION, 0), 77);
}

PM_TEST(dropped, 0, 1, "R11: dropping control unmaps the buffer") {
  take_control();
  own_entry()->guaranteed = 200;
  CHECK_OK(pm_policy_commit(control));
  CHECK_OK(pm_cap_drop(control));
  CHECK(read_faults(REGION));
  CHECK_ERROR(pm_policy_commit(control), PM_EINVAL);
  CHECK_EQ(own_info().guaranteed, 200);
}

PM_TEST(names, 0, 1, "R14: a task's name is the one it was launched under") {
  char name[PM_NAME_MAXIMUM + 1];
  take_control();
  CHECK_OK(pm_task_name(control, own_info().id, name));
  CHECK(!strcmp(name, "control"));
  CHECK_ERROR(pm_task_name(control, 0, name), PM_ENOENT);
  CHECK_ERROR(pm_task_name(control, UINT64_MAX, name), PM_ENOENT);
}

PM_TEST(only_one, 0, 8, "R9: of many tasks that ask for control one gets it") {
  unsigned number = join(8), got = 0;
  if (number) {
    pm_cap_t cap;
    pm_error_t error = pm_get_control(&cap);
    CHECK(error == PM_OK || error == PM_EPERM);
    ask(error == PM_OK, 0);
    return;
  }
  for (int i = 1; i < 8; i++) {
    struct pm_message message = next_question();
    got += (unsigned)message.words[0];
    answer(&message, 0, 0);
  }
  CHECK_EQ(got, 1);
  CHECK_ERROR(pm_get_control(&control), PM_EPERM);
}

PM_TEST(moved, 0, 2, "R10: control is moved: the receiver has it, the sender has not, and the buffer is the same") {
  if (!join(2)) {
    take_control();
    own_entry()->guaranteed = 123;
    hand_over(true);
    CHECK(read_faults(REGION));
    CHECK_ERROR(pm_policy_commit(control), PM_EINVAL);
    struct pm_message message = next_question();
    CHECK_EQ(own_info().guaranteed, 123);
    return answer(&message, 0, 0);
  }
  control = ask(0, 0).caps[0];
  map_buffer();
  CHECK_OK(pm_policy_commit(control));
  ask(0, 0);
}

PM_TEST(copied, 0, 2, "R10, R11: control is copied: both have it, and one at a time has the buffer") {
  unsigned number = join(2);
  if (!number) {
    take_control();
    own_entry()->guaranteed = allocated_frames() + 10;
  }
  for (unsigned turn = 0; turn < 20; turn++) {
    if (!number) {
      if (turn == 0) hand_over(false);
      else {
        struct pm_message message = next_question();
        answer(&message, 0, 0);
      }
    } else {
      struct pm_message message = ask(0, 0);
      if (turn == 0) control = message.caps[0];
      map_buffer();
      volatile struct pm_policy_entry *own = own_entry();
      own->guaranteed = 50 + turn;
      CHECK_OK(pm_policy_commit(control));
      CHECK_EQ(own_info().guaranteed, 50 + turn);
    }
  }
  if (number) return (void)ask(0, 0);
  struct pm_message message = next_question();
  CHECK(read_faults(REGION));
  map_buffer();
  CHECK_EQ(entry_of(message.sender)->guaranteed, 69);
  answer(&message, 0, 0);
}

PM_TEST(race, 0, 2, "R4, R11, safety: one task writes to the buffer while another commits it") {
  if (!join(2)) {
    take_control();
    hand_over(false);
    volatile struct pm_policy_entry *own = own_entry();
    volatile uint64_t *word = (volatile uint64_t *)BUFFER;
    uint64_t state = 7, end = pm_clock_us() + 300000;
    while (pm_clock_us() < end) {
      for (size_t i = 0; i < entries * sizeof *BUFFER / 8; i++) word[i] = next_random(&state) >> 56;
      own->guaranteed = UINT64_MAX;
      own->guaranteed = 100;
    }
    struct pm_message message = next_question();
    return answer(&message, 0, 0);
  }
  control = ask(0, 0).caps[0];
  uint64_t end = pm_clock_us() + 250000;
  while (pm_clock_us() < end) {
    pm_error_t error = pm_policy_commit(control);
    CHECK(error == PM_OK || error == PM_ENOMEM);
    CHECK(own_info().guaranteed < 256);
  }
  ask(0, 0);
}

PM_TEST(dies, 0, 2, "R9: the policy server ends: its last policy stays in force for good") {
  if (!join(2)) {
    take_control();
    struct pm_message message = next_question();
    entry_of(message.sender)->guaranteed = 111;
    entry_of(message.sender)->extra = 0;
    CHECK_OK(pm_policy_commit(control));
    return answer(&message, own_info().id, 0);
  }
  ask(0, 0);
  pm_sleep(50000);
  CHECK_ERROR(pm_get_control(&control), PM_EPERM);
  CHECK_EQ(own_info().guaranteed, 111);
  CHECK_EQ(own_info().available, 111 - allocated_frames());
  map_fresh(REGION_2, (uint32_t)own_info().available);
  fill_pages(REGION_2, 4, 1);
}

PM_TEST(handed_to_the_dying, 0, 2,
        "R9, R10: control is moved to a task that ends: it is gone, and all others continue") {
  if (join(2)) {
    control = ask(0, 0).caps[0];
    CHECK(control != 0);
    return;
  }
  take_control();
  uint64_t guaranteed = allocated_frames() + 10;
  own_entry()->guaranteed = guaranteed;
  CHECK_OK(pm_policy_commit(control));
  hand_over(true);
  pm_sleep(50000);
  CHECK_ERROR(pm_get_control(&control), PM_EPERM);
  CHECK_EQ(own_info().guaranteed, guaranteed);
  map_fresh(REGION_2, 10);
  fill_pages(REGION_2, 10, 1);
}

PM_TEST(never_maps, 0, 2, "R8: taking control without the buffer changes nothing for any task") {
  if (join(2)) {
    ask(0, 0);
    CHECK_EQ(own_info().guaranteed, 0);
    map_fresh(REGION, 5000);
    return (void)ask(0, 0);
  }
  CHECK_OK(pm_get_control(&control));
  struct pm_message message = next_question();
  CHECK_ERROR(pm_policy_commit(control), PM_ENOENT);
  answer(&message, 0, 0);
  message = next_question();
  answer(&message, 0, 0);
}

PM_TEST(takes_everything, 0, 2,
        "R3, R5: a policy server that guarantees itself everything leaves others what they have") {
  if (join(2)) {
    map_fresh(REGION, 8);
    fill_pages(REGION, 8, 3);
    ask(0, 0);
    uint32_t count = 1;
    CHECK_ERROR(pm_container_allocate(make_container(0), 0, &count, 0), PM_ENOMEM);
    check_pages(REGION, 8, 3);
    return (void)ask(0, 0);
  }
  take_control();
  struct pm_message message = next_question();
  uint64_t low = 0, high = 1 << 20;
  while (low + 1 < high) {
    own_entry()->guaranteed = (low + high) / 2;
    if (pm_policy_commit(control)) high = (low + high) / 2;
    else low = (low + high) / 2;
  }
  CHECK_EQ(own_info().guaranteed, low);
  answer(&message, 0, 0);
  message = next_question();
  answer(&message, 0, 0);
}

PM_TEST(told, 0, 3, "R14: the holder of the buffer learns in pm_receive that tasks have gone") {
  unsigned number = join(3);
  if (number) return (void)ask(number, 0);
  take_control();
  uint64_t clients[2] = {0};
  unsigned answered = 0, told = 0;
  struct pm_message message;
  while (answered < 2 || entry_of(clients[0]) || entry_of(clients[1])) {
    pm_error_t error = pm_receive(partner, &message, LONG_US);
    if (error == PM_EAGAIN) {
      told++;
      continue;
    }
    CHECK_OK(error);
    CHECK(entry_of(message.sender) != NULL);
    clients[answered++] = message.sender;
    answer(&message, 0, 0);
  }
  // Both ended before it received: it learns so now.
  if (!told) CHECK_ERROR(pm_receive(partner, &message, 0), PM_EAGAIN);
  }
