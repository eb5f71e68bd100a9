// The contract between the server and its guest tasks; both sides include it.
//
// A call: the call number in EAX, up to six arguments in RDI, RSI, RDX, RCX, R8, R9 (the C calling order),
// then `out %al, $PM_CALL_PORT`. The result, a pm_error_t, comes back in RAX; every other register is preserved.
// Pointers are virtual addresses of the task; the server resolves them before it changes anything, and
// returns PM_EFAULT if it cannot.
//
// A task starts at its ELF entry point with RDI = argc, RSI = argv, RDX = the TSC's frequency in kHz, RCX =
// PM_START_… flags, RSP = the stack's top, 16-byte aligned as before a call (so the entry point calls main at once),
// and every other general register 0. argv, its strings and a terminating null pointer are above RSP.
#ifndef PHYSMEM_ABI_H
#define PHYSMEM_ABI_H

#include <stddef.h>
#include <stdint.h>

#define PM_ABI_VERSION 1
#define PM_START_NO_MAPPING_CACHE 1u  // the server unmaps a page and forgets its mapping: map it again
#define PM_START_REVOKES 2u  // the server unmaps pages at random, for tests: what pm_mapping reports may change at once
#define PM_START_MOVES 4u    // the server moves contents at random, for tests: physical addresses may change at once
#define PM_PAGE_SIZE 4096

// The only I/O port a task may write to.
#define PM_CALL_PORT 0x50

// ---- address layout --------------------------------------------------------
// A task may map anything in [PM_USER_START, PM_USER_END). The stack ends at PM_STACK_TOP and has PM_STACK_PAGES
// pages; the PM_STACK_GUARD_PAGES below it are never mapped. The library's heap starts at PM_HEAP_START.
#define PM_USER_START 0x1000ull
#define PM_USER_END 0x7ffffffff000ull
#define PM_IMAGE_START 0x400000ull
#define PM_HEAP_START 0x7fff80000000ull
#define PM_STACK_TOP 0x7fffffe00000ull
#define PM_STACK_PAGES 32
#define PM_STACK_GUARD_PAGES 16

// ---- errors ----------------------------------------------------------------
typedef int32_t pm_error_t;
enum pm_error {
  PM_OK = 0,
  PM_EPERM = 1,        // not allowed for this task or this kind of handle
  PM_ENOENT = 2,       // no such frame, address or name
  PM_EEXIST = 3,       // the id or name is in use
  PM_ENOMEM = 4,       // no frame, entitlement, table or handle left
  PM_ENOEXIST = 5,     // the content is gone: its frame was reused
  PM_EINVAL = 6,       // an argument that can never be right, an unknown handle or call
  PM_EBUSY = 7,        // locked or pinned
  PM_ETIMEDOUT = 8,    // the timeout passed first
  PM_EIO = 9,          // the backing store failed
  PM_ENOSPC = 10,      // the backing store is full
  PM_EFAULT = 11,      // a pointer that the task itself could not use
  PM_ECANCELED = 12,   // the other side went away
  PM_EAGAIN = 13,      // not now, try again
};

// ---- handles and ids -------------------------------------------------------
typedef uint32_t pm_cap_t;        // a handle in the task's own table; 0 is none
typedef pm_cap_t pm_container_t;  // a handle that names a container
typedef uint32_t pm_frame_t;      // the id of a virtual frame in its container

#define PM_CAP_NONE ((pm_cap_t)0)
#define PM_CAP_SELF ((pm_cap_t)1)       // the task
#define PM_CAP_CONTAINER ((pm_cap_t)2)  // its initial container, which holds its image and stack

// ---- flags -----------------------------------------------------------------
#define PM_ALLOC_PARTIAL 0x1u  // allocate as many as possible; the error returns the count
#define PM_ALLOC_SQUASH 0x2u   // drop the frame that an id named before
#define PM_ALLOC_EXTRA 0x4u    // may go beyond the guarantee
#define PM_DEALLOC_PARTIAL 0x1u  // stop at the first id that is not in use
#define PM_DEALLOC_SQUASH 0x2u   // ids that are not in use are no error

#define PM_MAP_READ 0x1u
#define PM_MAP_WRITE 0x2u        // implies read
#define PM_MAP_EXECUTE 0x4u      // implies read
#define PM_MAP_FORCE_WRITE 0x8u  // implies write; a shared content is copied so that the page is writable
#define PM_MAP_LAZY 0x10u        // fill in on first access

// What pm_sample tells of a page.
#define PM_PAGE_PRESENT 0x1u   // it has a leaf: the next access that the mapping permits does not fault
#define PM_PAGE_ACCESSED 0x2u  // the leaf's accessed bit
#define PM_PAGE_DIRTY 0x4u     // the leaf's dirty bit

