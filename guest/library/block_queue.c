// Requests to a virtio block device: offered in its queue, and taken back when they are done or the device is broken.
#include "block_device.h"

// Half of a pin's time.
#define PIN_AGAIN_US (PM_LOCK_MAXIMUM_US / 2)
// About as long as a wake-up takes.
#define LOOK_US 100

static void fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static uint16_t load(uint16_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void store(uint16_t *at, uint16_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

/// Renews the queue's pins while it is in use. If they had ended, the frames may have moved.
static pm_error_t keep_pinned(struct pm_block *block) {
  uint64_t age = pm_clock_us() - block->pinned_us;
  if (age < PIN_AGAIN_US) return PM_OK;
  uint64_t addresses[3];
  pm_error_t error = pm_block_pin(block, addresses);
  if (error) return error;
  if (memcmp(addresses, block->physical, sizeof addresses)) {
    if (block->free_count == SIZE) return pm_block_set_up(block);
    block->broken = true;
    return PM_EIO;
  }
  // The device may have gone idle without notice while it could not read the queue.
  if (age >= PM_LOCK_MAXIMUM_US) set(block, NOTIFY, 0);
  return PM_OK;
}

static struct descriptor *add(struct pm_block *block, uint16_t *index, uint64_t address, uint32_t length,
                              uint16_t flags) {
  *index = block->first_free;
  block->first_free = block->next[*index];
  block->free_count--;
  struct descriptor *added = &block->memory->descriptors[*index];
  *added = (struct descriptor){address, length, flags, 0};
  return added;
}

/// The length of the segment that begins at frame `i`: adjacent frames make one.
static uint32_t piece(const struct pm_block *block, const uint64_t *frames, uint32_t i, uint32_t bytes) {
  uint32_t length = PM_PAGE_SIZE;
  while (length < bytes && length + PM_PAGE_SIZE <= block->most_segment && frames[i] + length == frames[i + length / PM_PAGE_SIZE])
    length += PM_PAGE_SIZE;
  return length < bytes ? length : bytes;
}

pm_error_t pm_block_submit(struct pm_block *block, enum pm_block_operation operation, uint64_t sector,
                           const uint64_t *frames, uint32_t sectors, uint64_t tag) {
  uint32_t left = sectors * PM_BLOCK_SECTOR, most = (sectors + 7) / 8 + 2;
  if (sectors > SIZE * 8 || most > SIZE) return PM_EINVAL;
  if (block->broken) return PM_EIO;
  if (most > block->free_count) return PM_EAGAIN;
  pm_error_t error = keep_pinned(block);
  if (error) return error;
  uint16_t head, index, count = 2;
  struct pm_block_memory *memory = block->memory;
  struct descriptor *last = add(block, &head, 0, sizeof(struct header), 0);
  last->address = physical(block, &memory->headers[head]);
  memory->headers[head] = (struct header){.operation = operation, .sector = sector};
  uint16_t flags = operation == PM_BLOCK_READ ? WRITABLE : 0;
  for (uint32_t i = 0; left > 0; count++) {
    uint32_t length = piece(block, frames, i, left);
    struct descriptor *added = add(block, &index, frames[i], length, flags);
    last->flags |= NEXT;
    last->next = index;
    last = added;
    i += length / PM_PAGE_SIZE;
    left -= length;
  }
  memory->statuses[head] = 0xff;
  add(block, &index, physical(block, &memory->statuses[head]), 1, WRITABLE);
  last->flags |= NEXT;
  last->next = index;
  block->lengths[head] = count;
  block->tags[head] = tag;

  memory->available.ring[block->available % SIZE] = head;
  store(&memory->available.index, ++block->available);
  // The device stores where it wants a notification, then reads the index.
  fence();
  if ((uint16_t)(block->available - load(&memory->used.available_event) - 1) < 1) set(block, NOTIFY, 0);
  return PM_OK;
}

static void take_back(struct pm_block *block, uint16_t head, pm_error_t error, struct pm_block_result *result) {
  *result = (struct pm_block_result){block->tags[head], error};
  uint16_t last = head, count = block->lengths[head];
  for (uint16_t i = 1; i < count; i++) {
    uint16_t next = block->memory->descriptors[last].next;
    block->next[last] = next;
    last = next;
  }
  block->next[last] = block->first_free;
  block->first_free = head;
  block->free_count += count;
  block->lengths[head] = 0;
}

static bool take_used(struct pm_block *block, struct pm_block_result *result) {
  struct pm_block_memory *memory = block->memory;
  if (load(&memory->used.index) == block->used) return false;
  uint16_t head = (uint16_t)memory->used.ring[block->used++ % SIZE].head;
  uint8_t status = memory->statuses[head];
  take_back(block, head, status == 0 ? PM_OK : status == 2 ? PM_EINVAL : PM_EIO, result);
  return true;
}

/// After the device broke: returns the requests as failed, one a call, and then sets the device up again.
static pm_error_t take_lost(struct pm_block *block, struct pm_block_result *result) {
  uint16_t head = 0;
  while (head < SIZE && !block->lengths[head]) head++;
  take_back(block, head, PM_EIO, result);
  return block->free_count == SIZE ? pm_block_set_up(block) : PM_OK;
}

pm_error_t pm_block_complete(struct pm_block *block, struct pm_block_result *result, uint64_t timeout_us) {
  if (block->free_count == SIZE) return PM_ENOENT;
  uint64_t start = pm_clock_us();
  while (true) {
    if (block->broken) return take_lost(block, result);
    uint64_t looked = pm_clock_us(), now = looked;
    do {
      for (int i = 0; i < 100; i++)
        if (take_used(block, result)) return PM_OK;
      now = pm_clock_us();
    } while (now - looked < LOOK_US && now - start < timeout_us);
    if (now - start >= timeout_us) return PM_ETIMEDOUT;
    // The error does not matter: the queue shows what is done, and a queue that has moved is broken.
    (void)keep_pinned(block);
    store(&block->memory->available.used_event, block->used);
    fence();
    if (take_used(block, result)) return PM_OK;
    uint64_t left = timeout_us - (now - start);
    pm_error_t error = pm_interrupt_wait(left < PIN_AGAIN_US ? left : PIN_AGAIN_US);
    if (error && error != PM_ETIMEDOUT) return error;
    if (take_used(block, result)) return PM_OK;
    if (get(block, STATUS) & NEEDS_RESET) block->broken = true;
  }
}
