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
/// Sends `length` bytes to the task's console at once, before what printf still holds back. Waits while nobody takes
/// them. PM_EFAULT; PM_ENOMEM: the host has no thread for it.
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
/// Ends a container, its frames and their mappings; the handle is void. Its logical copies elsewhere stay.
/// PM_EPERM for PM_CAP_CONTAINER and weak capabilities; PM_EBUSY: locked, or a frame is pinned; PM_EINVAL.
pm_error_t pm_container_destroy(pm_container_t container);
/// Makes the ids [start, start + *count) name fresh frames that read as zero; takes no memory yet (R16, R18).
/// Flags: PM_ALLOC_PARTIAL, _SQUASH, _EXTRA. PM_EEXIST: an id is in use, PM_ENOMEM: with either *count becomes how many
/// were made, 0 without PM_ALLOC_PARTIAL. PM_EPERM: a weak capability; PM_EBUSY: locked, or PM_ALLOC_SQUASH of a pinned
/// frame; PM_EINVAL: count 0, ids beyond 2^32, unknown flags; PM_EFAULT.
pm_error_t pm_container_allocate(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags);
/// Frees the frames [start, start + *count); what is mapped of them shows nothing until the id names a frame again
/// (R18). Flags: PM_DEALLOC_PARTIAL, _SQUASH.
/// *count becomes how many were freed. PM_ENOENT: an id is not in use; without PM_DEALLOC_PARTIAL none was freed then, and
/// *count is 0. PM_EPERM, PM_EINVAL and PM_EFAULT as for allocate, PM_EBUSY: locked, or a frame is pinned: with these none
/// was freed, and *count is as it was.
pm_error_t pm_container_deallocate(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags);

// ---- placement (R19) -----------------------------------------------------------------

/// As pm_container_allocate, with physical frames where `placement` says, at once: all of them or none. What is in the
/// way is moved elsewhere; what cannot be moved (pinned, placed before, page tables, the machine's own) is an obstacle,
/// which pm_placement_obstacle names. The frames stay where they are as long as their content lives and is not released:
/// a write to one that was copied logically gives its id another content, which is anywhere. pm_container_pin tells the
/// addresses.
/// PM_ENOMEM also: there is no such place now, three quarters of all frames would be placed, or PM_ALLOC_SQUASH of frames
/// in use, which go when the new ones are there, and the task cannot have both for so long. PM_EINVAL also: a
/// placement that can never hold (a member that is no power of two, a run longer than its boundary, an address
/// outside the machine's memory), or more than PM_FRAMES_MAXIMUM frames.
pm_error_t pm_container_allocate_placed(pm_container_t container, pm_frame_t start, uint32_t *count, uint32_t flags,
                                        const struct pm_placement *placement);
/// What was in the way when the task's last placement was refused with PM_ENOMEM. PM_EFAULT.
pm_error_t pm_placement_obstacle(struct pm_obstacle *obstacle);
/// Moves the contents of all tasks together, so that free frames lie in long runs; *moved becomes how many frames that
/// took. The server does so by itself now and then; this is for who cannot wait. PM_EPERM: not control; PM_EFAULT.
pm_error_t pm_defragment(pm_cap_t control, uint32_t *moved);

// ---- logical copies (R23, R24, R38) --------------------------------------------
// A copy shares the content of its source until one of the two is written. It takes no memory but page tables, and
// the data is copied by the write that needs it. A copy of a frame that was never touched is such a frame. Copies of
// copies work to any depth.

