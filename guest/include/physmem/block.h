// Driving a disk (R19, R22, R40): a driver for the machine's virtio block devices, which any task can link, and the
// messages of `blockdriver`, a task that drives a disk for others.
//
// A disk is read and written in sectors of 512 bytes, directly from and to frames that the driver has pinned.
// pm_block_submit offers requests, as many as the queue holds, and pm_block_complete takes them back in any order; or
// pm_block_read and pm_block_write move whole ranges of a container, and pin them.
#ifndef PHYSMEM_BLOCK_H
#define PHYSMEM_BLOCK_H

#include <physmem.h>

#define PM_BLOCK_SECTOR 512
#define PM_BLOCK_QUEUE 256           // descriptors of the queue
#define PM_BLOCK_REQUEST_FRAMES 32   // frames in one request of pm_block_read and pm_block_write

enum pm_block_operation { PM_BLOCK_READ = 0, PM_BLOCK_WRITE = 1, PM_BLOCK_FLUSH = 4 };

struct pm_block_result {
  uint64_t tag;      // as submitted
  pm_error_t error;  // PM_OK; PM_EIO: it failed, or the device refused it; PM_EINVAL: unknown operation
};

/// A disk that a task drives; all members but the first three belong to the library.
struct pm_block {
  uint64_t sectors;
  uint32_t address_bits;   // the device reaches physical addresses below 2 to this power
  bool read_only;
  bool broken;             // the device wants a reset: outstanding requests have failed
  uint32_t device;
  uint32_t most_segment;   // maximum bytes in one descriptor
  pm_container_t container;
  struct pm_block_memory *memory;
  uint64_t physical[3];
  uint64_t pinned_us;
  uint16_t free_count, first_free;
  uint16_t available, used;
  uint16_t next[PM_BLOCK_QUEUE];
  uint16_t lengths[PM_BLOCK_QUEUE];  // descriptors of the request that begins there; 0: none
  uint64_t tags[PM_BLOCK_QUEUE];
};

/// Claims a disk and makes it ready. Its queue is in a separate container of three frames, mapped beyond the heap.
/// PM_ENOENT, PM_EBUSY and PM_EEXIST as pm_device_claim; PM_EINVAL: the device is not a disk that this can drive;
/// PM_ENOMEM.
pm_error_t pm_block_open(struct pm_block *block, uint32_t device);
/// Gives the disk up. Outstanding requests are lost.
void pm_block_close(struct pm_block *block);

/// pm_container_allocate, with frames that the device reaches, by pm_container_allocate_placed if it needs to.
pm_error_t pm_block_allocate(const struct pm_block *block, pm_container_t container, pm_frame_t start, uint32_t *count,
                             uint32_t flags);

/// Offers a request for `sectors` sectors from `sector` on, from or to the frames at the addresses `physical`, as
/// pm_container_pin reported them: one for each 8 sectors. They must stay pinned until the request comes back.
/// PM_EAGAIN: the queue is full, complete one first; PM_EIO: the device is broken, complete all first; PM_EINVAL: more
/// frames than the queue has descriptors for.
pm_error_t pm_block_submit(struct pm_block *block, enum pm_block_operation operation, uint64_t sector,
                           const uint64_t *physical, uint32_t sectors, uint64_t tag);
/// Takes back a finished request; polls for a while, then waits for the device's interrupt. PM_ETIMEDOUT;
/// PM_ENOENT: no request is outstanding; PM_EBUSY: the task has an interrupt handler, and no request is finished.
pm_error_t pm_block_complete(struct pm_block *block, struct pm_block_result *result, uint64_t timeout_us);

/// Moves sectors between the disk and the frames of a container from `start` on, owned or through a weak capability,
/// directly, with many requests outstanding. The task must have no other request outstanding. PM_EIO: part of it
/// failed; the rest was done. Errors of pm_container_pin.
pm_error_t pm_block_read(struct pm_block *block, uint64_t sector, uint32_t sectors, pm_container_t container,
                         pm_frame_t start);
pm_error_t pm_block_write(struct pm_block *block, uint64_t sector, uint32_t sectors, pm_container_t container,
                          pm_frame_t start);
/// Returns when all written data is on the medium. PM_EIO.
pm_error_t pm_block_flush(struct pm_block *block);

// ---- the messages of blockdriver ---------------------------------------------------
// A request is words[0], its arguments follow, and caps[0] is a weak capability to the container. words[0] of the
// answer is a pm_error_t.

#define PM_DISK_NAME "disk"

enum pm_disk_request {
  PM_DISK_READ = 1,   // sector, sectors, first frame; caps[0]: the container
  PM_DISK_WRITE = 2,  // the same
  PM_DISK_FLUSH = 3,
  PM_DISK_INFO = 4,   // the answer: sectors, 1 if read-only, and the device's address bits
};

#endif