// The kind of access in a struct pm_fault.
#define PM_ACCESS_READ PM_MAP_READ
#define PM_ACCESS_WRITE PM_MAP_WRITE
#define PM_ACCESS_EXECUTE PM_MAP_EXECUTE

// ---- limits ----------------------------------------------------------------
#define PM_FOREVER UINT64_MAX            // no timeout
#define PM_LOCK_MAXIMUM_US 10000000ull   // longer locks and pins are PM_EINVAL
#define PM_NAME_MAXIMUM 63               // bytes of a name, without the terminating 0
#define PM_FRAMES_MAXIMUM 65536          // ids in one array of frames

// ---- structures ------------------------------------------------------------
struct pm_task_info {
  uint64_t id;          // never used for another task of this machine
  uint64_t guaranteed;  // frames
  uint64_t allocated;   // frames: virtual frames of the containers it owns
  uint64_t swapped;     // frames
  uint64_t available;   // frames it could allocate now, extra frames included
  uint64_t pressure;    // 0: free frames for everyone; 100: none
};

struct pm_mapping {
  pm_container_t container;  // a handle of the calling task, or 0 where it holds none
  pm_frame_t frame;
  uint32_t rights;    // PM_MAP_READ, _WRITE, _EXECUTE in force now; 0: the next access exits to the server
  uint32_t requested; // the flags the mapping was made with
  uint64_t physical;  // the frame's physical address; 0: no frame yet
};

// Physical placement constraints (R19). Addresses and lengths in bytes; 0 for no constraint.
struct pm_placement {
  uint64_t below;       // every frame ends at this physical address or before it
  uint64_t alignment;   // a power of two: of a run's first frame, or of each frame
  uint64_t boundary;    // a power of two: a run does not cross a multiple of it
  uint64_t fixed;       // the run begins at this physical address
  uint32_t contiguous;  // 1: the frames are adjacent, in the order of their ids; `fixed` implies it
  uint32_t reserved;    // 0
};

// Obstacles to a placement.
#define PM_OBSTACLE_NONE 0        // no single obstacle
#define PM_OBSTACLE_RESERVED 1    // frames of the machine itself
#define PM_OBSTACLE_PAGE_TABLE 2  // frames of page tables, or reserved for them
#define PM_OBSTACLE_PINNED 3
#define PM_OBSTACLE_PLACED 4      // a frame that was placed before
#define PM_OBSTACLE_BUSY 5        // another placement in progress has taken it

struct pm_obstacle {
  uint64_t physical;
  uint32_t kind;  // PM_OBSTACLE_...
  uint32_t reserved;
};

// One task in the policy buffer: entry n describes the task in slot n of the server's table.
struct pm_policy_entry {
  // Written by the server, at any time; a task's writes to these have no effect.
  uint64_t task;        // 0: no task, and all other members are 0
  uint64_t allocated;   // frames
  uint64_t granted;     // frames: the guarantee in force
  uint64_t swapped;     // frames
  // Written by the policy server; takes effect at the next pm_policy_commit.
  uint64_t guaranteed;  // frames
  uint64_t extra;       // 0: no extra frames; anything else: extra frames allowed
  uint64_t swap_quota;  // frames
  uint64_t reserved;
};

#define PM_DEVICE_DISK 2  // as in virtio
struct pm_device_info {
  uint32_t kind;
  uint32_t address_bits;  // the device reaches physical addresses below 2 to this power
};

// Written for pm_call by the caller, returned by pm_receive, and sent back with pm_reply.
#define PM_MESSAGE_WORDS 8
#define PM_MESSAGE_CAPS 4
struct pm_message {
  uint64_t words[PM_MESSAGE_WORDS];
  pm_cap_t caps[PM_MESSAGE_CAPS];  // the sender's handles; the receiver gets its own here. 0: none
  uint32_t moves;     // bit n: caps[n] is moved, not copied
  uint32_t reserved;  // 0
  uint64_t sender;    // the sender's task id; written by the server
  uint64_t reply;     // names the call to pm_reply; written by pm_receive
};

struct pm_fault {
  uint64_t address;  // the byte that was accessed
  uint64_t rip;      // the instruction that accessed it
  uint32_t access;   // PM_ACCESS_READ, _WRITE or _EXECUTE
  uint32_t present;  // 1: the page is mapped, but not for this access
};