/// Makes the ids [dest_start, dest_start + count) of `dest` name logical copies of [src_start, src_start + count) of
/// `src`, as memmove would where the two overlap (R24). In a container of one's own, ids in use get the new content and
/// others are allocated, charged to the owner; through a weak capability all ids must be in use.
/// An error changes nothing, and tells the id at fault in *frame_error, which may be NULL.
/// PM_ENOENT: a source id is not in use, or one of the destination through a weak capability; PM_ENOMEM: the first
/// destination id that there is no frame for; PM_EBUSY: an id is pinned, or a container locked (no id then);
/// PM_ECANCELED: the share was revoked; PM_EINVAL: count 0, or ids beyond 2^32; PM_EFAULT.
pm_error_t pm_container_copy(pm_container_t src, pm_frame_t src_start, pm_container_t dest, pm_frame_t dest_start,
                             uint32_t count, pm_frame_t *frame_error);
/// The same to the `count` ids at `dest_frames`; of an id that is there twice, the last one counts (R24). All sources
/// are read before anything changes. PM_EINVAL: more than PM_FRAMES_MAXIMUM ids.
pm_error_t pm_container_copy_scatter(pm_container_t src, pm_frame_t src_start, pm_container_t dest,
                                     const pm_frame_t *dest_frames, uint32_t count, pm_frame_t *frame_error);
/// The same from the `count` ids at `src_frames` (R24). PM_EINVAL: more than PM_FRAMES_MAXIMUM ids.
pm_error_t pm_container_copy_gather(pm_container_t src, const pm_frame_t *src_frames, pm_container_t dest,
                                    pm_frame_t dest_start, uint32_t count, pm_frame_t *frame_error);
/// The same from the ids at `src_frames` to those at `dest_frames`, `count` of each (R24). PM_EINVAL as above.
pm_error_t pm_container_copy_scatter_gather(pm_container_t src, const pm_frame_t *src_frames, pm_container_t dest,
                                            const pm_frame_t *dest_frames, uint32_t count, pm_frame_t *frame_error);
/// Lets each of the `count` ids at `frames` go of a content that it shares: it names an empty frame then, which reads
/// as zero, so that writing it anew copies nothing (R38). An id that is the only one to name its content keeps it.
/// PM_ENOENT: an id is not in use; PM_EPERM: a weak capability; PM_EBUSY: locked; PM_EINVAL: count 0 or more than
/// PM_FRAMES_MAXIMUM; PM_EFAULT.
pm_error_t pm_release_data(pm_container_t container, const pm_frame_t *frames, uint32_t count);

// ---- released frames (R31, R32) ----------------------------------------------------
// A released frame is not the task's any more, and costs it nothing. Its content stays until the server uses the frame
// for something else, the frames released longest ago first; until then the task can have it back. For everything but
// pm_recover_pages and pm_expired_pages its id is not in use: nothing is seen through it, and it can be allocated or
// copied onto anew, which drops the content. Logical copies of the content keep theirs. Of ids that were never touched, and of
// those whose content was released under another id before, a task can have only the last so many back.

/// Releases the frames that the `count` ids at `frames` name, all or none; an id named twice is released once. This,
/// like any other way of freeing frames, answers pm_return_pages.
/// PM_ENOENT: an id is not in use; PM_EPERM: a weak capability; PM_EBUSY: locked or pinned; PM_EINVAL: count 0 or more
/// than PM_FRAMES_MAXIMUM; PM_EFAULT.
pm_error_t pm_release_pages(pm_container_t container, const pm_frame_t *frames, uint32_t count);
/// Takes released frames back with what they held, all or none, each once. `frame_error`, where it is not NULL, is the first id that
/// an error is about.
/// PM_ENOEXIST: the content is gone; PM_EEXIST: the id is in use; PM_ENOMEM: the task has no guarantee left, and there
/// is no extra frame for it; and as above.
pm_error_t pm_recover_pages(pm_container_t container, const pm_frame_t *frames, uint32_t count, pm_frame_t *frame_error);
/// Stores for each of the `count` ids at `frames` a byte at `expired`: 1 where there is nothing to recover any more and
/// nothing in use, else 0. PM_EPERM, PM_EBUSY (locked), PM_EINVAL, PM_EFAULT as above.
pm_error_t pm_expired_pages(pm_container_t container, const pm_frame_t *frames, uint32_t count, uint8_t *expired);

