// A driver for virtio block devices: a split virtqueue of 256 descriptors, with an event index on both sides, so that while
// both sides are at work there is neither a notification nor an interrupt. Source: virtio 1.2, 2.7, 4.2 and 5.2.
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
#define MEMORY_START 0x7ffe00000000ull
// Half of what a pin lasts.
#define PIN_AGAIN_US (PM_LOCK_MAXIMUM_US / 2)
// About as long as it takes to be woken.
#define LOOK_US 100

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags, next;
};

// Three frames, wherever they are.
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

static void fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static uint16_t load(uint16_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void store(uint16_t *at, uint16_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

static uint64_t physical(const struct pm_block *block, const void *at) {
  uint64_t offset = (uint64_t)at - (uint64_t)block->memory;
  return block->physical[offset / PM_PAGE_SIZE] + offset % PM_PAGE_SIZE;
}

static uint32_t get(const struct pm_block *block, uint32_t offset) {
  uint32_t value = 0;
  (void)pm_device_read(block->device, offset, &value);
  return value;
}

static void set(const struct pm_block *block, uint32_t offset, uint32_t value) {
  (void)pm_device_write(block->device, offset, value);
}

static void set_place(const struct pm_block *block, uint32_t offset, const void *at) {
  set(block, offset, (uint32_t)physical(block, at));
  set(block, offset + 4, (uint32_t)(physical(block, at) >> 32));
}

static pm_error_t pin(struct pm_block *block, uint64_t addresses[3]) {
  block->pinned_us = pm_clock_us();
  return pm_container_pin(block->container, 0, 3, PM_LOCK_MAXIMUM_US, addresses);
}

/// Makes the device ready, from any state of it, with nothing under way.
static pm_error_t set_up(struct pm_block *block) {
  set(block, STATUS, 0);
  pm_error_t error = pin(block, block->physical);
  if (error) return error;
  memset(block->memory, 0, sizeof *block->memory);
  block->available = block->used = block->first_free = 0;
  block->free_count = SIZE;
  block->broken = false;
  for (uint16_t i = 0; i < SIZE; i++) block->next[i] = i + 1;
  memset(block->lengths, 0, sizeof block->lengths);
  // No interrupt before one is waited for.
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
  if (!error) error = set_up(block);
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

// ---- requests -------------------------------------------------------------------

/// The queue's pins last for as long as it is used. Where they had ended, the frames may have moved.
static pm_error_t keep_pinned(struct pm_block *block) {
  uint64_t age = pm_clock_us() - block->pinned_us;
  if (age < PIN_AGAIN_US) return PM_OK;
  uint64_t addresses[3];
  pm_error_t error = pin(block, addresses);
  if (error) return error;
  if (memcmp(addresses, block->physical, sizeof addresses)) {
    if (block->free_count == SIZE) return set_up(block);
    block->broken = true;
    return PM_EIO;
  }
  // The device may have gone to rest without a word while it could not look at the queue.
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

/// The length of the piece that begins at frame `i`: frames that lie one behind the other are one.
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
  // The device says where it wants to be notified, then looks at the index.
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

/// After a device that broke: one request after the other comes back as failed, and then it begins anew.
static pm_error_t take_lost(struct pm_block *block, struct pm_block_result *result) {
  uint16_t head = 0;
  while (head < SIZE && !block->lengths[head]) head++;
  take_back(block, head, PM_EIO, result);
  return block->free_count == SIZE ? set_up(block) : PM_OK;
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
    // An error is of no interest here: what is done is to be seen in the queue, and a queue that has moved is broken.
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
