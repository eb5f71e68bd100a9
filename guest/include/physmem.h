// The guest interface: every call to the physical memory server, and a small C library.
//
// Counts are in frames of PM_PAGE_SIZE bytes, page addresses are multiples of it, times are in microseconds.
// A call that fails changes nothing, unless its comment says otherwise. Any call returns PM_EFAULT for a pointer that
// the task itself could not use, and PM_EINVAL for a handle that the task does not hold.
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

/// Flushes printf's buffer and ends the task; the low 8 bits of `status` are its exit status.
__attribute__((noreturn)) void pm_exit(int status);
/// The number of main's arguments, and one of them, or null: for programs whose main does not receive them.
int pm_argument_count(void);
const char *pm_argument(int index);
/// Sends `length` bytes to the task's console at once, ahead of text that printf still buffers. Blocks while the reader
/// of the console is slow. PM_EFAULT; PM_ENOMEM: the host has no thread for it.
pm_error_t pm_write(const void *text, size_t length);
/// The host's monotonic clock in microseconds. Usually reads the TSC without leaving the task.
uint64_t pm_clock_us(void);
/// Returns after at least `us` microseconds.
void pm_sleep(uint64_t us);
/// The task's id and its frame counts (R2). PM_EFAULT.
pm_error_t pm_task_info(struct pm_task_info *info);
/// The name of an error, such as "PM_EINVAL"; "unknown error" for any other number.
const char *pm_strerror(pm_error_t error);

// ---- containers (R15-R18) ----------------------------------------------------

/// Creates an empty container that the task owns (R15). PM_ENOMEM, PM_EFAULT.
pm_error_t pm_container_create(pm_container_t *container);
/// Destroys a container: frees its frames, removes their mappings, and invalidates the handle. Logical copies stay.
/// PM_EPERM for PM_CAP_CONTAINER and weak capabilities; PM_EBUSY: locked, or a frame is pinned; PM_EINVAL.
pm_error_t pm_container_destroy(pm_container_t container);
/// Allocates fresh frames, which read as zero, for the ids [start, start + *count); takes no memory yet (R16, R18).
/// Flags: PM_ALLOC_PARTIAL, _SQUASH, _EXTRA. PM_EEXIST: an id is in use; PM_ENOMEM: with either, *count becomes the
/// number allocated, 0 without PM_ALLOC_PARTIAL. PM_EPERM: a weak capability; PM_EBUSY: locked, or PM_ALLOC_SQUASH of a
/// pinned frame; PM_EINVAL: count 0, ids beyond 2^32, unknown flags; PM_EFAULT.
pm_error_t pm_container_allocate(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags);
/// Frees the frames [start, start + *count); pages mapped to them fault until the id names a frame again (R18).
/// Flags: PM_DEALLOC_PARTIAL, _SQUASH.
/// *count becomes the number freed. PM_ENOENT: an id is not in use; without PM_DEALLOC_PARTIAL nothing is freed then,
/// and *count is 0. PM_EPERM, PM_EINVAL and PM_EFAULT as for allocate, PM_EBUSY: locked, or a frame is pinned: with
/// these nothing is freed, and *count is unchanged.
pm_error_t pm_container_deallocate(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags);

// ---- placement (R19) -----------------------------------------------------------------

/// As pm_container_allocate, with physical frames that satisfy `placement`, allocated at once: all or none. The server
/// moves contents out of the way; what it cannot move (pinned or placed frames, page tables, the machine's own frames)
/// is an obstacle, which pm_placement_obstacle reports. The frames stay in place as long as their content lives and is
/// not released: writing one that has logical copies gives its id another content, which may be anywhere.
/// pm_container_pin reports the addresses.
/// PM_ENOMEM also: no such run is available now, three quarters of all frames would be placed, or PM_ALLOC_SQUASH of
/// frames in use, which are freed after the new ones are allocated, if the task's entitlement does not cover both.
/// PM_EINVAL also: a placement that can never hold (a member that is not a power of two, a run longer than its
/// boundary, an address outside the machine's memory), or more than PM_FRAMES_MAXIMUM frames.
pm_error_t pm_container_allocate_placed(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags,
                                        const struct pm_placement *placement);
