// A record of the task's mappings, for a server that keeps none: a page that the server has unmapped is mapped again
// from here, before the task's own fault handler is called. With a server that keeps mappings, nothing is recorded.
#include <physmem.h>

#include "library.h"
#include "state.h"

#define CAPACITY 4096
// How long an access to a locked container sleeps between retries.
#define LOCKED_US 100

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

// The fault handler uses the table, and a pm_return_pages handler may interrupt it or code that changes the table.
static void begin(void) {
  if (pm_hold_upcalls) pm_hold_upcalls();
}

static void end(void) {
  if (pm_let_upcalls) pm_let_upcalls();
}

static int remembers(void) { return pm_start_flags & PM_START_NO_MAPPING_CACHE; }

static void remember(struct mapped mapped) {
  struct mapped *last = used ? &table[used - 1] : NULL;
  if (last && last->end == mapped.start && last->container == mapped.container && last->flags == mapped.flags &&
      last->frame + (last->end - last->start) / PM_PAGE_SIZE == mapped.frame) {
    last->end = mapped.end;
    return;
  }
  // The table is full: for further mappings a lost page is a fault to the task.
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

/// Whether the fault is at a call's `out` instruction, so is about a pointer argument.
static int is_of_call(const struct pm_fault *fault) {
  return fault->access != PM_ACCESS_EXECUTE && *(const uint8_t *)fault->rip == 0xe6;
}

/// Maps a page again that the server has unmapped.
static pm_error_t map_page(const struct mapped *mapped, uint64_t page) {
  // PM_MAP_FORCE_WRITE has copied shared contents already, at the first mapping: from now on copy on write only.
  uint32_t flags = mapped->flags & PM_MAP_FORCE_WRITE ? mapped->flags | PM_MAP_LAZY : mapped->flags;
  pm_frame_t frame = mapped->frame + (pm_frame_t)((page - mapped->start) / PM_PAGE_SIZE);
  return pm_map_call(mapped->container, frame, 1, (void *)page, flags);
}

/// PM_ENOENT: no mapping to restore; the page is mapped without this right, or never was mapped.
static pm_error_t map_again(const struct pm_fault *fault) {
  if (fault->present) return PM_ENOENT;
  for (uint32_t i = 0; i < used; i++) {
    if (fault->address < table[i].start || fault->address >= table[i].end) continue;
    return map_page(&table[i], fault->address & ~(uint64_t)(PM_PAGE_SIZE - 1));
  }
  return PM_ENOENT;
}

static int handle_fault(const struct pm_fault *fault) {
  pm_error_t error;
  // An access to a locked container waits for the lock's end; a call's pointer does not.
  for (;;) {
    begin();
    error = map_again(fault);
    end();
    if (error != PM_EBUSY || is_of_call(fault)) break;
    pm_sleep(LOCKED_US);
  }
  if (!error) return 0;
  // For a call's pointer the server returns an error; a fault in the task's own handler ends the task.
  if (is_of_call(fault) || !task_handler || pm_calls_task_handler) return 1;
  pm_calls_task_handler = 1;
  int result = task_handler(fault);
  pm_calls_task_handler = 0;
  return result;
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

/// The server keeps this mapping itself; the one it replaces must not come back.
pm_error_t pm_get_policy_buffer(pm_cap_t control, void *address, uint32_t *entries) {
  pm_error_t error = pm_get_policy_buffer_call(control, address, entries);
  if (error || !remembers()) return error;
  begin();
  forget((uint64_t)address, (uint64_t)address + *entries * sizeof(struct pm_policy_entry));
  end();
  return PM_OK;
}

pm_error_t pm_on_fault(int (*handler)(const struct pm_fault *fault)) {
  if (!remembers()) return pm_set_fault_handler(handler);
  task_handler = handler;
  return pm_set_fault_handler(handle_fault);
}