// ---- sharing (R20-R23) -----------------------------------------------------------
// A weak capability lets its holder use the frames of somebody's container: map them, copy from them and onto them,
// lock the container, pin frames. Allocating, freeing, pm_release_data, sharing and revoking are the owner's: PM_EPERM.
// When the owner revokes the share, destroys the container or ends, every call with the capability is PM_ECANCELED,
// and what was mapped through it is gone.

/// Makes a weak capability to a container of one's own, in one's own table; a message hands it over (R20). `remote`:
/// PM_CAP_NONE for whoever holds it, or who alone may use it: the task of a task's capability (its PM_CAP_SELF), or
/// the one that made an endpoint. Others can only pass it on: PM_EPERM.
/// PM_EPERM: a weak capability; PM_EBUSY: locked; PM_ENOMEM; PM_ECANCELED: the endpoint is gone; PM_EINVAL: `remote` is
/// something else; PM_EFAULT.
pm_error_t pm_container_share(pm_container_t container, pm_cap_t remote, pm_container_t *weak);
/// Ends all weak capabilities to a container of one's own, at once (R21). The data stays. PM_EPERM: a weak capability;
/// PM_EBUSY: locked, or another task has pinned a frame.
pm_error_t pm_container_revoke(pm_container_t container);
/// Makes a container with the ids [0, count) in use, as pm_container_allocate would, and shares it, but where `weak` is
/// NULL (R23). PM_ENOMEM, PM_EINVAL, PM_EFAULT.
pm_error_t pm_container_create_with(pm_container_t *container, uint32_t count, pm_cap_t remote, pm_container_t *weak);
/// Makes a container whose ids [0, count) are logical copies of [start, start + count) of `source`, and shares it
/// (R23). Errors as for pm_container_copy and pm_container_share; nothing is made then.
pm_error_t pm_container_create_from(pm_container_t *container, pm_container_t source, pm_frame_t start, uint32_t count,
                                    pm_cap_t remote, pm_container_t *weak);
/// The same with copies of the `count` ids at `frames` (R23). PM_EINVAL: more than PM_FRAMES_MAXIMUM ids.
pm_error_t pm_container_create_gather(pm_container_t *container, pm_container_t source, const pm_frame_t *frames,
                                      uint32_t count, pm_cap_t remote, pm_container_t *weak);
/// Keeps the owner from a container for `timeout_us`, at most PM_LOCK_MAXIMUM_US (R21): its calls on the container are
/// PM_EBUSY, its accesses wait for the end, and so does its own end. Again by the holder: a new time from now on. The
/// lock ends by pm_container_unlock, with its time, or with its holder. PM_EPERM: not a weak capability, or an owner's;
/// PM_EBUSY: another one holds it, or a call that changes it is under way; PM_ECANCELED: revoked; PM_EINVAL: 0 or more
/// than the maximum.
pm_error_t pm_container_lock(pm_container_t container, uint64_t timeout_us);
/// Ends one's own lock (R21). PM_EPERM: one has none, or its time was up.
pm_error_t pm_container_unlock(pm_container_t container);
/// Keeps the frames [start, start + count) in place for `timeout_us`, at most PM_LOCK_MAXIMUM_US (R22): each gets a
/// physical frame of its own now, whose address goes to `physical`. Until then, pm_container_unpin or the task's end,
/// freeing or copying one of them is PM_EBUSY. PM_ENOENT: an id is not in use; PM_EBUSY: another task's pin, or a call
/// that changes the container's frames is under way; PM_ENOMEM: more than half of all frames would be pinned;
/// PM_ECANCELED; PM_EINVAL: count 0 or more than PM_FRAMES_MAXIMUM, ids beyond 2^32, the time 0 or more than the
/// maximum; PM_EFAULT.
pm_error_t pm_container_pin(pm_container_t container, pm_frame_t start, uint32_t count, uint64_t timeout_us,
                            uint64_t *physical);
