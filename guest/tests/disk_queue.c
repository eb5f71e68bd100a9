// The disk's queue, driven by hand, without an event index: interrupts, and drivers that break the protocol.
#include <physmem.h>

#include "test.h"

#define SIZE 16u
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { QUEUE_SIZE = 0x38, QUEUE_READY = 0x44, NOTIFY = 0x50, STATUS = 0x70, DESCRIPTORS = 0x80, AVAILABLE = 0x90, USED = 0xa0 };
enum { NEEDS_RESET = 64 };

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags, next;
};
// In one frame, with everything else of a request.
struct queue {
  struct descriptor descriptors[SIZE];
  uint16_t available_flags, available_index, available[SIZE], used_event;
  _Alignas(4) uint16_t used_flags;
  uint16_t used_index;
  struct {
    uint32_t head, length;
  } used[SIZE];
  uint16_t available_event;
  _Alignas(16) struct {
    uint32_t operation, reserved;
    uint64_t sector;
  } header;
  uint8_t status;
};
static volatile struct queue *const queue = (volatile struct queue *)REGION;
#define DATA PAGE(REGION, 1)
static uint64_t physical[3];
static pm_container_t container;

static void set(uint32_t offset, uint64_t value) { CHECK_OK(pm_device_write(0, offset, (uint32_t)value)); }
static uint32_t get(uint32_t offset) {
  uint32_t value;
  CHECK_OK(pm_device_read(0, offset, &value));
  return value;
}
static uint64_t at(volatile void *address) { return physical[((char *)address - REGION) / PM_PAGE_SIZE] + (uint64_t)address % PM_PAGE_SIZE; }

static void set_up(void) {
  set(STATUS, 0);
  CHECK_EQ(get(STATUS), 0);
  memset((void *)queue, 0, sizeof *queue);
  set(STATUS, 1 | 2);
  set(0x24, 1);
  set(0x20, 3);
  set(STATUS, 1 | 2 | 8);
  set(QUEUE_SIZE, SIZE);
  set(DESCRIPTORS, at(queue->descriptors));
  set(AVAILABLE, at(&queue->available_flags));
  set(USED, at(&queue->used_flags));
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 1);
  set(STATUS, 1 | 2 | 8 | 4);
  CHECK_EQ(get(STATUS), 15);
}

/// Frame 0 holds the queue, 1 and 2 are for data.
static void start(void) {
  CHECK_OK(pm_device_claim(0));
  container = map_fresh(REGION, 3);
  CHECK_OK(pm_container_pin(container, 0, 3, PM_LOCK_MAXIMUM_US, physical));
  set_up();
}

static void describe(unsigned index, uint64_t address, uint32_t length, unsigned flags, unsigned next) {
  queue->descriptors[index].address = address;
  queue->descriptors[index].length = length;
  queue->descriptors[index].flags = (uint16_t)flags;
  queue->descriptors[index].next = (uint16_t)next;
}

/// Describes a read of a sector to the first data frame, in descriptors 0, 1, 2.
static void describe_read(uint64_t sector) {
  queue->header.operation = 0;
  queue->header.sector = sector;
  queue->status = 0xff;
  describe(0, at(&queue->header), 16, NEXT, 1);
  describe(1, physical[1], 512, NEXT | WRITE, 2);
  describe(2, at(&queue->status), 1, WRITE, 0);
}

static void offer(uint16_t head) {
  queue->available[queue->available_index % SIZE] = head;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  queue->available_index = queue->available_index + 1;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  set(NOTIFY, 0);
}

static bool is_done(void) { return queue->used_index == queue->available_index; }

static void check_read(uint64_t sector) {
  CHECK_EQ(queue->status, 0);
  for (uint64_t i = 0; i < 64; i++) CHECK_EQ(((uint64_t *)DATA)[i], disk_word(sector * 64 + i));
}

