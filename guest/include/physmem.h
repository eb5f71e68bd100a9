// The guest interface: everything a task can ask of the physical memory server, and a small C library.
//
// Counts are in frames of PM_PAGE_SIZE bytes, addresses of pages are multiples of it, times are in microseconds.
// A call that returns an error has changed nothing, unless its line says otherwise. Any call answers
// PM_EFAULT for a pointer that the task itself could not use, and PM_EINVAL for a handle it does not hold.
#ifndef PHYSMEM_H
#define PHYSMEM_H

#include <physmem/abi.h>

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- process ---------------------------------------------------------------

/// Writes out what printf holds back and ends the task; the low 8 bits of `status` are its exit status.
__attribute__((noreturn)) void pm_exit(int status);
/// The number of main's arguments, and one of them or null: for programs whose main does not get them.
int pm_argument_count(void);
const char *pm_argument(int index);
/// Sends `length` bytes to the task's console at once, before what printf still holds back. PM_EFAULT.
pm_error_t pm_write(const void *text, size_t length);
/// The host's monotonic clock in microseconds; never goes back. Seldom leaves the task: it reads the TSC.
uint64_t pm_clock_us(void);
/// Returns after `us` microseconds or a little later.
void pm_sleep(uint64_t us);
/// The task's id and its numbers of frames (R2). PM_EFAULT.
pm_error_t pm_task_info(struct pm_task_info *info);
/// The name of an error, such as "PM_EINVAL"; "unknown error" for any other number.
const char *pm_strerror(pm_error_t error);

// ---- containers (R15-R18) ----------------------------------------------------

/// Makes an empty container owned by the task (R15). PM_ENOMEM, PM_EFAULT.
pm_error_t pm_container_create(pm_container_t *container);
/// Ends a container, its frames and their mappings; the handle is void. PM_EPERM for PM_CAP_CONTAINER, PM_EINVAL.
pm_error_t pm_container_destroy(pm_container_t container);
/// Makes the ids [start, start + *count) name fresh frames that read as zero; takes no memory yet (R16, R18).
/// Flags: PM_ALLOC_PARTIAL, _SQUASH, _EXTRA. PM_EEXIST: an id is in use, PM_ENOMEM: with either *count becomes how many
/// were made, 0 without PM_ALLOC_PARTIAL. PM_EINVAL: count 0, ids beyond 2^32, unknown flags; PM_EFAULT.
pm_error_t pm_container_allocate(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags);
/// Frees the frames [start, start + *count); what is mapped of them shows nothing until the id names a frame again
/// (R18). Flags: PM_DEALLOC_PARTIAL, _SQUASH.
/// *count becomes how many were freed, 0 with an error but for PM_DEALLOC_PARTIAL. PM_ENOENT: an id is not in use;
/// PM_EINVAL as for allocate; PM_EFAULT.
pm_error_t pm_container_deallocate(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags);

// ---- mapping (R25-R27) -------------------------------------------------------

/// Maps the frames [start, start + count) at `address`, in place of what was mapped there (R25, R26).
/// Flags: PM_MAP_READ, _WRITE, _EXECUTE, _FORCE_WRITE, at least one; PM_MAP_LAZY: fill in on first access.
/// The server may drop a mapping at any time and restores it at the next access.
/// PM_ENOENT: an id is not in use; PM_ENOMEM; PM_EINVAL: count 0, no right, unknown flags, not page aligned or
/// outside [PM_USER_START, PM_USER_END).
pm_error_t pm_container_map(pm_container_t container, pm_frame_t start, uint32_t count, void *address, uint32_t flags);
/// Drops the mappings of `count` pages from `address` on; pages without one are no error. PM_EINVAL as for map.
pm_error_t pm_unmap(void *address, uint32_t count);
/// What is mapped at the page of `address` (R27). PM_ENOENT: nothing, as always outside the task's range; PM_EFAULT.
pm_error_t pm_mapping(const void *address, struct pm_mapping *mapping);

// ---- self-paging (R37) -------------------------------------------------------

/// Makes `handler` the task's fault handler, null for none: it runs on a stack of its own on each fault that the
/// server does not serve, and returns 0 to retry the access, anything else to let the task die of the fault. A fault
/// in the handler that the server does not serve is the task's end. The handler must not leave by longjmp.
pm_error_t pm_on_fault(int (*handler)(const struct pm_fault *fault));

// ---- what an image says of itself --------------------------------------------

/// The line that `physmem list` shows for the program; a string literal of plain text, no quotes or backslashes.
#define PM_PROGRAM(summary) \
  __asm__(".pushsection .physmem,\"\",@progbits\n\t.ascii \"summary: " summary "\\n\"\n\t.popsection")

#endif