/// The obstacle to the task's last placement that failed with PM_ENOMEM. PM_EFAULT.
pm_error_t pm_placement_obstacle(struct pm_obstacle *obstacle);
/// Moves contents of all tasks together, to make long runs of free frames; *moved becomes the number of frames moved.
/// The server does this in the background; the call is for tasks that cannot wait. PM_EPERM: not control; PM_EFAULT.
pm_error_t pm_defragment(pm_cap_t control, uint32_t *moved);

// ---- logical copies (R23, R24, R38) --------------------------------------------
// A copy shares the content of its source until one of the two is written. It takes no memory except page tables; the
// write copies the data. A copy of an untouched frame is an empty frame. Copies of copies work to any depth.

/// Makes the ids [dest_start, dest_start + count) of `dest` name logical copies of [src_start, src_start + count) of
/// `src`, as memmove would where the two overlap (R24). In a container that the task owns, ids in use get the new
/// content and others are allocated, charged to the owner; through a weak capability all ids must be in use.
/// An error changes nothing, and stores the id it concerns in *frame_error, which may be NULL.
/// PM_ENOENT: a source id is not in use, or a destination id through a weak capability; PM_ENOMEM: stores the first
/// destination id that no frame is left for; PM_EBUSY: an id is pinned, or a container is locked (no id then);
/// PM_ECANCELED: the share was revoked; PM_EINVAL: count 0, or ids beyond 2^32; PM_EFAULT.
pm_error_t pm_container_copy(pm_container_t src, pm_frame_t src_start, pm_container_t dest, pm_frame_t dest_start,
                             uint32_t count, pm_frame_t *frame_error);
/// The same to the `count` ids at `dest_frames`; of an id that occurs twice, the last one counts (R24). Reads all
/// sources before it changes anything. PM_EINVAL: more than PM_FRAMES_MAXIMUM ids.
pm_error_t pm_container_copy_scatter(pm_container_t src, pm_frame_t src_start, pm_container_t dest,
                                     const pm_frame_t *dest_frames, uint32_t count, pm_frame_t *frame_error);
/// The same from the `count` ids at `src_frames` (R24). PM_EINVAL: more than PM_FRAMES_MAXIMUM ids.
pm_error_t pm_container_copy_gather(pm_container_t src, const pm_frame_t *src_frames, pm_container_t dest,
                                    pm_frame_t dest_start, uint32_t count, pm_frame_t *frame_error);
/// The same from the ids at `src_frames` to those at `dest_frames`, `count` of each (R24). PM_EINVAL as above.
pm_error_t pm_container_copy_scatter_gather(pm_container_t src, const pm_frame_t *src_frames, pm_container_t dest,
                                            const pm_frame_t *dest_frames, uint32_t count, pm_frame_t *frame_error);
/// Makes each of the `count` ids at `frames` drop a content that it shares: it names an empty frame then, which reads
/// as zero, so that writing it copies nothing (R38). An id that is the only one to name its content keeps it.
/// PM_ENOENT: an id is not in use; PM_EPERM: a weak capability; PM_EBUSY: locked; PM_EINVAL: count 0 or more than
/// PM_FRAMES_MAXIMUM; PM_EFAULT.
pm_error_t pm_release_data(pm_container_t container, const pm_frame_t *frames, uint32_t count);

// ---- released frames (R31, R32) ----------------------------------------------------
// A released frame no longer belongs to the task and is not charged to it. Its content stays until the server reuses
// the frame, those released longest ago first; until then the task can recover it. For all calls except
// pm_recover_pages and pm_expired_pages its id is not in use: mappings of it fault, and it can be allocated or copied
// onto, which drops the released content. Logical copies keep theirs. Only a limited number of the most recent releases
// can be recovered where the id was never touched, or its content had been released under another id before.