/// Checks that the descriptors from `head` on break the device: it stops, requests a reset, and works after it.
static void check_breaks(uint16_t head) {
  offer(head);
  while (!(get(STATUS) & NEEDS_RESET)) CHECK(!is_done());
  CHECK_EQ(queue->used_index, 0);
  set(NOTIFY, 0);
  set_up();
  describe_read(3);
  offer(0);
  while (!is_done()) CHECK_OK(pm_interrupt_wait(LONG_US));
  check_read(3);
  set_up();
}

/// Checks that they make the request fail, and that only its status is written.
static void check_fails(uint16_t head) {
  fill_pages(DATA, 2, 4);
  queue->status = 0xff;
  offer(head);
  while (!is_done()) CHECK_OK(pm_interrupt_wait(LONG_US));
  CHECK_EQ(queue->status, 1);
  CHECK_EQ(queue->used[(queue->used_index - 1) % SIZE].length, 1);
  check_pages(DATA, 2, 4);
}

static void wait_and_check(uint64_t sector) {
  while (!is_done()) CHECK_OK(pm_interrupt_wait(LONG_US));
  check_read(sector);
}

PM_TEST_DISK(waits_for_interrupts, 0, "1 disk", "a driver that checks, finds nothing and waits misses no interrupt") {
  start();
  for (uint64_t i = 0; i < 300; i++) {
    describe_read(i);
    offer(0);
    wait_and_check(i);
  }
  // One may be left over from a request that completed before the wait.
  (void)pm_interrupt_wait(0);
  CHECK_ERROR(pm_interrupt_wait(1000), PM_ETIMEDOUT);
}

static volatile uint32_t interrupts;
static void count_interrupt(uint64_t devices) {
  CHECK_EQ(devices, 1);
  // A handler may make calls.
  CHECK_EQ(get(0x60) & 1, 1);
  interrupts++;
}

PM_TEST_DISK(handles_interrupts, 0, "1 disk",
             "an interrupt reaches its handler while the task runs, sleeps and waits for a message") {
  start();
  CHECK_OK(pm_on_interrupt(count_interrupt));
  CHECK_ERROR(pm_interrupt_wait(0), PM_EBUSY);
  pm_cap_t endpoint;
  CHECK_OK(pm_endpoint_create(&endpoint));
  for (uint32_t i = 0; i < 30; i++) {
    uint32_t before = interrupts;
    describe_read(i);
    double product = i;
    offer(0);
    if (i % 3 == 1) pm_sleep(2000);
    struct pm_message message;
    if (i % 3 == 2) CHECK_ERROR(pm_receive(endpoint, &message, 2000), PM_ETIMEDOUT);
    while (interrupts == before) product += 1.0 / (1 + product);
    CHECK_EQ(interrupts, before + 1);
    CHECK(is_done() && product >= i);
    check_read(i);
  }
  CHECK_OK(pm_on_interrupt(NULL));
  describe_read(9);
  offer(0);
  wait_and_check(9);
  CHECK_EQ(interrupts, 30);
}

PM_TEST_DISK(no_interrupt_unless_wanted, 0, "1 disk", "a driver that disables interrupts gets none") {
  start();
  queue->available_flags = 1;
  describe_read(1);
  offer(0);
  while (!is_done()) pm_sleep(100);
  check_read(1);
  CHECK_ERROR(pm_interrupt_wait(2000), PM_ETIMEDOUT);
}

PM_TEST_DISK(broken_chains, 0, "1 disk",
             "endless, out-of-range, indirect or statusless chains break the queue, and a reset repairs it") {
  start();
  describe_read(0);
  describe(1, physical[1], 512, NEXT | WRITE, 0);
  check_breaks(0);
  describe_read(0);
  describe(1, physical[1], 512, NEXT | WRITE, SIZE);
  check_breaks(0);
  describe_read(0);
  check_breaks(SIZE);
  describe_read(0);
  check_breaks(0xffff);
  describe_read(0);
  describe(0, at(&queue->header), 16, NEXT | INDIRECT, 1);
  check_breaks(0);
  // No writable descriptor: no status.
  describe_read(0);
  describe(2, at(&queue->status), 1, 0, 0);
  check_breaks(0);
  describe_read(0);
  describe(2, at(&queue->status), 0, WRITE, 0);
  check_breaks(0);
  // The status is not pinned.
  describe_read(0);
  describe(2, physical[2], 1, WRITE, 0);
  CHECK_OK(pm_container_unpin(container, 2, 1));
  check_breaks(0);
  // More chains than descriptors.
  describe_read(0);
  queue->available_index = SIZE;
  check_breaks(0);
}