/// Ends the pin of the frames [start, start + count) (R22). PM_EPERM: another task's pin; PM_ENOENT: one is not pinned.
pm_error_t pm_container_unpin(pm_container_t container, pm_frame_t start, uint32_t count);

// ---- mapping (R25-R27) -------------------------------------------------------

/// Maps the frames [start, start + count) at `address`, in place of what was mapped there (R25, R26).
/// Flags: PM_MAP_READ, _WRITE, _EXECUTE, _FORCE_WRITE, at least one; PM_MAP_LAZY: fill in on first access.
/// A content that other frames share is mapped without the right to write; PM_MAP_FORCE_WRITE copies it first. A write
/// to it copies it where PM_MAP_LAZY or PM_MAP_FORCE_WRITE was given, and is the task's own fault elsewhere (R37); the
/// last frame that names a content writes it in place.
/// The server may drop a mapping at any time and restores it at the next access.
/// PM_ENOENT: an id is not in use; PM_ENOMEM; PM_EBUSY: locked; PM_ECANCELED: revoked; PM_EINVAL: count 0, no right,
/// unknown flags, not page aligned or outside [PM_USER_START, PM_USER_END).
pm_error_t pm_container_map(pm_container_t container, pm_frame_t start, uint32_t count, void *address, uint32_t flags);
/// Drops the mappings of `count` pages from `address` on; pages without one are no error. PM_EINVAL as for map; PM_ENOMEM:
/// it would cut a range of mappings in two, and the task has as many ranges as there may be.
pm_error_t pm_unmap(void *address, uint32_t count);
/// What is mapped at the page of `address` (R27). PM_ENOENT: nothing, as always outside the task's range; PM_EFAULT.
pm_error_t pm_mapping(const void *address, struct pm_mapping *mapping);

// ---- policy (R7-R14) -------------------------------------------------------------
// One task decides how many frames each has guaranteed. What a task needs to ask it is in <physmem/policy.h>; this is
// for those who write a policy server.

/// Control over who gets how much memory: to the first task of the machine that asks for it, and nobody after that,
/// even when its last holder is gone (R9). A message takes it to other tasks, copied or moved (R10).
/// PM_EPERM: it was given before; PM_ENOMEM, PM_EFAULT.
pm_error_t pm_get_control(pm_cap_t *control);
/// Maps the policy buffer at `address`, for reading and writing, in place of what was mapped there (R11): an array of
/// *entries struct pm_policy_entry, one for each place in the server's table of tasks. It is taken from whoever had it
/// mapped before. With more tasks than entries it becomes larger, and nobody has it mapped: the next access faults
/// (pm_on_fault), and the task asks for it anew (R13). Whoever gives up its last handle of control loses the buffer.
/// PM_EPERM: not control; PM_ENOMEM; PM_EINVAL: not page aligned, no room there; PM_EFAULT.
pm_error_t pm_get_policy_buffer(pm_cap_t control, void *address, uint32_t *entries);
/// Puts into force what the buffer says now, for all tasks or none (R4, R7). From the first time on, no task has more
/// than its guarantee but what is lent to it. A smaller guarantee takes nothing by itself: the rest is extra.
/// PM_ENOMEM: more is guaranteed than there is, and nothing has changed; PM_ENOENT: nobody asked for the buffer yet;
/// PM_EPERM: not control.
pm_error_t pm_policy_commit(pm_cap_t control);
/// The name that the task of that id was launched under, which it cannot change: at most PM_NAME_MAXIMUM bytes and a
/// closing 0 (R14). PM_ENOENT: there is no such task; PM_EPERM: not control; PM_EFAULT.
pm_error_t pm_task_name(pm_cap_t control, uint64_t task, char name[PM_NAME_MAXIMUM + 1]);

// ---- reclaim (R28-R30) ----------------------------------------------------------

