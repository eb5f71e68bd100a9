// The library's heap: it neither loses nor mixes up memory, and returns unused memory to the server.
#include "test.h"

static bool aligned(const void *block, size_t alignment) { return (uintptr_t)block % alignment == 0; }

PM_TEST(sizes, 0, 1, "malloc: every size from 0 to 5,000, aligned and disjoint") {
  static unsigned char *blocks[5001];
  for (size_t size = 0; size <= 5000; size++) {
    blocks[size] = malloc(size);
    CHECK(blocks[size] != NULL && aligned(blocks[size], 16));
    memset(blocks[size], (int)size, size);
  }
  for (size_t size = 0; size <= 5000; size++) {
    for (size_t i = 0; i < size; i++) CHECK_EQ(blocks[size][i], size & 0xff);
    free(blocks[size]);
  }
}

PM_TEST(reuse, 0, 1, "free: freed blocks are reused, and neighbours merge") {
  char *first = malloc(100), *middle = malloc(100), *last = malloc(100), *end = malloc(100);
  free(middle);
  CHECK(malloc(100) == middle);
  free(first);
  free(last);
  free(middle);
  CHECK(malloc(300) == first);
  free(end);
  uint64_t before = allocated_frames();
  for (int i = 0; i < 100000; i++) free(malloc(1000));
  CHECK_EQ(allocated_frames(), before);
}

PM_TEST(gives_back, 0, 1, "free: large free blocks at the heap's end go back to the server") {
  free(malloc(1));
  uint64_t before = allocated_frames();
  char *large = malloc(16 << 20);
  CHECK(large != NULL);
  CHECK(allocated_frames() >= before + 4096);
  free(large);
  CHECK(allocated_frames() < before + 300);
}

PM_TEST(limits, 0, 1, "malloc and calloc: impossible sizes and overflowing products return null") {
  CHECK(malloc(SIZE_MAX) == NULL);
  CHECK(malloc(SIZE_MAX - 15) == NULL);
  CHECK(malloc(1ull << 40) == NULL);
  CHECK(malloc(PM_STACK_TOP - PM_HEAP_START) == NULL);
  CHECK(calloc(SIZE_MAX, 2) == NULL);
  CHECK(calloc(1ull << 33, 1ull << 33) == NULL);
  CHECK(realloc(NULL, SIZE_MAX) == NULL);
  char *block = malloc(10);
  strcpy(block, "still me");
  CHECK(realloc(block, SIZE_MAX) == NULL);
  CHECK(!strcmp(block, "still me"));
  free(NULL);
  free(block);
}

PM_TEST(zeroes, 0, 1, "calloc: zero even if the memory was used before") {
  char *dirty = malloc(10000);
  memset(dirty, 0xff, 10000);
  free(dirty);
  CHECK(is_zero(calloc(100, 100), 10000));
  CHECK(calloc(0, 100) != NULL);
}

PM_TEST(resizes, 0, 1, "realloc: keeps the content, growing and shrinking, in place and moved") {
  unsigned char *block = NULL;
  for (size_t size = 1; size < 200000; size = size * 3 / 2 + 1) {
    block = realloc(block, size);
    CHECK(block != NULL);
    for (size_t i = 0; i < size * 2 / 3; i++) CHECK(block[i] == (unsigned char)(i * 7) || i >= size * 2 / 3 - 1);
    for (size_t i = 0; i < size; i++) block[i] = (unsigned char)(i * 7);
    if (size % 3 == 0) (void)malloc(40);
  }
  for (size_t size = 100000; size > 0; size /= 2) {
    block = realloc(block, size);
    for (size_t i = 0; i < size; i++) CHECK_EQ(block[i], (unsigned char)(i * 7));
  }
}

PM_TEST(alignments, 0, 1, "posix_memalign and aligned_alloc: every power of two to 64 KiB; others fail") {
  void *block = NULL;
  for (size_t alignment = 8; alignment <= 65536; alignment *= 2) {
    for (size_t size = 0; size < 3000; size += 700) {
      CHECK_EQ(posix_memalign(&block, alignment, size), 0);
      CHECK(aligned(block, alignment));
      memset(block, 1, size);
      char *other = aligned_alloc(alignment, size);
      CHECK(other != NULL && aligned(other, alignment));
      if (size % 1400) free(block);
      free(other);
    }
  }
  CHECK_EQ(posix_memalign(&block, 3, 10), 22);
  CHECK_EQ(posix_memalign(&block, 0, 10), 22);
  CHECK_EQ(posix_memalign(&block, 4, 10), 22);
  CHECK_EQ(posix_memalign(&block, 64, SIZE_MAX - 10), 12);
}

PM_TEST(freed_twice, DIES_OF_INVALID_INSTRUCTION, 1, "free: a double free is caught") {
  char *block = malloc(100), *after = malloc(100);
  free(block);
  free(block);
  free(after);
}

/// A block and the byte it is filled with.
struct piece {
  unsigned char *bytes, tag;
  size_t size;
};

static void check_piece(const struct piece *piece) {
  for (size_t i = 0; i < piece->size; i += piece->size / 8 + 1) CHECK_EQ(piece->bytes[i], piece->tag);
  if (piece->size) CHECK_EQ(piece->bytes[piece->size - 1], piece->tag);
}

PM_TEST(stress, 0, 1, "malloc: 200,000 random steps, every block checked") {
  static struct piece pieces[1000];
  uint64_t state = 42;
  for (int step = 0; step < 200000; step++) {
    uint64_t random = next_random(&state);
    struct piece *piece = &pieces[random % 1000];
    size_t size = random >> 16 & (random >> 40 & 15 ? 0xff : random >> 44 & 15 ? 0xfff : 0x1ffff);
    if (!piece->bytes) {
      *piece = (struct piece){malloc(size), (unsigned char)random, size};
      if (!piece->bytes) continue;
      memset(piece->bytes, piece->tag, size);
      continue;
    }
    check_piece(piece);
    if (random >> 50 & 1) {
      free(piece->bytes);
      piece->bytes = NULL;
    } else {
      unsigned char *moved = realloc(piece->bytes, size);
      if (!moved) continue;
      *piece = (struct piece){moved, piece->tag, size < piece->size ? size : piece->size};
      check_piece(piece);
      piece->size = size;
      memset(moved, piece->tag, size);
    }
  }
  for (int i = 0; i < 1000; i++) free(pieces[i].bytes);
  CHECK(allocated_frames() < 1000);
}