PM_TEST_DISK(wrong_requests, 0, "1 disk", "malformed requests fail with a status, and touch nothing") {
  start();
  describe_read(0);
  describe(1, physical[1], 511, NEXT | WRITE, 2);
  check_fails(0);
  describe_read(0);
  describe(1, physical[1], 0, NEXT | WRITE, 2);
  check_fails(0);
  describe_read(0);
  describe(1, physical[1], 1u << 31, NEXT | WRITE, 2);
  check_fails(0);
  describe_read(0);
  describe(1, UINT64_MAX - 511, 512, NEXT | WRITE, 2);
  check_fails(0);
  describe_read(0);
  describe(1, UINT64_MAX, 512, NEXT | WRITE, 2);
  check_fails(0);
  // No data; a short header; a readable descriptor after a writable one; data writable by the disk, and readable.
  describe_read(0);
  describe(0, at(&queue->header), 16, NEXT, 2);
  check_fails(0);
  describe_read(0);
  describe(0, at(&queue->header), 15, NEXT, 1);
  check_fails(0);
  describe_read(0);
  describe(0, physical[1], 512, NEXT | WRITE, 1);
  describe(1, at(&queue->header), 16, NEXT, 2);
  check_fails(0);
  describe_read(0);
  queue->header.operation = 1;
  check_fails(0);
  describe_read(0);
  describe(1, physical[1], 512, NEXT, 2);
  check_fails(0);
  // The frame after the pinned ones.
  CHECK_OK(pm_container_unpin(container, 2, 1));
  describe_read(0);
  describe(1, physical[2] == physical[1] + PM_PAGE_SIZE ? physical[1] + 3584 : physical[2], 1024, NEXT | WRITE, 2);
  check_fails(0);
}

PM_TEST_DISK(cut_anywhere, 0, "1 disk",
             "header and data may be split into descriptors anywhere, the status joined with the data") {
  start();
  queue->header.operation = 0;
  queue->header.sector = 11;
  describe(0, at(&queue->header), 3, NEXT, 1);
  describe(1, at(&queue->header) + 3, 12, NEXT, 2);
  describe(2, at(&queue->header) + 15, 1, NEXT, 3);
  describe(3, physical[1], 100, NEXT | WRITE, 4);
  describe(4, physical[1] + 100, 413, WRITE, 0);
  ((volatile uint8_t *)DATA)[512] = 0xff;
  offer(0);
  while (!is_done()) CHECK_OK(pm_interrupt_wait(LONG_US));
  CHECK_EQ(((volatile uint8_t *)DATA)[512], 0);
  CHECK_EQ(queue->used[0].length, 513);
  queue->status = 0;
  check_read(11);
}

PM_TEST_DISK(own_queue_overwritten, 0, "1 disk",
             "a driver that lets the device overwrite its queue harms only itself") {
  start();
  for (uint64_t sector = 0; sector < 40; sector++) {
    describe_read(sector);
    describe(1, physical[0], 512, NEXT | WRITE, 2);
    offer(0);
    // The queue's contents are unknown now: it may break or not.
    for (int i = 0; i < 20 && !(get(STATUS) & NEEDS_RESET); i++) set(NOTIFY, 0);
    set_up();
  }
  describe_read(5);
  offer(0);
  wait_and_check(5);
}