/// Makes `handler` the one that is called when the server wants frames back, null for none (R28): at any moment, on a
/// stack of its own, whatever the task does, its own waiting calls and its fault handler included; they go on
/// afterwards as if nothing had been. `count` is how many frames, never more than the task has beyond its guarantee.
/// The task answers by freeing that many, of its own choice, with whatever call; what it does not free in time, usually
/// 100 ms, costs it everything: it is dropped (R30). What is asked for while the handler runs comes in one more call of
/// it. The handler may make any call, also ones that wait, and may fault; it must not use what it may have interrupted,
/// such as malloc or printf, and must not leave by longjmp. It has 32 KiB of stack; a fault follows below that, and a
/// little more. PM_ENOMEM: the processor has more state than there is room for.
pm_error_t pm_on_return_pages(void (*handler)(uint32_t count));

// ---- devices (R19, R22) --------------------------------------------------------------
// The machine's devices have the numbers 0, 1, …: one for each `--disk`. A device is driven by one task at a time, the first
// that claims it, and works on memory that its driver has pinned at that moment (pm_container_pin) and nothing else; the
// rest it refuses, as an IOMMU does. What is pinned stays in place until the device is done with it, also when the pin's time
// is up, the driver unpins it or ends: its owner cannot free it any sooner. A disk is a virtio block device, with the
// registers of virtio over MMIO at their offsets; <physmem/block.h> drives one.

/// What a device is, and which addresses it reaches (R19). PM_ENOENT: there is no such device; PM_EFAULT.
pm_error_t pm_device_info(uint32_t device, struct pm_device_info *info);
/// Makes the task the driver of a device, until it releases it or ends. PM_ENOENT: there is no such device; PM_EBUSY:
/// another task drives it; PM_EEXIST: this one does already.
pm_error_t pm_device_claim(uint32_t device);
/// Resets a device of the task's and gives it up, when the request under way is done. PM_EPERM: it is not the task's;
/// PM_ENOENT.
pm_error_t pm_device_release(uint32_t device);
/// Reads the 32-bit register at `offset`; one that is none reads 0. PM_EPERM: not the task's device; PM_ENOENT; PM_EINVAL:
/// `offset` is no multiple of 4, or 512 and more; PM_EFAULT.
pm_error_t pm_device_read(uint32_t device, uint32_t offset, uint32_t *value);
/// Writes it; what is written to a register that is none, or at the wrong time, has no effect. To reset the device, or to
/// stop its queue, waits for the request under way. Errors as above.
pm_error_t pm_device_write(uint32_t device, uint32_t offset, uint32_t value);
/// Makes `handler` the one that is called when a device of the task's raises an interrupt, null for none: at any moment, as
/// the handler of pm_on_return_pages, with the same freedoms and limits, and never while that one runs. `devices` has a bit
/// for each device. What is raised while it runs comes in one more call of it. PM_ENOMEM as there.
pm_error_t pm_on_interrupt(void (*handler)(uint64_t devices));
/// Waits for an interrupt of a device of the task's; returns at once if one was raised since the last that this told of.
/// So a driver that looks at its queue, finds nothing and then waits misses none. PM_ETIMEDOUT; PM_EBUSY: the task has a
/// handler for interrupts.
pm_error_t pm_interrupt_wait(uint64_t timeout_us);

// ---- messages (R20, R40) ---------------------------------------------------------
// A call goes to an endpoint, and to whoever receives on it: it takes eight words and four capabilities there and as
// many back, in one struct pm_message. Only the task that made an endpoint receives on it, or one that it moved the
// capability to; with a copy, or one from pm_name_lookup, others can only call. A time of 0 is not to wait at all.