// ---- calls -----------------------------------------------------------------
enum pm_call {
  PM_CALL_NULL = 0,  // does nothing: for measuring a call
  PM_CALL_EXIT = 1,  // (status)
  PM_CALL_WRITE = 2,  // (text, length)
  PM_CALL_CLOCK = 3,  // (uint64_t *microseconds), the host's monotonic clock
  PM_CALL_SLEEP = 4,  // (microseconds)
  PM_CALL_TASK_INFO = 5,  // (struct pm_task_info *)

  PM_CALL_CONTAINER_CREATE = 0x20,      // (pm_container_t *)
  PM_CALL_CONTAINER_DESTROY = 0x21,     // (container)
  PM_CALL_CONTAINER_ALLOCATE = 0x22,    // (container, start, uint32_t *count, flags)
  PM_CALL_CONTAINER_DEALLOCATE = 0x23,  // (container, start, uint32_t *count, flags)
  PM_CALL_CONTAINER_CREATE_WITH = 0x24,    // (pm_container_t *, count, remote, pm_container_t *weak)
  PM_CALL_CONTAINER_CREATE_FROM = 0x25,    // (pm_container_t *, source, start, count, remote, pm_container_t *weak)
  PM_CALL_CONTAINER_CREATE_GATHER = 0x26,  // (pm_container_t *, source, frames *, count, remote, pm_container_t *weak)
  PM_CALL_CONTAINER_COPY = 0x28,                 // (source, start, destination, start, count, pm_frame_t *error)
  PM_CALL_CONTAINER_COPY_SCATTER = 0x29,         // (source, start, destination, frames *, count, pm_frame_t *error)
  PM_CALL_CONTAINER_COPY_GATHER = 0x2a,          // (source, frames *, destination, start, count, pm_frame_t *error)
  PM_CALL_CONTAINER_COPY_SCATTER_GATHER = 0x2b,  // (source, frames *, destination, frames *, count, pm_frame_t *error)
  PM_CALL_CONTAINER_SHARE = 0x2c,   // (container, remote, pm_container_t *weak)
  PM_CALL_CONTAINER_REVOKE = 0x2d,  // (container)
  PM_CALL_CONTAINER_LOCK = 0x2e,    // (weak container, microseconds)
  PM_CALL_CONTAINER_UNLOCK = 0x2f,  // (weak container)
  PM_CALL_CONTAINER_PIN = 0x30,     // (container, start, count, microseconds, uint64_t *physical)
  PM_CALL_CONTAINER_UNPIN = 0x31,   // (container, start, count)
  PM_CALL_CONTAINER_ALLOCATE_PLACED = 0x32,  // (container, start, uint32_t *count, flags, const struct pm_placement *)
  PM_CALL_PLACEMENT_OBSTACLE = 0x33,         // (struct pm_obstacle *)
  PM_CALL_DEFRAGMENT = 0x34,                 // (control, uint32_t *moved)

  PM_CALL_CONTAINER_MAP = 0x40,  // (container, start, count, address, flags)
  PM_CALL_UNMAP = 0x41,          // (address, count)
  PM_CALL_MAPPING = 0x42,        // (address, struct pm_mapping *)
  PM_CALL_SAMPLE = 0x43,         // (address, count, flags, uint8_t *bits)

  PM_CALL_RELEASE_DATA = 0x50,  // (container, frames *, count)
  PM_CALL_RELEASE_PAGES = 0x51,  // (container, frames *, count)
  PM_CALL_RECOVER_PAGES = 0x52,  // (container, frames *, count, pm_frame_t *error)
  PM_CALL_EXPIRED_PAGES = 0x53,  // (container, frames *, count, uint8_t *expired)

  PM_CALL_GET_CONTROL = 0x60,        // (pm_cap_t *)
  PM_CALL_GET_POLICY_BUFFER = 0x61,  // (control, address, uint32_t *entries)
  PM_CALL_POLICY_COMMIT = 0x62,      // (control)
  PM_CALL_TASK_NAME = 0x63,          // (control, task id, char name[PM_NAME_MAXIMUM + 1])

  PM_CALL_ENDPOINT_CREATE = 0x80,  // (pm_cap_t *)
  PM_CALL_CALL = 0x81,             // (endpoint, struct pm_message *, microseconds)
  PM_CALL_RECEIVE = 0x82,          // (endpoint, struct pm_message *, microseconds)
  PM_CALL_REPLY = 0x83,            // (struct pm_message *)
  PM_CALL_REPLY_RECEIVE = 0x84,    // (endpoint, struct pm_message *, microseconds)
  PM_CALL_NAME_REGISTER = 0x85,    // (const char *, endpoint)
  PM_CALL_NAME_LOOKUP = 0x86,      // (const char *, pm_cap_t *, microseconds)
  PM_CALL_CAP_DROP = 0x87,         // (cap)

