// The disk: its driver library, and drivers that misbehave (R19, R22, R40).
#include <physmem/block.h>

#include "test.h"

#define FRAME_SECTORS 8

static struct pm_block disk;

static void open_disk(void) { CHECK_OK(pm_block_open(&disk, 0)); }

/// Frames [0, count) of a new container, mapped at REGION, that the device reaches.
static pm_container_t map_buffers(uint32_t count) {
  pm_container_t container;
  CHECK_OK(pm_container_create(&container));
  CHECK_OK(pm_block_allocate(&disk, container, 0, &count, 0));
  CHECK_OK(pm_container_map(container, 0, count, REGION, LAZY_READ_WRITE));
  return container;
}

static void check_sectors(const void *bytes, uint64_t sector, uint32_t sectors) {
  const uint64_t *words = bytes;
  for (uint64_t i = 0; i < sectors * 64ull; i++) CHECK_EQ(words[i], disk_word(sector * 64 + i));
}

PM_TEST_DISK(reads, 0, "1 disk", "R22: sectors are read directly into pinned frames, in requests of any size") {
  open_disk();
  CHECK_EQ(disk.sectors, PM_TEST_SECTORS);
  CHECK(!disk.read_only);
  pm_container_t container = map_buffers(257);
  CHECK_OK(pm_block_read(&disk, 0, PM_TEST_SECTORS, container, 0));
  check_sectors(REGION, 0, PM_TEST_SECTORS);
  CHECK(is_zero(REGION + PM_TEST_SECTORS * 512, 4 * 512));
  CHECK_OK(pm_block_read(&disk, 13, 1, container, 1));
  check_sectors(PAGE(REGION, 1), 13, 1);
  check_sectors(PAGE(REGION, 1) + 512, FRAME_SECTORS + 1, 7);
  // Only the queue is still pinned.
  CHECK_OK(pm_container_destroy(container));
  pm_block_close(&disk);
  CHECK_ERROR(pm_device_release(0), PM_EPERM);
}

PM_TEST_DISK(writes, 0, "1 disk", "R22: sectors are written from pinned frames, and read back") {
  open_disk();
  pm_container_t container = map_buffers(256);
  fill_pages(REGION, 128, 5);
  CHECK_OK(pm_block_write(&disk, 1024, 1024, container, 0));
  CHECK_OK(pm_block_flush(&disk));
  CHECK_OK(pm_block_read(&disk, 1024, 1024, container, 128));
  CHECK(!memcmp(REGION, PAGE(REGION, 128), 128 * PM_PAGE_SIZE));
  CHECK_OK(pm_block_read(&disk, 1016, 8, container, 0));
  check_sectors(REGION, 1016, 8);
}

PM_TEST_DISK(keeps_many_under_way, 0, "1 disk", "single-frame requests keep the queue full, and all complete") {
  open_disk();
  pm_container_t container = map_buffers(128);
  uint64_t physical[128];
  CHECK_OK(pm_container_pin(container, 0, 128, PM_LOCK_MAXIMUM_US, physical));
  uint64_t state = 7, sectors[128], under_way = 0, done = 0;
  bool busy[128] = {false};
  for (uint64_t i = 0; done < 5000;) {
    struct pm_block_result result;
    uint32_t slot = (uint32_t)(i % 128);
    bool is_offered = i < 5000 && !busy[slot];
    if (is_offered) {
      sectors[slot] = next_random(&state) % (PM_TEST_SECTORS - 8);
      pm_error_t error = pm_block_submit(&disk, PM_BLOCK_READ, sectors[slot], physical + slot, 8, slot);
      if (error != PM_EAGAIN) {
        CHECK_OK(error);
        busy[slot] = true;
        under_way++;
        i++;
        continue;
      }
    }
    CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
    CHECK_OK(result.error);
    CHECK(result.tag < 128 && busy[result.tag]);
    check_sectors(PAGE(REGION, result.tag), sectors[result.tag], 1);
    busy[result.tag] = false;
    under_way--;
    done++;
  }
  CHECK_EQ(under_way, 0);
  struct pm_block_result result;
  CHECK_ERROR(pm_block_complete(&disk, &result, 0), PM_ENOENT);
}

