// Bytes and strings. The compiler emits calls to the first four, so no file here may be built with builtins.
#include <physmem.h>

// Below this the start-up cost of the microcode exceeds that of a loop.
#define REP_THRESHOLD 128

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  char *out = to;
  const char *in = from;
  if (size >= REP_THRESHOLD) {
    __asm__ volatile("rep movsb" : "+D"(out), "+S"(in), "+c"(size)::"memory");
    return to;
  }
  for (; size >= 8; size -= 8, out += 8, in += 8) __builtin_memcpy_inline(out, in, 8);
  while (size--) *out++ = *in++;
  return to;
}

void *memmove(void *to, const void *from, size_t size) {
  char *out = to;
  const char *in = from;
  if ((uintptr_t)out - (uintptr_t)in >= size) return memcpy(to, from, size);
  for (; size >= 8; size -= 8) {
    uint64_t word;
    __builtin_memcpy_inline(&word, in + size - 8, 8);
    __builtin_memcpy_inline(out + size - 8, &word, 8);
  }
  while (size--) out[size] = in[size];
  return to;
}

void *memset(void *to, int byte, size_t size) {
  char *out = to;
  if (size >= REP_THRESHOLD) {
    __asm__ volatile("rep stosb" : "+D"(out), "+c"(size) : "a"(byte) : "memory");
    return to;
  }
  uint64_t word = 0x0101010101010101u * (uint8_t)byte;
  for (; size >= 8; size -= 8, out += 8) __builtin_memcpy_inline(out, &word, 8);
  while (size--) *out++ = (char)byte;
  return to;
}

int memcmp(const void *left, const void *right, size_t size) {
  const uint8_t *a = left, *b = right;
  for (; size; size--, a++, b++)
    if (*a != *b) return *a - *b;
  return 0;
}

/// The compiler may call it where only equality matters.
int bcmp(const void *left, const void *right, size_t size) { return memcmp(left, right, size); }

void *memchr(const void *from, int byte, size_t size) {
  const uint8_t *at = from;
  for (; size; size--, at++)
    if (*at == (uint8_t)byte) return (void *)(uintptr_t)at;
  return NULL;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

size_t strnlen(const char *text, size_t limit) {
  size_t length = 0;
  while (length < limit && text[length]) length++;
  return length;
}

int strncmp(const char *left, const char *right, size_t limit) {
  for (; limit; limit--, left++, right++)
    if (*left != *right || !*left) return (uint8_t)*left - (uint8_t)*right;
  return 0;
}

int strcmp(const char *left, const char *right) { return strncmp(left, right, SIZE_MAX); }

char *strcpy(char *restrict to, const char *restrict from) { return memcpy(to, from, strlen(from) + 1); }

char *strncpy(char *restrict to, const char *restrict from, size_t size) {
  size_t length = strnlen(from, size);
  memcpy(to, from, length);
  memset(to + length, 0, size - length);
  return to;
}

char *strcat(char *restrict to, const char *restrict from) {
  strcpy(to + strlen(to), from);
  return to;
}

char *strchr(const char *text, int character) { return memchr(text, character, strlen(text) + 1); }

char *strrchr(const char *text, int character) {
  for (size_t at = strlen(text) + 1; at-- > 0;)
    if (text[at] == (char)character) return (char *)(uintptr_t)(text + at);
  return NULL;
}

char *strstr(const char *text, const char *part) {
  size_t length = strlen(part);
  for (;; text++) {
    if (!strncmp(text, part, length)) return (char *)(uintptr_t)text;
    if (!*text) return NULL;
  }
}