  // (entry, stack top); entry 0: none; outside the task's half: PM_EINVAL. On a page fault that the server does not
  // serve, the task continues at entry on that stack with RDI = address, RSI = rip, RDX = access, RCX = present, RFLAGS
  // clear except IF, and every other register unchanged; nothing is pushed. The handler ends with
  // PM_CALL_FAULT_RETURN(0: retry | other: give up), which restores all general registers, RIP, RSP and RFLAGS;
  // the handler saves vector and floating-point state itself. A fault in the handler that the server does not serve
  // ends the task. PM_CALL_FAULT_RETURN outside a handler is PM_EINVAL. A fault in a pm_return_pages handler that
  // interrupted the fault handler enters it once more, 128 bytes or a little more below its RSP.
  // With PM_START_NO_MAPPING_CACHE a pointer argument that the server cannot follow is such a fault as well, at the
  // call's `out` (0xe6) instruction: after 0 the call is retried, after anything else it returns PM_EFAULT. And a
  // fault in the handler, which may touch a page that was unmapped, enters the handler once more, 128 bytes below its
  // RSP; PM_CALL_FAULT_RETURN returns from that one first.
  PM_CALL_ON_FAULT = 0x70,
  PM_CALL_FAULT_RETURN = 0x71,

  // (entry, stack top), as for PM_CALL_ON_FAULT. When the server wants frames back, an interrupt enters the task at
  // entry on that stack with RDI = how many, RFLAGS clear except IF, and every other register unchanged. The handler
  // ends with PM_CALL_UPCALL_RETURN, which restores all general registers, RIP, RSP and RFLAGS; the handler saves
  // vector and floating-point state itself. Requests that arrive meanwhile are merged into one more call of the
  // handler. A call that waits is interrupted like any code: it continues to wait after the handler, to the same
  // deadline. PM_CALL_UPCALL_RETURN outside the handler, or in a fault handler that it needed, is PM_EINVAL; so is, in
  // the handler, the PM_CALL_FAULT_RETURN of a fault handler that it interrupted.
  PM_CALL_ON_RETURN_PAGES = 0x72,
  PM_CALL_UPCALL_RETURN = 0x73,  // ()
  // (entry, stack top), as for PM_CALL_ON_RETURN_PAGES, for interrupts of the task's devices: RDI has a bit for each
  // device that has raised one. Only one of the two handlers runs at a time; the other waits until it has returned.
  PM_CALL_ON_INTERRUPT = 0x74,
  PM_CALL_INTERRUPT_WAIT = 0x75,  // (microseconds)

  PM_CALL_DEVICE_INFO = 0x94,     // (number, struct pm_device_info *)
  PM_CALL_DEVICE_CLAIM = 0x90,    // (number)
  PM_CALL_DEVICE_RELEASE = 0x91,  // (number)
  PM_CALL_DEVICE_READ = 0x92,     // (number, offset, uint32_t *value)
  PM_CALL_DEVICE_WRITE = 0x93,    // (number, offset, value)
};

#if defined(__cplusplus)
#define PM_ASSERT_LAYOUT(condition, text) static_assert(condition, text)
#else
#define PM_ASSERT_LAYOUT(condition, text) _Static_assert(condition, text)
#endif
PM_ASSERT_LAYOUT(sizeof(struct pm_task_info) == 48, "pm_task_info");
PM_ASSERT_LAYOUT(sizeof(struct pm_mapping) == 24, "pm_mapping");
PM_ASSERT_LAYOUT(sizeof(struct pm_placement) == 40 && offsetof(struct pm_placement, contiguous) == 32, "pm_placement");
PM_ASSERT_LAYOUT(sizeof(struct pm_obstacle) == 16, "pm_obstacle");
PM_ASSERT_LAYOUT(sizeof(struct pm_fault) == 24, "pm_fault");
PM_ASSERT_LAYOUT(sizeof(struct pm_message) == 104, "pm_message");
PM_ASSERT_LAYOUT(sizeof(struct pm_policy_entry) == 64 && offsetof(struct pm_policy_entry, guaranteed) == 32, "pm_policy_entry");

// ---- metadata of an image ----------------------------------------------------
// Section .physmem of an image: lines of text, each "key: value\n".
//   summary: one line for `physmem list`
// Section .physmem.tests: one line a test, "name|expected|copies|summary\n", where expected is an exit status or
// several, "134 or 141", and copies may be "2 900 8": 2 tasks with 900 guaranteed frames each, in 8 MiB; or with a
// disk: "1 disk,readonly". See guest/tests/test.h.

#endif