/// Releases the frames that the `count` ids at `frames` name, all or none; an id named twice is released once. Like any
/// other call that frees frames, this answers pm_return_pages.
/// PM_ENOENT: an id is not in use; PM_EPERM: a weak capability; PM_EBUSY: locked or pinned; PM_EINVAL: count 0 or more
/// than PM_FRAMES_MAXIMUM; PM_EFAULT.
pm_error_t pm_release_pages(pm_container_t container, const pm_frame_t *frames, uint32_t count);
/// Recovers released frames with their contents, all or none, each once. `*frame_error`, where `frame_error` is not
/// NULL, becomes the first id that an error concerns.
/// PM_ENOEXIST: the content is gone; PM_EEXIST: the id is in use; PM_ENOMEM: the task's guarantee is used up, and no
/// extra frame is available; others as above.
pm_error_t pm_recover_pages(pm_container_t container, const pm_frame_t *frames, uint32_t count, pm_frame_t *frame_error);
/// Stores a byte at `expired` for each of the `count` ids at `frames`: 1 if the id is not in use and has nothing to
/// recover, else 0. PM_EPERM, PM_EBUSY (locked), PM_EINVAL, PM_EFAULT as above.
pm_error_t pm_expired_pages(pm_container_t container, const pm_frame_t *frames, uint32_t count, uint8_t *expired);

// ---- sharing (R20-R23) -----------------------------------------------------------
// A weak capability lets its holder use the frames of another task's container: map them, copy from and onto them,
// lock the container, pin frames. Only the owner allocates, frees, releases, shares and revokes; others get PM_EPERM.
// When the owner revokes the share, destroys the container or ends, every call with the capability fails with
// PM_ECANCELED, and its mappings are removed.

/// Makes a weak capability to a container that the task owns, in the task's own table; a message hands it over (R20).
/// `remote` restricts its use: PM_CAP_NONE for no restriction; a capability of a task (its PM_CAP_SELF) for that task;
/// an endpoint for the task that created it. Other tasks can only pass it on: PM_EPERM.
/// PM_EPERM: a weak capability; PM_EBUSY: locked; PM_ENOMEM; PM_ECANCELED: the endpoint is gone; PM_EINVAL: `remote` is
/// another kind of capability; PM_EFAULT.
pm_error_t pm_container_share(pm_container_t container, pm_cap_t remote, pm_container_t *weak);
/// Revokes all weak capabilities to a container that the task owns, at once (R21). The data stays. PM_EPERM: a weak
/// capability; PM_EBUSY: locked, or another task has pinned a frame.
pm_error_t pm_container_revoke(pm_container_t container);
/// Creates a container with the ids [0, count) in use, as pm_container_allocate would, and shares it unless `weak` is
/// NULL (R23). PM_ENOMEM, PM_EINVAL, PM_EFAULT.
pm_error_t pm_container_create_with(pm_container_t *container, uint32_t count, pm_cap_t remote, pm_container_t *weak);
/// Creates a container whose ids [0, count) are logical copies of [start, start + count) of `source`, and shares it
/// (R23). Errors as for pm_container_copy and pm_container_share; nothing is created then.
pm_error_t pm_container_create_from(pm_container_t *container, pm_container_t source, pm_frame_t start, uint32_t count,
                                    pm_cap_t remote, pm_container_t *weak);
/// The same with copies of the `count` ids at `frames` (R23). PM_EINVAL: more than PM_FRAMES_MAXIMUM ids.
pm_error_t pm_container_create_gather(pm_container_t *container, pm_container_t source, const pm_frame_t *frames,
                                      uint32_t count, pm_cap_t remote, pm_container_t *weak);
/// Locks the owner out of a container for `timeout_us`, at most PM_LOCK_MAXIMUM_US (R21): its calls on the container
/// fail with PM_EBUSY, its accesses wait for the lock's end, and so does its exit. The holder may call again to restart
/// the time. The lock ends with pm_container_unlock, its time, or its holder. PM_EPERM: not a weak capability, or the
/// owner's own; PM_EBUSY: another task holds the lock, or a call that changes the container is in progress;
/// PM_ECANCELED: revoked; PM_EINVAL: 0 or more than the maximum.
pm_error_t pm_container_lock(pm_container_t container, uint64_t timeout_us);
/// Ends the task's lock (R21). PM_EPERM: the task holds none, or its time was up.
pm_error_t pm_container_unlock(pm_container_t container);
/// Pins the frames [start, start + count) for `timeout_us`, at most PM_LOCK_MAXIMUM_US (R22): each gets a physical
/// frame that it shares with no other, whose address goes to `physical`. Until the time is up, pm_container_unpin, or
/// the task's end, freeing or copying onto one of them fails with PM_EBUSY. PM_ENOENT: an id is not in use; PM_EBUSY:
/// another task's pin, or a call that changes the container's frames is in progress; PM_ENOMEM: more than half of all
/// frames would be pinned; PM_ECANCELED; PM_EINVAL: count 0 or more than PM_FRAMES_MAXIMUM, ids beyond 2^32, the time 0
/// or more than the maximum; PM_EFAULT.
pm_error_t pm_container_pin(pm_container_t container, pm_frame_t start, uint32_t count, uint64_t timeout_us,
                            uint64_t *physical);
