// Numbers from text, sorting, and random bytes.
#include <physmem.h>

static int digit_value(char character) {
  if (character >= '0' && character <= '9') return character - '0';
  character |= 0x20;
  return character >= 'a' && character <= 'z' ? character - 'a' + 10 : 99;
}

struct number {
  /// Saturates at UINT64_MAX.
  uint64_t magnitude;
  bool negative, overflows;
};

static struct number parse(const char *text, char **end, int base) {
  const char *start = text;
  while (*text == ' ' || (*text >= '\t' && *text <= '\r')) text++;
  struct number number = {.negative = *text == '-'};
  if (*text == '-' || *text == '+') text++;

  bool hex = text[0] == '0' && (text[1] | 0x20) == 'x' && digit_value(text[2]) < 16;
  if (hex && (base == 0 || base == 16)) text += 2, base = 16;
  if (base == 0) base = *text == '0' ? 8 : 10;

  uint64_t value = 0;
  const char *first = text;
  for (; digit_value(*text) < base; text++)
    number.overflows = number.overflows || __builtin_mul_overflow(value, base, &value) ||
                       __builtin_add_overflow(value, digit_value(*text), &value);
  number.magnitude = number.overflows ? UINT64_MAX : value;
  if (end) *end = (char *)(uintptr_t)(text == first ? start : text);
  return number;
}

unsigned long long strtoull(const char *text, char **end, int base) {
  struct number number = parse(text, end, base);
  return number.negative && !number.overflows ? -number.magnitude : number.magnitude;
}

unsigned long strtoul(const char *text, char **end, int base) { return strtoull(text, end, base); }

long strtol(const char *text, char **end, int base) {
  struct number number = parse(text, end, base);
  uint64_t value = number.magnitude;
  if (number.negative) return value > INT64_MAX ? INT64_MIN : -(long)value;
  return value > INT64_MAX ? INT64_MAX : (long)value;
}

int atoi(const char *text) { return (int)strtol(text, NULL, 10); }

// ---- sorting -------------------------------------------------------------------

static void swap(char *left, char *right, size_t size) {
  while (size--) {
    char byte = *left;
    *left++ = *right;
    *right++ = byte;
  }
}

static void sift_down(char *base, size_t root, size_t count, size_t size, int (*compare)(const void *, const void *)) {
  for (size_t child; (child = 2 * root + 1) < count; root = child) {
    if (child + 1 < count && compare(base + child * size, base + (child + 1) * size) < 0) child++;
    if (compare(base + root * size, base + child * size) >= 0) return;
    swap(base + root * size, base + child * size, size);
  }
}

// Heap sort: in place and never quadratic.
void qsort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *)) {
  for (size_t root = count / 2; root-- > 0;) sift_down(base, root, count, size, compare);
  for (size_t end = count; end-- > 1;) {
    swap(base, (char *)base + end * size, size);
    sift_down(base, 0, end, size, compare);
  }
}

// ---- random bytes ----------------------------------------------------------------------

void arc4random_buf(void *buffer, size_t size) {
  static uint64_t state;
  for (uint8_t *out = buffer; size--; out++) {
    state += __builtin_ia32_rdtsc() | 1;
    uint64_t mixed = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    *out = (uint8_t)(mixed >> 40);
  }
}
