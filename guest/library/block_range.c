// Transfers of whole ranges of a container between a disk and its frames.
#include <physmem/block.h>

// Frames pinned at a time.
#define BATCH 1024

static void take_one(struct pm_block *block, pm_error_t *failure) {
  struct pm_block_result result;
  pm_error_t error = pm_block_complete(block, &result, PM_FOREVER);
  if (!error) error = result.error;
  if (error && !*failure) *failure = error;
}

/// At most BATCH frames.
static pm_error_t move(struct pm_block *block, enum pm_block_operation operation, uint64_t sector, uint32_t sectors,
                       const uint64_t *physical) {
  pm_error_t failure = PM_OK;
  uint32_t under_way = 0;
  for (uint32_t done = 0; done < sectors && !failure;) {
    uint32_t most = PM_BLOCK_REQUEST_FRAMES * 8, count = sectors - done < most ? sectors - done : most;
    pm_error_t error = pm_block_submit(block, operation, sector + done, physical + done / 8, count, 0);
    if (error == PM_EAGAIN) {
      take_one(block, &failure);
      under_way--;
      continue;
    }
    if (error) failure = error;
    else under_way++;
    done += count;
  }
  while (under_way-- > 0) take_one(block, &failure);
  return failure;
}

static pm_error_t move_range(struct pm_block *block, enum pm_block_operation operation, uint64_t sector, uint32_t sectors,
                             pm_container_t container, pm_frame_t start) {
  static uint64_t physical[BATCH];
  pm_error_t error = PM_OK;
  for (uint32_t done = 0; done < sectors && !error;) {
    uint32_t count = sectors - done < BATCH * 8 ? sectors - done : BATCH * 8, frames = (count + 7) / 8;
    pm_frame_t first = start + done / 8;
    error = pm_container_pin(container, first, frames, PM_LOCK_MAXIMUM_US, physical);
    if (error) return error;
    error = move(block, operation, sector + done, count, physical);
    (void)pm_container_unpin(container, first, frames);
    done += count;
  }
  return error;
}

pm_error_t pm_block_read(struct pm_block *block, uint64_t sector, uint32_t sectors, pm_container_t container,
                         pm_frame_t start) {
  return move_range(block, PM_BLOCK_READ, sector, sectors, container, start);
}

pm_error_t pm_block_write(struct pm_block *block, uint64_t sector, uint32_t sectors, pm_container_t container,
                          pm_frame_t start) {
  return move_range(block, PM_BLOCK_WRITE, sector, sectors, container, start);
}

pm_error_t pm_block_flush(struct pm_block *block) {
  pm_error_t failure = pm_block_submit(block, PM_BLOCK_FLUSH, 0, NULL, 0, 0);
  if (!failure) take_one(block, &failure);
  return failure;
}
