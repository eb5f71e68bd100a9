// A virtio block device as its driver sees it: registers, and the memory that the two share. For the driver's two
// files: block.c sets the device up, block_queue.c submits requests. Source: virtio 1.2, 2.7, 4.2 and 5.2.
#ifndef PHYSMEM_BLOCK_DEVICE_H
#define PHYSMEM_BLOCK_DEVICE_H

#include <physmem/block.h>

enum {
  FEATURES = 0x010, FEATURES_SELECTOR = 0x014, ACCEPTED = 0x020, ACCEPTED_SELECTOR = 0x024,
  QUEUE_SELECTOR = 0x030, QUEUE_MOST = 0x034, QUEUE_SIZE = 0x038, QUEUE_READY = 0x044, NOTIFY = 0x050,
  STATUS = 0x070, QUEUE_DESCRIPTORS = 0x080, QUEUE_AVAILABLE = 0x090, QUEUE_USED = 0x0a0,
  SECTORS = 0x100, MOST_SEGMENT = 0x108,
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
// VIRTIO_BLK_F_SIZE_MAX, _RO, _FLUSH, VIRTIO_F_EVENT_IDX; VIRTIO_F_VERSION_1, _ACCESS_PLATFORM.
enum { READ_ONLY = 1 << 5, WANTED = 1 << 1 | READ_ONLY | 1 << 9 | 1 << 29, WANTED_HIGH = 1 << 0 | 1 << 1 };
enum { NEXT = 1, WRITABLE = 2 };

#define SIZE PM_BLOCK_QUEUE

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags, next;
};

// Three frames, which need not be adjacent.
struct pm_block_memory {
  struct descriptor descriptors[SIZE];
  // The second frame.
  struct {
    uint16_t flags, index, ring[SIZE], used_event;
  } available;
  _Alignas(1024) struct {
    uint16_t flags, index;
    struct {
      uint32_t head, length;
    } ring[SIZE];
    uint16_t available_event;
  } used;
  uint8_t statuses[SIZE];
  // The third.
  _Alignas(PM_PAGE_SIZE) struct header {
    uint32_t operation, reserved;
    uint64_t sector;
  } headers[SIZE];
};
_Static_assert(sizeof(struct pm_block_memory) == 3 * PM_PAGE_SIZE, "pm_block_memory");
_Static_assert(offsetof(struct pm_block_memory, available) == PM_PAGE_SIZE, "pm_block_memory");

static inline uint64_t physical(const struct pm_block *block, const void *at) {
  uint64_t offset = (uint64_t)at - (uint64_t)block->memory;
  return block->physical[offset / PM_PAGE_SIZE] + offset % PM_PAGE_SIZE;
}

static inline uint32_t get(const struct pm_block *block, uint32_t offset) {
  uint32_t value = 0;
  (void)pm_device_read(block->device, offset, &value);
  return value;
}

static inline void set(const struct pm_block *block, uint32_t offset, uint32_t value) {
  (void)pm_device_write(block->device, offset, value);
}

/// Sets the device up from any state, with no request outstanding.
pm_error_t pm_block_set_up(struct pm_block *block);
/// Pins the shared memory for the longest time allowed, and stores its addresses.
pm_error_t pm_block_pin(struct pm_block *block, uint64_t addresses[3]);

#endif