PM_TEST_DISK(refuses, 0, "1 disk",
             "R22: frames that are not pinned, or no longer, are not touched, and the request fails") {
  open_disk();
  pm_container_t container = map_buffers(4);
  uint64_t physical[4];
  struct pm_block_result result;
  fill_pages(REGION, 4, 1);
  CHECK_OK(pm_container_pin(container, 0, 4, PM_LOCK_MAXIMUM_US, physical));
  CHECK_OK(pm_container_unpin(container, 2, 1));
  // All or nothing: the frames before the one at fault are unchanged.
  CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, 0, physical, 32, 1));
  CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
  CHECK_ERROR(result.error, PM_EIO);
  check_pages(REGION, 4, 1);
  CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, 0, physical, 16, 2));
  CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
  CHECK_OK(result.error);
  check_sectors(REGION, 0, 16);
  // The pin times out.
  CHECK_OK(pm_container_pin(container, 0, 1, 1000, physical));
  pm_sleep(2000);
  CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, 8, physical, 8, 3));
  CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
  CHECK_ERROR(result.error, PM_EIO);
  check_sectors(REGION, 0, 8);
  // Addresses outside memory.
  uint64_t nowhere[] = {1ull << 40, UINT64_MAX - PM_PAGE_SIZE + 1, 0};
  for (int i = 0; i < 3; i++) {
    CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, 0, nowhere + i, 8, 4));
    CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
    CHECK_ERROR(result.error, PM_EIO);
  }
  // Beyond the disk's end, and an unknown operation.
  CHECK_OK(pm_container_pin(container, 0, 1, PM_LOCK_MAXIMUM_US, physical));
  CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, PM_TEST_SECTORS - 7, physical, 8, 5));
  CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
  CHECK_ERROR(result.error, PM_EIO);
  CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, UINT64_MAX, physical, 8, 5));
  CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
  CHECK_ERROR(result.error, PM_EIO);
  CHECK_OK(pm_block_submit(&disk, (enum pm_block_operation)77, 0, physical, 8, 6));
  CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
  CHECK_ERROR(result.error, PM_EINVAL);
  check_sectors(REGION, 0, 8);
}

PM_TEST_DISK(another_tasks_pin, 0, "2 disk",
             "R22: a driver cannot name frames that another task has pinned, for reading or writing") {
  unsigned me = join(2);
  if (me != 0) {
    pm_container_t container = map_fresh(REGION, 1);
    fill_pages(REGION, 1, 3);
    uint64_t physical;
    CHECK_OK(pm_container_pin(container, 0, 1, PM_LOCK_MAXIMUM_US, &physical));
    ask(physical, PM_CAP_NONE);
    check_pages(REGION, 1, 3);
    return;
  }
  open_disk();
  struct pm_message question = next_question();
  struct pm_block_result result;
  for (int i = 0; i < 2; i++) {
    CHECK_OK(pm_block_submit(&disk, i ? PM_BLOCK_WRITE : PM_BLOCK_READ, 0, question.words, 8, 1));
    CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
    CHECK_ERROR(result.error, PM_EIO);
  }
  answer(&question, 0, PM_CAP_NONE);
}

PM_TEST_DISK(read_only, 0, "1 disk,readonly", "a read-only disk reports it, and fails writes") {
  open_disk();
  CHECK(disk.read_only);
  pm_container_t container = map_buffers(1);
  CHECK_ERROR(pm_block_write(&disk, 0, 8, container, 0), PM_EIO);
  CHECK_OK(pm_block_read(&disk, 0, 8, container, 0));
  check_sectors(REGION, 0, 8);
}

/// Twelve requests of a frame each, all outstanding together; those with an odd tag use bad sectors.
static void mix(enum pm_block_operation operation, const uint64_t *physical, uint64_t first) {
  struct pm_block_result result;
  for (uint64_t i = 0; i < 12; i++) {
    uint64_t sector = first + i * FRAME_SECTORS + (i % 2 ? PM_TEST_BAD : PM_TEST_GOOD);
    CHECK_OK(pm_block_submit(&disk, operation, sector, physical + i, FRAME_SECTORS, i));
  }
  for (unsigned seen = 0; seen != 0xfff; seen |= 1u << result.tag) {
    CHECK_OK(pm_block_complete(&disk, &result, LONG_US));
    CHECK(result.tag < 12 && !(seen >> result.tag & 1));
    CHECK_ERROR(result.error, result.tag % 2 ? PM_EIO : PM_OK);
  }
}

PM_TEST_DISK(bad_sectors, 0, "1 disk,bad-sectors",
             "requests that the host fails to read, write or flush fail, and no others do") {
  open_disk();
  pm_container_t container = map_buffers(64);
  uint64_t physical[12];
  for (uint64_t first = 0; first < 400; first += 50) {
    CHECK_OK(pm_container_pin(container, 0, 12, PM_LOCK_MAXIMUM_US, physical));
    fill_pages(REGION, 12, 6);
    mix(PM_BLOCK_READ, physical, first);
    for (uint64_t i = 0; i < 12; i++)
      if (i % 2) check_pages(PAGE(REGION, i), 1, 6);
      else check_sectors(PAGE(REGION, i), PM_TEST_GOOD + first + i * FRAME_SECTORS, FRAME_SECTORS);
    // Writes what is there already; data for the bad sectors must not be written anywhere.
    mix(PM_BLOCK_WRITE, physical, first);
    CHECK_OK(pm_container_unpin(container, 0, 12));
    CHECK_ERROR(pm_block_flush(&disk), PM_EIO);
  }
  // Across the boundary, at either end.
  CHECK_ERROR(pm_block_read(&disk, PM_TEST_BAD - 8, 16, container, 0), PM_EIO);
  CHECK_ERROR(pm_block_read(&disk, PM_TEST_GOOD - 4, 8, container, 0), PM_EIO);
  fill_pages(REGION, 2, 7);
  CHECK_ERROR(pm_block_write(&disk, PM_TEST_GOOD - 12, 16, container, 0), PM_EIO);
  CHECK_ERROR(pm_block_write(&disk, PM_TEST_BAD - 4, 8, container, 0), PM_EIO);
  // Sectors are written in order: of a failed request only sectors before the bad ones may be written.
  CHECK_OK(pm_block_read(&disk, PM_TEST_GOOD, PM_TEST_BAD - PM_TEST_GOOD - 4, container, 0));
  check_sectors(REGION, PM_TEST_GOOD, PM_TEST_BAD - PM_TEST_GOOD - 4);
  CHECK_OK(pm_block_write(&disk, PM_TEST_GOOD + 8, 16, container, 2));
  CHECK_OK(pm_block_read(&disk, PM_TEST_GOOD + 8, 16, container, 4));
  CHECK(!memcmp(PAGE(REGION, 2), PAGE(REGION, 4), 2 * PM_PAGE_SIZE));
}