/// Unpins the frames [start, start + count) (R22). PM_EPERM: another task's pin; PM_ENOENT: one is not pinned.
pm_error_t pm_container_unpin(pm_container_t container, pm_frame_t start, uint32_t count);

// ---- mapping (R25-R27) -------------------------------------------------------

/// Maps the frames [start, start + count) at `address`, replacing what was mapped there (R25, R26).
/// Flags: PM_MAP_READ, _WRITE, _EXECUTE, _FORCE_WRITE, at least one; PM_MAP_LAZY: fill in on first access.
/// A content that other frames share is mapped read-only; PM_MAP_FORCE_WRITE copies it first. A write to it copies it
/// if the mapping has PM_MAP_LAZY or PM_MAP_FORCE_WRITE, and otherwise faults to the task (R37); the last frame that
/// names a content writes it in place.
/// The server may drop a mapping at any time and restores it at the next access.
/// PM_ENOENT: an id is not in use; PM_ENOMEM; PM_EBUSY: locked; PM_ECANCELED: revoked; PM_EINVAL: count 0, no right,
/// unknown flags, not page aligned or outside [PM_USER_START, PM_USER_END).
pm_error_t pm_container_map(pm_container_t container, pm_frame_t start, uint32_t count, void *address, uint32_t flags);
/// Removes the mappings of `count` pages from `address` on; pages without one are no error. PM_EINVAL as for map;
/// PM_ENOMEM: it would split a range of mappings, and the task has the maximum number of ranges.
pm_error_t pm_unmap(void *address, uint32_t count);
/// Describes the mapping at the page of `address` (R27). PM_ENOENT: none, as always outside the task's range;
/// PM_EFAULT.
pm_error_t pm_mapping(const void *address, struct pm_mapping *mapping);
/// Stores a byte for each of `count` pages from `address` on (R37): PM_PAGE_PRESENT, _ACCESSED and _DIRTY, as the page's
/// leaf has them; 0 where there is no leaf. The server sets the accessed bit, and the dirty bit where it permits writes, when
/// it fills in a page, and it may drop a page at any time. `flags` must be 0.
/// PM_EINVAL: count 0 or more than PM_FRAMES_MAXIMUM, a flag, not page aligned or outside [PM_USER_START, PM_USER_END);
/// PM_EFAULT, with some bytes stored.
pm_error_t pm_sample(const void *address, uint32_t count, uint32_t flags, uint8_t *bits);

// ---- policy (R7-R14) -------------------------------------------------------------
// One task, the policy server, sets every task's guarantee. A task negotiates with it through <physmem/policy.h>; the
// calls here are for writing a policy server.

/// Control over memory guarantees: given to the first task of the machine that asks for it, and never again, even after
/// its last holder has ended (R9). A message copies or moves it to other tasks (R10).
/// PM_EPERM: it was given before; PM_ENOMEM, PM_EFAULT.
pm_error_t pm_get_control(pm_cap_t *control);
/// Maps the policy buffer at `address`, readable and writable, replacing what was mapped there (R11): an array of
/// *entries struct pm_policy_entry, one for each slot of the server's task table. The previous mapping, in whatever
/// task, is removed. When tasks outnumber entries the buffer grows and is unmapped: the next access faults
/// (pm_on_fault), and the task calls this again (R13). A task without control loses the buffer.
/// PM_EPERM: not control; PM_ENOMEM; PM_EINVAL: not page aligned, no room there; PM_EFAULT.
pm_error_t pm_get_policy_buffer(pm_cap_t control, void *address, uint32_t *entries);
/// Puts the buffer's values into force, for all tasks or none (R4, R7). After the first commit a task has its
/// guarantee, and extra frames only on loan. A smaller guarantee takes no frames by itself: the rest become extra.
/// PM_ENOMEM: the guarantees exceed memory, and nothing has changed; PM_ENOENT: the buffer was never requested;
/// PM_EPERM: not control.
pm_error_t pm_policy_commit(pm_cap_t control);
/// The name that the task with that id was launched under, which it cannot change: at most PM_NAME_MAXIMUM bytes and a
/// terminating 0 (R14). PM_ENOENT: no such task; PM_EPERM: not control; PM_EFAULT.
pm_error_t pm_task_name(pm_cap_t control, uint64_t task, char name[PM_NAME_MAXIMUM + 1]);

