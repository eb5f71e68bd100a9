// Accesses that may fault without ending the task.
#include "../test.h"

struct pm_fault probed;
static volatile bool has_faulted;

/// Maps a substitute page, so that the access can complete.
static int handle(const struct pm_fault *fault) {
  static pm_container_t scratch;
  uint32_t one = 1;
  if (!scratch && (pm_container_create(&scratch) || pm_container_allocate(scratch, 0, &one, 0))) return 1;
  if (has_faulted) return 1;
  probed = *fault;
  has_faulted = true;
  void *page = (void *)(fault->address & -(uint64_t)PM_PAGE_SIZE);
  return pm_container_map(scratch, 0, 1, page, LAZY_READ_WRITE);
}

static void begin(void) {
  has_faulted = false;
  CHECK_OK(pm_on_fault(handle));
}

static bool end(const void *address) {
  CHECK_OK(pm_on_fault(NULL));
  if (!has_faulted) return false;
  CHECK_EQ(probed.address, (uint64_t)address);
  CHECK_OK(pm_unmap((void *)((uint64_t)address & -(uint64_t)PM_PAGE_SIZE), 1));
  return true;
}

bool read_faults(const void *address) {
  begin();
  (void)*(const volatile char *)address;
  return end(address);
}

bool write_faults(void *address) {
  begin();
  __asm__ volatile("lock orb $0, %0" : "+m"(*(volatile char *)address)::"memory", "cc");
  return end(address);
}
