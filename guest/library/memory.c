// The heap: blocks with boundary tags in one run of pages that grows and shrinks at its end. The heap has its own
// container; frame n is mapped lazily at PM_HEAP_START + n pages, so untouched pages take no memory.
//
// The life of a block: 1. part of the run's last, free block → 2. cut off, in use → 3. free, merged with its free
// neighbours, in the bin of its size → 2. again, or returned to the server if it is the last and large.
#include <physmem.h>

#define GROWTH_FRAMES 16u
#define MAX_GROWTH_FRAMES 256u
#define TRIM_FRAMES 256u
#define MAX_FRAMES \
  ((uint32_t)((PM_STACK_TOP - PM_HEAP_START) / PM_PAGE_SIZE - PM_STACK_PAGES - PM_STACK_GUARD_PAGES))

#define ALIGNMENT 16u
#define HEADER offsetof(struct block, next)
#define MIN_BLOCK sizeof(struct block)
#define IN_USE 1u
#define PREVIOUS_IN_USE 2u
#define FLAGS (IN_USE | PREVIOUS_IN_USE)

/// The tag before each block's bytes. The two links overlay the bytes and are valid only while the block is free; so is
/// `previous_size`, which is the last word of the block before.
struct block {
  size_t previous_size;
  size_t size_and_flags;
  struct block *next, *previous;
};

// One bin for each size up to SMALL_LIMIT, then four for each doubling.
#define SMALL_LIMIT 1024u
#define SMALL_BINS (SMALL_LIMIT / ALIGNMENT)
#define BINS 160

static struct {
  pm_container_t container;  // 0: not created yet
  uint32_t frames;
  struct block *end;  // an empty block, in use, that ends the run
  uint64_t filled[(BINS + 63) / 64];
  struct block *bins[BINS];
} heap;

static size_t size_of(const struct block *block) { return block->size_and_flags & ~(size_t)FLAGS; }
static struct block *at_offset(struct block *block, size_t offset) { return (void *)((char *)block + offset); }
static struct block *after(struct block *block) { return at_offset(block, size_of(block)); }
static void *bytes_of(struct block *block) { return (char *)block + HEADER; }
static struct block *block_of(void *bytes) { return (void *)((char *)bytes - HEADER); }

// ---- bins -----------------------------------------------------------------------

static unsigned bin_of(size_t size) {
  if (size < SMALL_LIMIT) return (unsigned)(size / ALIGNMENT);
  unsigned log = 63 - (unsigned)__builtin_clzll(size);
  return SMALL_BINS + (log - 10) * 4 + (unsigned)(size >> (log - 2) & 3);
}

static void insert(struct block *block) {
  unsigned bin = bin_of(size_of(block));
  block->previous = NULL;
  block->next = heap.bins[bin];
  if (block->next) block->next->previous = block;
  heap.bins[bin] = block;
  heap.filled[bin / 64] |= 1ull << bin % 64;
}

static void take(struct block *block) {
  unsigned bin = bin_of(size_of(block));
  if (block->next) block->next->previous = block->previous;
  if (block->previous) {
    block->previous->next = block->next;
    return;
  }
  heap.bins[bin] = block->next;
  if (!block->next) heap.filled[bin / 64] &= ~(1ull << bin % 64);
}

static struct block *find(size_t size) {
  unsigned bin = bin_of(size);
  for (struct block *block = heap.bins[bin]; block; block = block->next)
    if (size_of(block) >= size) return block;
  // Every block of a later bin is large enough.
  for (unsigned at = bin + 1; at < BINS; at = (at / 64 + 1) * 64) {
    uint64_t later = heap.filled[at / 64] >> at % 64;
    if (later) return heap.bins[at + (unsigned)__builtin_ctzll(later)];
  }
  return NULL;
}

// ---- blocks ----------------------------------------------------------------------

static void mark_free(struct block *block, size_t size) {
  block->size_and_flags = size | (block->size_and_flags & PREVIOUS_IN_USE);
  after(block)->previous_size = size;
  after(block)->size_and_flags &= ~(size_t)PREVIOUS_IN_USE;
}

/// Frees a block that is in no bin and merges it with its free neighbours; returns the merged block, in its bin.
static struct block *merge(struct block *block) {
  size_t size = size_of(block);
  if (!(block->size_and_flags & PREVIOUS_IN_USE)) {
    size += block->previous_size;
    block = (void *)((char *)block - block->previous_size);
    take(block);
  }
  struct block *next = at_offset(block, size);
  if (!(next->size_and_flags & IN_USE)) {
    size += size_of(next);
    take(next);
  }
  mark_free(block, size);
  insert(block);
  return block;
}

/// Takes a block, in no bin and possibly longer than needed, into use with `size` bytes, and frees the rest.
static void *use(struct block *block, size_t size) {
  size_t whole = size_of(block), rest = whole - size;
  if (rest < MIN_BLOCK) size = whole;
  block->size_and_flags = size | IN_USE | (block->size_and_flags & PREVIOUS_IN_USE);
  struct block *next = after(block);
  if (size == whole) {
    next->size_and_flags |= PREVIOUS_IN_USE;
  } else {
    next->size_and_flags = rest | PREVIOUS_IN_USE;
    merge(next);
  }
  return bytes_of(block);
}

// ---- the run of pages ----------------------------------------------------------------

static char *address_of(uint32_t frame) { return (char *)PM_HEAP_START + (size_t)frame * PM_PAGE_SIZE; }

