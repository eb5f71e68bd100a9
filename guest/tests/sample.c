// pm_sample: what the leaves of pages say (R37).
#include "test.h"

static uint8_t bits[PM_FRAMES_MAXIMUM];

// Whether every page from `from` up to `to` has been seen with all of the bits, at some time: the server may drop a page.
static int seen(char *region, uint32_t from, uint32_t to, uint8_t wanted, int writes) {
  for (uint32_t page = from; page < to; page++) {
    int found = 0;
    for (int round = 0; round < 1000 && !found; round++) {
      volatile char *byte = region + (uint64_t)page * PM_PAGE_SIZE;
      if (writes) *byte = 1;
      (void)*byte;
      CHECK_OK(pm_sample((const void *)(region + (uint64_t)page * PM_PAGE_SIZE), 1, 0, bits));
      found = (bits[0] & wanted) == wanted;
    }
    if (!found) return 0;
  }
  return 1;
}

PM_TEST(present, 0, 1, "R37: a page has its bits after an access, and none before or after it is unmapped") {
  map_fresh(REGION, 64);
  CHECK_OK(pm_sample(REGION, 64, 0, bits));
  for (int page = 0; page < 64; page++) CHECK_EQ(bits[page], 0);
  CHECK(seen(REGION, 0, 64, PM_PAGE_PRESENT | PM_PAGE_ACCESSED | PM_PAGE_DIRTY, 1));
  CHECK_OK(pm_unmap(REGION, 64));
  CHECK_OK(pm_sample(REGION, 64, 0, bits));
  for (int page = 0; page < 64; page++) CHECK_EQ(bits[page], 0);
}

PM_TEST(read_only, 0, 1, "R37: a page that cannot be written is not dirty") {
  pm_container_t container = map_fresh(REGION, 4);
  fill_pages(REGION, 4, 1);
  CHECK_OK(pm_container_map(container, 0, 4, REGION_2, PM_MAP_READ));
  CHECK(seen(REGION_2, 0, 4, PM_PAGE_PRESENT | PM_PAGE_ACCESSED, 0));
  CHECK_OK(pm_sample(REGION_2, 4, 0, bits));
  for (int page = 0; page < 4; page++) CHECK_EQ(bits[page] & PM_PAGE_DIRTY, 0);
}

PM_TEST(many, 0, 1, "R37: as many pages as a call may name, most of them without a mapping") {
  map_fresh(REGION + 30000ull * PM_PAGE_SIZE, 1);
  REGION[30000ull * PM_PAGE_SIZE] = 1;
  CHECK_OK(pm_sample(REGION, PM_FRAMES_MAXIMUM, 0, bits));
  for (uint32_t page = 0; page < PM_FRAMES_MAXIMUM; page++)
    if (page != 30000) CHECK_EQ(bits[page], 0);
  CHECK(seen(REGION, 30000, 30001, PM_PAGE_PRESENT, 1));
}

PM_TEST(errors, 0, 1, "R37: addresses, counts and flags that are rejected, and results that cannot be stored") {
  map_fresh(REGION, 2);
  bits[0] = 0x5a;
  CHECK_ERROR(pm_sample(REGION + 1, 1, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample((void *)0, 1, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample((void *)PM_USER_END, 1, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample((void *)(PM_USER_END - PM_PAGE_SIZE), 2, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample((void *)0xffffffff80000000, 1, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample(REGION, 0, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample(REGION, PM_FRAMES_MAXIMUM + 1, 0, bits), PM_EINVAL);
  CHECK_ERROR(pm_sample(REGION, UINT32_MAX, 0, bits), PM_EINVAL);
  for (int bit = 0; bit < 32; bit++) CHECK_ERROR(pm_sample(REGION, 1, 1u << bit, bits), PM_EINVAL);
  CHECK_EQ(bits[0], 0x5a);
  CHECK_ERROR(pm_sample(REGION, 1, 0, (uint8_t *)0), PM_EFAULT);
  CHECK_ERROR(pm_sample(REGION, 1, 0, (uint8_t *)0xffffffff80000000), PM_EFAULT);
  CHECK_ERROR(pm_sample(REGION, 2, 0, (uint8_t *)(REGION + 2 * PM_PAGE_SIZE - 1)), PM_EFAULT);
}