PM_TEST_DISK(queue_not_pinned, 0, "1 disk", "a queue that is not pinned is not touched") {
  start();
  describe_read(0);
  CHECK_OK(pm_container_unpin(container, 0, 1));
  offer(0);
  while (!(get(STATUS) & NEEDS_RESET)) {}
  CHECK_EQ(queue->used_index, 0);
  CHECK_EQ(queue->status, 0xff);
  CHECK_OK(pm_container_pin(container, 0, 1, PM_LOCK_MAXIMUM_US, physical));
  set_up();
  // Nor a queue outside memory, or at an invalid address.
  set(STATUS, 0);
  set(STATUS, 3);
  set(0x24, 1);
  set(0x20, 3);
  set(STATUS, 11);
  set(QUEUE_SIZE, 15);
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 0);
  set(QUEUE_SIZE, 512);
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 0);
  set(QUEUE_SIZE, SIZE);
  set(DESCRIPTORS, 8);
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 0);
  set(DESCRIPTORS, 0xfffffff0);
  set(DESCRIPTORS + 4, 0xffffffff);
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 0);
  set(DESCRIPTORS + 4, 0);
  set(AVAILABLE, 1ull << 31);
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 1);
  set(STATUS, 15);
  set(NOTIFY, 0);
  while (!(get(STATUS) & NEEDS_RESET)) {}
}

PM_TEST_DISK(other_queues, 0, "1 disk", "there is one queue: writes for another selected queue have no effect on it") {
  start();
  set(0x30, 1);
  CHECK_EQ(get(0x34), 0);
  set(QUEUE_READY, 0);
  set(QUEUE_SIZE, 2);
  set(DESCRIPTORS, 0);
  set(QUEUE_READY, 1);
  CHECK_EQ(get(QUEUE_READY), 0);
  set(0x30, 0);
  CHECK_EQ(get(QUEUE_READY), 1);
  describe_read(6);
  offer(0);
  wait_and_check(6);
}

PM_TEST_DISK(features_refused, 0, "1 disk", "the device rejects a driver that ignores its address limits") {
  CHECK_OK(pm_device_claim(0));
  set(STATUS, 3);
  set(STATUS, 11);
  CHECK_EQ(get(STATUS), 3);
  set(0x24, 1);
  set(0x20, 1);
  set(STATUS, 15);
  CHECK_EQ(get(STATUS), 3);
  // Features that it does not offer.
  set(0x20, 3);
  set(0x24, 0);
  set(0x20, 1u << 28);
  set(STATUS, 15);
  CHECK_EQ(get(STATUS), 3);
  set(0x20, 0);
  set(STATUS, 15);
  CHECK_EQ(get(STATUS), 15);
}

PM_TEST_DISK(unpinned_under_way, 0, "1 disk",
             "R22: frames unpinned or expired during a transfer become free only after the transfer") {
  start();
  for (uint64_t i = 0; i < 200; i++) {
    CHECK_OK(pm_container_pin(container, 0, 3, i % 2 ? PM_LOCK_MAXIMUM_US : 30 + i, physical));
    describe_read(i);
    offer(0);
    if (i % 2) {
      CHECK_OK(pm_container_unpin(container, 0, 3));
    } else {
      pm_error_t error = pm_container_unpin(container, 0, 3);
      CHECK(!error || error == PM_ENOENT);
    }
    // Done, failed or broken: in each case it ends soon, and the frames can be freed.
    uint32_t count = 1;
    while (pm_container_deallocate(container, 1, &count, 0) == PM_EBUSY) count = 1;
    CHECK_EQ(count, 1);
    CHECK_OK(pm_container_allocate(container, 1, &count, 0));
    CHECK(is_zero(DATA, PM_PAGE_SIZE));
    CHECK_OK(pm_container_pin(container, 0, 3, PM_LOCK_MAXIMUM_US, physical));
    set_up();
  }
}

PM_TEST_DISK(dies_under_way, 0, "1 disk", "a driver that ends with outstanding requests leaves nothing behind") {
  start();
  for (unsigned i = 0; i < 4; i++) {
    describe_read(i);
    offer(0);
  }
}