static bool map_frames(uint32_t count) {
  if (!heap.container && pm_container_create(&heap.container)) return false;
  uint32_t done = count;
  if (pm_container_allocate(heap.container, heap.frames, &done, 0)) return false;
  uint32_t flags = PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY;
  if (!pm_container_map(heap.container, heap.frames, count, address_of(heap.frames), flags)) return true;
  (void)pm_container_deallocate(heap.container, heap.frames, &done, 0);
  return false;
}

/// Adds pages for a block of `size` bytes, and more if available, since each growth costs two calls.
static bool grow(size_t size) {
  if (size > (size_t)MAX_FRAMES * PM_PAGE_SIZE) return false;
  uint32_t needed = (uint32_t)((size + 2 * HEADER + PM_PAGE_SIZE - 1) / PM_PAGE_SIZE);
  uint32_t count = heap.frames / 4 < MAX_GROWTH_FRAMES ? heap.frames / 4 : MAX_GROWTH_FRAMES;
  if (count < GROWTH_FRAMES) count = GROWTH_FRAMES;
  if (count < needed) count = needed;
  if (count > MAX_FRAMES - heap.frames) count = needed;
  if (count > MAX_FRAMES - heap.frames) return false;
  if (!map_frames(count) && (count == needed || !map_frames(count = needed))) return false;
  struct block *block = heap.frames ? heap.end : (struct block *)address_of(0);
  if (!heap.frames) block->size_and_flags = PREVIOUS_IN_USE;
  heap.frames += count;
  heap.end = (struct block *)(address_of(heap.frames) - HEADER);
  heap.end->size_and_flags = IN_USE;
  block->size_and_flags = (size_t)((char *)heap.end - (char *)block) | (block->size_and_flags & PREVIOUS_IN_USE);
  merge(block);
  return true;
}

/// Returns the pages at the run's end to the server, except for a few, when many of them are free.
static void trim(struct block *last) {
  uint32_t used = (uint32_t)(((uintptr_t)last - PM_HEAP_START) / PM_PAGE_SIZE + 1);
  uint32_t kept = used + GROWTH_FRAMES, count = heap.frames - kept;
  take(last);
  if (pm_container_deallocate(heap.container, kept, &count, 0) == PM_OK) {
    heap.frames = kept;
    heap.end = (struct block *)(address_of(kept) - HEADER);
    heap.end->size_and_flags = IN_USE;
    mark_free(last, (size_t)((char *)heap.end - (char *)last));
  }
  insert(last);
}

// ---- the C library's functions ----------------------------------------------------

/// The size of a block for `size` bytes of the program; 0 if no block can be that large.
static size_t block_size(size_t size) {
  if (size > (size_t)MAX_FRAMES * PM_PAGE_SIZE) return 0;
  size = (size + sizeof(size_t) + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  return size < MIN_BLOCK ? MIN_BLOCK : size;
}

void *malloc(size_t size) {
  size = block_size(size);
  if (!size) return NULL;
  struct block *block = find(size);
  if (!block && grow(size)) block = find(size);
  if (!block) return NULL;
  take(block);
  return use(block, size);
}

void free(void *bytes) {
  if (!bytes) return;
  struct block *block = block_of(bytes);
  // A double free, or a pointer never allocated: continuing would damage the heap far from the bug.
  if (!(block->size_and_flags & IN_USE)) abort();
  block = merge(block);
  if (after(block) == heap.end && size_of(block) >= (size_t)TRIM_FRAMES * PM_PAGE_SIZE) trim(block);
}

void *calloc(size_t count, size_t size) {
  size_t total;
  if (__builtin_mul_overflow(count, size, &total)) return NULL;
  void *bytes = malloc(total);
  return bytes ? memset(bytes, 0, total) : NULL;
}

void *realloc(void *bytes, size_t size) {
  if (!bytes) return malloc(size);
  size_t wanted = block_size(size);
  if (!wanted) return NULL;
  struct block *block = block_of(bytes), *next = after(block);
  size_t had = size_of(block);
  if (had < wanted && !(next->size_and_flags & IN_USE) && had + size_of(next) >= wanted) {
    take(next);
    block->size_and_flags += size_of(next);
  }
  if (size_of(block) >= wanted) return use(block, wanted);
  void *moved = malloc(size);
  if (!moved) return NULL;
  memcpy(moved, bytes, had - sizeof(size_t));
  free(bytes);
  return moved;
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  enum { BAD_ALIGNMENT = 22, NO_MEMORY = 12 };
  if (alignment < sizeof(void *) || (alignment & (alignment - 1))) return BAD_ALIGNMENT;
  if (alignment < ALIGNMENT) alignment = ALIGNMENT;
  size_t spare = alignment > ALIGNMENT ? alignment + MIN_BLOCK : 0;
  char *bytes = size + spare < size ? NULL : malloc(size + spare);
  if (!bytes) return NO_MEMORY;
  struct block *block = block_of(bytes);
  if ((uintptr_t)bytes % alignment) {
    // The bytes before the aligned address become a free block, so there must be enough for one.
    char *aligned = (char *)(((uintptr_t)bytes + MIN_BLOCK + alignment - 1) & ~(alignment - 1));
    size_t before = (size_t)(aligned - bytes), whole = size_of(block);
    block->size_and_flags -= before;
    block = block_of(aligned);
    block->size_and_flags = (whole - before) | IN_USE | PREVIOUS_IN_USE;
    struct block *front = block_of(bytes);
    front->size_and_flags = before | IN_USE | (front->size_and_flags & PREVIOUS_IN_USE);
    merge(front);
  }
  *result = use(block, block_size(size));
  return 0;
}

void *aligned_alloc(size_t alignment, size_t size) {
  void *bytes = NULL;
  return posix_memalign(&bytes, alignment < sizeof(void *) ? sizeof(void *) : alignment, size) ? NULL : bytes;
}