// ---- reclaim (R28-R30) ----------------------------------------------------------

/// Sets the handler that the server calls to ask for frames back, null for none (R28). It runs on its own stack and can
/// interrupt the task anywhere, in calls that wait and in its fault handler too; those resume afterwards. `count` is
/// the number of frames, never more than the task has beyond its guarantee. The task answers by freeing that many of
/// its choice, with any call; if it misses the deadline, usually 100 ms, the server drops it (R30). Requests that
/// arrive while the handler runs are merged into one more call of it. The handler may make any call, also ones that
/// wait, and may fault; it must not use what it may have interrupted, such as malloc or printf, and must not leave by
/// longjmp. It has 32 KiB of stack; an overflow faults a little below that. PM_ENOMEM: too much processor state.
pm_error_t pm_on_return_pages(void (*handler)(uint32_t count));

// ---- devices (R19, R22) --------------------------------------------------------------
// The machine's devices are numbered 0, 1, …: one for each `--disk`. One task at a time drives a device, the first
// that claims it. The device accesses only memory that its driver has pinned at that moment (pm_container_pin) and
// rejects the rest, as an IOMMU does. Pinned frames stay in place until the device is done with them, even if the pin
// times out or the driver unpins or ends: the owner cannot free them earlier. A disk is a virtio block device, with
// the registers of virtio over MMIO at their offsets; <physmem/block.h> drives one.

/// A device's kind, and the addresses it reaches (R19). PM_ENOENT: no such device; PM_EFAULT.
pm_error_t pm_device_info(uint32_t device, struct pm_device_info *info);
/// Makes the task the driver of a device, until it releases it or ends. PM_ENOENT: no such device; PM_EBUSY:
/// another task drives it; PM_EEXIST: the task drives it already.
pm_error_t pm_device_claim(uint32_t device);
/// Resets a device that the task drives and gives it up, after the request in progress. PM_EPERM: the task does not
/// drive it; PM_ENOENT.
pm_error_t pm_device_release(uint32_t device);
/// Reads the 32-bit register at `offset`; an unknown one reads 0. PM_EPERM: the task does not drive the device;
/// PM_ENOENT; PM_EINVAL: `offset` is not a multiple of 4, or at least 512; PM_EFAULT.
pm_error_t pm_device_read(uint32_t device, uint32_t offset, uint32_t *value);
/// Writes it; a write to an unknown register, or at the wrong time, has no effect. Resetting the device or stopping its
/// queue waits for the request in progress. Errors as above.
pm_error_t pm_device_write(uint32_t device, uint32_t offset, uint32_t value);
/// Sets the handler for interrupts of the task's devices, null for none. It can run at any time, with the same freedoms
/// and limits as the handler of pm_on_return_pages, and never while that one runs. `devices` has a bit for each device.
/// Interrupts that arrive while it runs are merged into one more call of it. PM_ENOMEM as there.
pm_error_t pm_on_interrupt(void (*handler)(uint64_t devices));
/// Waits for an interrupt of the task's devices; returns at once if one arrived since the last one reported. So
/// a driver that checks its queue, finds nothing and then waits misses none. PM_ETIMEDOUT; PM_EBUSY: the task has an
/// interrupt handler.
pm_error_t pm_interrupt_wait(uint64_t timeout_us);

// ---- messages (R20, R40) ---------------------------------------------------------
// A call sends eight words and four capabilities in a struct pm_message to the receiver of an endpoint, and gets as
// many back in the reply. Only the task that created an endpoint, or one that it moved the capability to, receives on
// it; the holder of a copy, or of one from pm_name_lookup, can only call. A timeout of 0 means not to wait.

