// A driver for virtio block devices: claiming, negotiating and releasing one. Its queue has 256 descriptors, with an
// event index on both sides, so that while both sides are busy there are neither notifications nor interrupts.
#include "block_device.h"

#define MEMORY_START 0x7ffe00000000ull

static void set_place(const struct pm_block *block, uint32_t offset, const void *at) {
  set(block, offset, (uint32_t)physical(block, at));
  set(block, offset + 4, (uint32_t)(physical(block, at) >> 32));
}

pm_error_t pm_block_pin(struct pm_block *block, uint64_t addresses[3]) {
  block->pinned_us = pm_clock_us();
  return pm_container_pin(block->container, 0, 3, PM_LOCK_MAXIMUM_US, addresses);
}

pm_error_t pm_block_set_up(struct pm_block *block) {
  set(block, STATUS, 0);
  pm_error_t error = pm_block_pin(block, block->physical);
  if (error) return error;
  memset(block->memory, 0, sizeof *block->memory);
  block->available = block->used = block->first_free = 0;
  block->free_count = SIZE;
  block->broken = false;
  for (uint16_t i = 0; i < SIZE; i++) block->next[i] = i + 1;
  memset(block->lengths, 0, sizeof block->lengths);
  // No interrupt until the driver waits for one.
  block->memory->available.used_event = (uint16_t)-1;

  set(block, STATUS, ACKNOWLEDGE | DRIVER);
  set(block, FEATURES_SELECTOR, 0);
  uint32_t offered = get(block, FEATURES);
  set(block, ACCEPTED_SELECTOR, 0);
  set(block, ACCEPTED, offered & WANTED);
  set(block, ACCEPTED_SELECTOR, 1);
  set(block, ACCEPTED, WANTED_HIGH);
  set(block, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
  set(block, QUEUE_SELECTOR, 0);
  set(block, QUEUE_SIZE, SIZE);
  set_place(block, QUEUE_DESCRIPTORS, block->memory->descriptors);
  set_place(block, QUEUE_AVAILABLE, &block->memory->available);
  set_place(block, QUEUE_USED, &block->memory->used);
  set(block, QUEUE_READY, 1);
  set(block, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  if ((get(block, STATUS) & (FEATURES_OK | NEEDS_RESET)) != FEATURES_OK || !get(block, QUEUE_READY)) return PM_EINVAL;
  block->read_only = offered & READ_ONLY;
  block->sectors = get(block, SECTORS) | (uint64_t)get(block, SECTORS + 4) << 32;
  block->most_segment = get(block, MOST_SEGMENT);
  return PM_OK;
}

pm_error_t pm_block_open(struct pm_block *block, uint32_t device) {
  *block = (struct pm_block){.device = device};
  pm_error_t error = pm_device_claim(device);
  if (error) return error;
  struct pm_device_info info;
  uint32_t count = 3;
  block->memory = (struct pm_block_memory *)(MEMORY_START + (uint64_t)device * 16 * PM_PAGE_SIZE);
  error = pm_device_info(device, &info);
  if (!error) {
    block->address_bits = info.address_bits;
    error = info.kind == PM_DEVICE_DISK ? pm_container_create(&block->container) : PM_EINVAL;
  }
  if (!error) error = pm_block_allocate(block, block->container, 0, &count, 0);
  if (!error) error = pm_container_map(block->container, 0, 3, block->memory, PM_MAP_READ | PM_MAP_WRITE);
  if (!error) error = pm_block_set_up(block);
  if (error) pm_block_close(block);
  return error;
}

pm_error_t pm_block_allocate(const struct pm_block *block, pm_container_t container, pm_frame_t start, uint32_t *count,
                             uint32_t flags) {
  if (block->address_bits >= 64) return pm_container_allocate(container, start, count, flags);
  struct pm_placement placement = {.below = 1ull << block->address_bits};
  return pm_container_allocate_placed(container, start, count, flags, &placement);
}

void pm_block_close(struct pm_block *block) {
  (void)pm_device_release(block->device);
  if (!block->container) return;
  (void)pm_container_unpin(block->container, 0, 3);
  (void)pm_unmap(block->memory, 3);
  (void)pm_container_destroy(block->container);
  block->container = PM_CAP_NONE;
}