/// Makes an endpoint (R20). It ends with its maker, or when that drops it. PM_ENOMEM, PM_EFAULT.
pm_error_t pm_endpoint_create(pm_cap_t *endpoint);
/// Sends a message, waits for the reply, and puts it in the message's place. `caps` are handles of one's own, moved
/// where the bit in `moves` is set; `sender` and `reply` are the server's to write.
/// PM_ETIMEDOUT: no reply in time, which withdraws the call; with 0 in any case, and the message goes over only if
/// somebody receives already. PM_ECANCELED: the endpoint is gone, or its receiver ended with the call unanswered. With
/// either, what was to be moved may have gone over. PM_EINVAL: no endpoint, one's own, a capability that one does not
/// hold; PM_EPERM: one that cannot travel, such as a container of one's own; PM_EFAULT.
pm_error_t pm_call(pm_cap_t endpoint, struct pm_message *message, uint64_t timeout_us);
/// Waits for a call. `sender` is the caller's task id, and `caps` has handles of one's own: 0 where there was none, or
/// no room for it. PM_EAGAIN, once: the task has mapped the policy buffer, and tasks have come or gone. PM_EPERM: not one's own endpoint; PM_ETIMEDOUT; PM_EINVAL; PM_EFAULT.
pm_error_t pm_receive(pm_cap_t endpoint, struct pm_message *message, uint64_t timeout_us);
/// Answers the call that `reply` names, with words and capabilities. PM_ECANCELED: the caller is gone or waits no
/// more; PM_EINVAL: no such call, or answered already; capabilities as for pm_call.
pm_error_t pm_reply(struct pm_message *message);
/// Answers a call, then waits for the next, which comes in the same message, in one exit. An error of the reply is
/// returned at once, without waiting: PM_ECANCELED says that this caller is gone, and others may wait. PM_EFAULT: the
/// message cannot be read and stored; the call is not answered then.
pm_error_t pm_reply_receive(pm_cap_t endpoint, struct pm_message *message, uint64_t timeout_us);
/// Gives one's own endpoint a name that other tasks can look up, until it ends. Any bytes but 0 make a name.
/// PM_EEXIST: taken; PM_EINVAL: empty, longer than PM_NAME_MAXIMUM, or not one's own endpoint; PM_ENOMEM; PM_EFAULT.
pm_error_t pm_name_register(const char *name, pm_cap_t endpoint);
/// A capability to call the endpoint of that name; waits until there is one. PM_ENOENT: none, and the time is 0;
/// PM_ETIMEDOUT; PM_ENOMEM; PM_EINVAL; PM_EFAULT.
pm_error_t pm_name_lookup(const char *name, pm_cap_t *endpoint, uint64_t timeout_us);
/// Gives up a handle: a container of one's own is destroyed, an endpoint of one's own ends. PM_EPERM: PM_CAP_SELF,
/// PM_CAP_CONTAINER; PM_EBUSY as for pm_container_destroy; PM_EINVAL.
pm_error_t pm_cap_drop(pm_cap_t cap);
/// Gives up all capabilities that came with a message, and has none in it. Whoever calls may send some that nobody asked
/// for, up to PM_MESSAGE_CAPS a call: a server that keeps them has no handle left in the end.
void pm_message_drop_caps(struct pm_message *message);

// ---- self-paging (R37) -------------------------------------------------------

/// Makes `handler` the task's fault handler, null for none: it runs on a stack of its own on each fault that the
/// server does not serve, and returns 0 to retry the access, anything else to let the task die of the fault. A fault
/// in the handler that the server does not serve is the task's end. The handler must not leave by longjmp. It has 32 KiB of
/// stack in any case; nothing is mapped below its end. A fault of
/// the pm_return_pages handler, where that interrupted this one, calls it once more, further down on the same stack.
pm_error_t pm_on_fault(int (*handler)(const struct pm_fault *fault));

// ---- what an image says of itself --------------------------------------------

/// The line that `physmem list` shows for the program; a string literal of plain text, no quotes or backslashes.
#define PM_PROGRAM(summary) \
  __asm__(".pushsection .physmem,\"\",@progbits\n\t.ascii \"summary: " summary "\\n\"\n\t.popsection")

#endif