PM_TEST_DISK(few_address_bits, 0, "1 disk,address-bits=24",
             "R19: a device with 24 address bits reaches only the lowest zone") {
  open_disk();
  CHECK_EQ(disk.address_bits, 24);
  uint64_t physical[8];
  pm_container_t container = map_buffers(8);
  CHECK_OK(pm_container_pin(container, 0, 8, PM_LOCK_MAXIMUM_US, physical));
  for (int i = 0; i < 8; i++) CHECK(physical[i] < 1u << 24);
  CHECK_OK(pm_block_read(&disk, 8, 64, container, 0));
  check_sectors(REGION, 8, 64);
  // An unplaced frame, here from the top of memory, is out of its reach even if it is pinned.
  pm_container_t high = map_fresh(REGION_2, 1);
  fill_pages(REGION_2, 1, 9);
  CHECK_OK(pm_container_pin(high, 0, 1, PM_LOCK_MAXIMUM_US, physical));
  CHECK(physical[0] >= 1u << 24);
  CHECK_ERROR(pm_block_read(&disk, 0, 8, high, 0), PM_EIO);
  check_pages(REGION_2, 1, 9);
}

PM_TEST_DISK(one_driver, 0, "2 disk", "a device has one driver at a time, and is free when its driver ends") {
  unsigned me = join(2);
  CHECK_ERROR(pm_device_claim(1), PM_ENOENT);
  CHECK_ERROR(pm_device_claim(UINT32_MAX), PM_ENOENT);
  if (me != 0) {
    uint32_t value;
    CHECK_ERROR(pm_device_read(0, 0, &value), PM_EPERM);
    CHECK_OK(pm_device_claim(0));
    CHECK_ERROR(pm_device_claim(0), PM_EEXIST);
    CHECK_OK(pm_device_read(0, 0, &value));
    CHECK_EQ(value, 0x74726976);
    CHECK_ERROR(pm_device_read(0, 2, &value), PM_EINVAL);
    CHECK_ERROR(pm_device_read(0, 512, &value), PM_EINVAL);
    CHECK_ERROR(pm_device_read(0, 0, (uint32_t *)REGION), PM_EFAULT);
    CHECK_OK(pm_device_release(0));
    open_disk();
    ask(0, PM_CAP_NONE);
    // It ends with requests outstanding.
    pm_container_t container = map_buffers(128);
    uint64_t physical[128];
    CHECK_OK(pm_container_pin(container, 0, 128, PM_LOCK_MAXIMUM_US, physical));
    for (int i = 0; i < 4; i++) CHECK_OK(pm_block_submit(&disk, PM_BLOCK_READ, 0, physical + 32 * i, 256, 0));
    return;
  }
  struct pm_message question = next_question();
  CHECK_ERROR(pm_device_claim(0), PM_EBUSY);
  CHECK_ERROR(pm_device_write(0, 0x70, 0), PM_EPERM);
  CHECK_ERROR(pm_device_release(0), PM_EPERM);
  answer(&question, 0, PM_CAP_NONE);
  pm_error_t error;
  while ((error = pm_block_open(&disk, 0)) == PM_EBUSY) pm_sleep(100);
  CHECK_OK(error);
  pm_container_t container = map_buffers(8);
  CHECK_OK(pm_block_read(&disk, 0, 64, container, 0));
  check_sectors(REGION, 0, 64);
}

PM_TEST(no_devices, 0, 1, "without a disk there is no device, and no interrupt") {
  struct pm_device_info info;
  CHECK_ERROR(pm_device_claim(0), PM_ENOENT);
  CHECK_ERROR(pm_device_info(0, &info), PM_ENOENT);
  CHECK_ERROR(pm_interrupt_wait(0), PM_ETIMEDOUT);
  CHECK_ERROR(pm_interrupt_wait(2000), PM_ETIMEDOUT);
}
