// What the task has mapped, for a server that keeps no mappings: a page it has unmapped is mapped again from here, before
// the task's own fault handler is asked. With a server that keeps them nothing is remembered.
#include <physmem.h>

#include "library.h"

#define CAPACITY 4096

struct mapped {
  uint64_t start, end;
  pm_container_t container;
  pm_frame_t frame;
  uint32_t flags;
};

uint32_t pm_start_flags __attribute__((section(".data"))) = 0;

static struct mapped table[CAPACITY];
static uint32_t used;
static int (*task_handler)(const struct pm_fault *fault);

// The table is used by the fault handler, and by a pm_return_pages handler that may interrupt it or whoever changes it.
static void begin(void) {
  if (pm_hold_upcalls) pm_hold_upcalls();
}

static void end(void) {
  if (pm_let_upcalls) pm_let_upcalls();
}

static int remembers(void) { return pm_start_flags & PM_START_NO_MAPPING_CACHE; }

static void remember(struct mapped mapped) {
  // Beyond that a page that goes is the task's own affair.
  if (used < CAPACITY) table[used++] = mapped;
}

static void forget(uint64_t start, uint64_t end) {
  for (uint32_t i = used; i-- > 0;) {
    struct mapped mapped = table[i];
    if (mapped.end <= start || mapped.start >= end) continue;
    table[i] = table[--used];
    if (mapped.start < start) {
      struct mapped before = mapped;
      before.end = start;
      remember(before);
    }
    if (mapped.end > end) {
      mapped.frame += (pm_frame_t)((end - mapped.start) / PM_PAGE_SIZE);
      mapped.start = end;
      remember(mapped);
    }
  }
}

/// Maps the page again that the server has unmapped.
static int map_again(const struct pm_fault *fault) {
  if (fault->present) return 1;
  for (uint32_t i = 0; i < used; i++) {
    if (fault->address < table[i].start || fault->address >= table[i].end) continue;
    uint64_t page = fault->address & ~(uint64_t)(PM_PAGE_SIZE - 1);
    pm_frame_t frame = table[i].frame + (pm_frame_t)((page - table[i].start) / PM_PAGE_SIZE);
    // Lazily, with all else as it was: the access that follows asks for the right it needs.
    return pm_map_call(table[i].container, frame, 1, (void *)page, table[i].flags) != PM_OK;
  }
  return 1;
}

static int handle_fault(const struct pm_fault *fault) {
  begin();
  int failed = map_again(fault);
  end();
  if (!failed) return 0;
  // A pointer of a call: the server answers for it.
  int is_call = *(const uint8_t *)fault->rip == 0xe6 && fault->access != PM_ACCESS_EXECUTE;
  return is_call || !task_handler ? 1 : task_handler(fault);
}

pm_error_t pm_container_map(pm_container_t container, pm_frame_t start, uint32_t count, void *address, uint32_t flags) {
  if (!remembers()) return pm_map_call(container, start, count, address, flags);
  begin();
  pm_error_t error = pm_map_call(container, start, count, address, flags);
  if (!error) {
    uint64_t from = (uint64_t)address, to = from + (uint64_t)count * PM_PAGE_SIZE;
    forget(from, to);
    if (!used && !task_handler) pm_set_fault_handler(handle_fault);
    remember((struct mapped){from, to, container, start, flags});
  }
  end();
  return error;
}

pm_error_t pm_unmap(void *address, uint32_t count) {
  if (!remembers()) return pm_unmap_call(address, count);
  begin();
  pm_error_t error = pm_unmap_call(address, count);
  if (!error) forget((uint64_t)address, (uint64_t)address + (uint64_t)count * PM_PAGE_SIZE);
  end();
  return error;
}

pm_error_t pm_on_fault(int (*handler)(const struct pm_fault *fault)) {
  if (!remembers()) return pm_set_fault_handler(handler);
  task_handler = handler;
  return pm_set_fault_handler(handle_fault);
}