/// Creates an endpoint (R20). It ends with its creator, or when the creator drops it. PM_ENOMEM, PM_EFAULT.
pm_error_t pm_endpoint_create(pm_cap_t *endpoint);
/// Sends a message and waits for the reply, which replaces it. `caps` are handles of the task, moved where the bit in
/// `moves` is set; the server writes `sender` and `reply`.
/// PM_ETIMEDOUT: no reply in time; the call is withdrawn. A timeout of 0 always gives this, and delivers the message
/// only to a receiver that waits already. PM_ECANCELED: the endpoint is gone, or its receiver ended without a reply.
/// After either, the capabilities to be moved may have gone over. PM_EINVAL: not an endpoint, the task's own endpoint,
/// or a capability that the task does not hold; PM_EPERM: one that cannot be sent, such as an owned container;
/// PM_EFAULT.
pm_error_t pm_call(pm_cap_t endpoint, struct pm_message *message, uint64_t timeout_us);
/// Waits for a call. `sender` is the caller's task id, and `caps` has the task's new handles: 0 where there was none,
/// or no room for it. PM_EAGAIN, once: the task has mapped the policy buffer, and tasks have come or gone. PM_EPERM:
/// not the task's own endpoint; PM_ETIMEDOUT; PM_EINVAL; PM_EFAULT.
pm_error_t pm_receive(pm_cap_t endpoint, struct pm_message *message, uint64_t timeout_us);
/// Answers the call that `reply` names, with words and capabilities. PM_ECANCELED: the caller is gone or no longer
/// waits; PM_EINVAL: no such call, or answered already; capabilities as for pm_call.
pm_error_t pm_reply(struct pm_message *message);
/// Answers a call, then waits for the next, which replaces the message, in one exit. An error of the reply is returned
/// at once, without waiting: PM_ECANCELED means that this caller is gone; others may be waiting. PM_EFAULT: the
/// message cannot be read and stored; the call is not answered then.
pm_error_t pm_reply_receive(pm_cap_t endpoint, struct pm_message *message, uint64_t timeout_us);
/// Gives the task's own endpoint a name that other tasks can look up, until it ends. A name is any bytes except 0.
/// PM_EEXIST: taken; PM_EINVAL: empty, longer than PM_NAME_MAXIMUM, or not the task's endpoint; PM_ENOMEM; PM_EFAULT.
pm_error_t pm_name_register(const char *name, pm_cap_t endpoint);
/// Gets a capability to call the endpoint of that name; waits until one is registered. PM_ENOENT: none, and the timeout
/// is 0; PM_ETIMEDOUT; PM_ENOMEM; PM_EINVAL; PM_EFAULT.
pm_error_t pm_name_lookup(const char *name, pm_cap_t *endpoint, uint64_t timeout_us);
/// Gives up a handle: an owned container is destroyed, the task's own endpoint ends. PM_EPERM: PM_CAP_SELF,
/// PM_CAP_CONTAINER; PM_EBUSY as for pm_container_destroy; PM_EINVAL.
pm_error_t pm_cap_drop(pm_cap_t cap);
/// Drops all capabilities that came with a message and clears them in it. A caller may send unwanted ones, up to
/// PM_MESSAGE_CAPS a call: a server that keeps them runs out of handles.
void pm_message_drop_caps(struct pm_message *message);

// ---- self-paging (R37) -------------------------------------------------------

/// Sets the task's fault handler, null for none: it runs on its own stack for each fault that the server does not
/// serve, and returns 0 to retry the access, anything else to let the task die of the fault. A fault in the handler
/// that the server does not serve ends the task. The handler must not leave by longjmp. It has 32 KiB of stack in all
/// cases; the pages below are unmapped. If pm_return_pages interrupts this handler and its handler faults, the fault
/// handler is called once more, further down on the same stack.
pm_error_t pm_on_fault(int (*handler)(const struct pm_fault *fault));

// ---- metadata of an image ----------------------------------------------------

/// The line that `physmem list` shows for the program; a string literal of plain text, no quotes or backslashes.
#define PM_PROGRAM(summary) \
  __asm__(".pushsection .physmem,\"\",@progbits\n\t.ascii \"summary: " summary "\\n\"\n\t.popsection")

#endif
