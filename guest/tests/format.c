// The library's text: printf's conversions, strings, numbers and sorting.
#include "test.h"

/// Checks that snprintf produces exactly that text, and returns its length.
#define CHECK_FORMAT(expected, ...)                                                                      \
  do {                                                                                                   \
    char text[600];                                                                                      \
    int length = snprintf(text, sizeof text, __VA_ARGS__);                                               \
    if (strcmp(text, expected)) printf("got '%s', not '%s'\n", text, expected);                          \
    CHECK(!strcmp(text, expected));                                                                      \
    CHECK_EQ(length, strlen(expected));                                                                  \
  } while (0)

PM_TEST(integers, 0, 1, "printf: integers of every length") {
  CHECK_FORMAT("0 1 -1 2147483647 -2147483648", "%d %d %i %d %d", 0, 1, -1, INT32_MAX, INT32_MIN);
  CHECK_FORMAT("4294967295 ffffffff FFFFFFFF 37777777777", "%u %x %X %o", ~0u, ~0u, ~0u, ~0u);
  CHECK_FORMAT("-9223372036854775808 18446744073709551615", "%ld %lu", INT64_MIN, UINT64_MAX);
  CHECK_FORMAT("-1 1 ffffffffffffffff 2", "%lld %llu %llx %zu", -1ll, 1ull, ~0ull, sizeof(short));
  CHECK_FORMAT("200 -56 -1 65535", "%hhu %hhd %hd %hu", 200, 200, 65535, 65535);
}

PM_TEST(flags, 0, 1, "printf: flags, width and precision of integers") {
  CHECK_FORMAT("[   42][42   ][00042][+42][ 42][-0042]", "[%5d][%-5d][%05d][%+d][% d][%05d]", 42, 42, 42, 42, 42, -42);
  CHECK_FORMAT("[0x2a][0X2A][052][0][0x0000002a]", "[%#x][%#X][%#o][%#x][%#010x]", 42u, 42u, 42u, 0u, 42u);
  CHECK_FORMAT("[00042][  042][042  ][]", "[%.5d][%5.3d][%-5.3d][%.0d]", 42, 42, 42, 0);
  CHECK_FORMAT("[   42][42   ][00042]", "[%*d][%-*d][%.*d]", 5, 42, 5, 42, 5, 42);
  CHECK_FORMAT("[42   ][42]", "[%*d][%.*d]", -5, 42, -5, 42);
}

PM_TEST(texts, 0, 1, "printf: strings, characters, pointers, percent") {
  CHECK_FORMAT("abc|  abc|abc  |ab|   ab|", "%s|%5s|%-5s|%.2s|%5.2s|", "abc", "abc", "abc", "abc", "abc");
  CHECK_FORMAT("x|    x|x    |%|100%", "%c|%5c|%-5c|%%|%d%%", 'x', 'x', 'x', 100);
  CHECK_FORMAT("0x1234 (null)", "%p %s", (void *)0x1234, (char *)NULL);
}

PM_TEST(floats, 0, 1, "printf: floating point, exact and rounded to even") {
  CHECK_FORMAT("0.000000 1.500000 -2.250000", "%f %f %f", 0.0, 1.5, -2.25);
  CHECK_FORMAT("0 2 2 4 1e+00", "%.0f %.0f %.0f %.0f %.0e", 0.5, 1.5, 2.5, 3.5, 1.0);
  CHECK_FORMAT("0.1000000000000000055511151231257827", "%.34f", 0.1);
  CHECK_FORMAT("1000000000000000000000.00 9.99e+02", "%.2f %.2e", 1e21, 999.0);
  CHECK_FORMAT("0.001 1e-05 100000 1e+06 3.14159", "%g %g %g %g %g", 0.001, 0.00001, 1e5, 1e6, 3.14159265);
  double infinity = __builtin_inf();
  CHECK_FORMAT("inf -inf nan INF", "%f %f %g %F", infinity, -infinity, __builtin_nan(""), infinity);
  CHECK_FORMAT("[   3.14][3.14   ][0003.14][+3.14]", "[%7.2f][%-7.2f][%07.2f][%+.2f]", 3.14, 3.14, 3.14, 3.14);
  CHECK_FORMAT("1.7976931348623157e+308 5e-324", "%.17g %.1g", 1.7976931348623157e308, 4.9406564584124654e-324);
}

PM_TEST(cut, 0, 1, "snprintf: truncated to the size with a terminating null; returns the whole length") {
  char text[8] = "xxxxxxx";
  CHECK_EQ(snprintf(text, 5, "%s", "hello, world"), 12);
  CHECK(!strcmp(text, "hell") && text[5] == 'x');
  CHECK_EQ(snprintf(text, 1, "%d", 42), 2);
  CHECK(!*text);
  CHECK_EQ(snprintf(NULL, 0, "%d", 42), 2);
}

PM_TEST(output, 0, 1, "printf and puts: long lines, no newline at the end, and their results") {
  CHECK_EQ(printf("%d%s\n", 42, "x"), 4);
  CHECK_EQ(puts("a line"), 0);
  CHECK_EQ(putchar('\n'), '\n');
  for (int i = 0; i < 300; i++) CHECK_EQ(printf("%010d", i), 10);
  printf(" the end, with no newline");
}

PM_TEST(bytes, 0, 1, "memcpy, memmove, memset, memcmp, memchr: every size and overlap to 300") {
  static unsigned char from[700], to[700];
  for (size_t i = 0; i < 700; i++) from[i] = (unsigned char)(i * 31 + 1);
  for (size_t size = 0; size < 300; size++) {
    memset(to, 0xee, 700);
    CHECK(memcpy(to + 5, from + 3, size) == to + 5);
    CHECK(!memcmp(to + 5, from + 3, size) && to[4] == 0xee && to[5 + size] == 0xee);
    for (size_t shift = 0; shift < 20; shift++) {
      memcpy(to, from, 700);
      memmove(to + shift, to, size);
      CHECK(!memcmp(to + shift, from, size));
      memcpy(to, from, 700);
      memmove(to, to + shift, size);
      CHECK(!memcmp(to, from + shift, size));
    }
  }
  CHECK(memcmp("abc", "abd", 3) < 0 && memcmp("\xff", "\x01", 1) > 0 && memcmp("a", "b", 0) == 0);
  CHECK(memchr("hello", 'l', 5) && !memchr("hello", 'l', 2) && !memchr("hello", 'x', 5));
}

PM_TEST(strings, 0, 1, "The string functions") {
  char text[20];
  CHECK(strlen("") == 0 && strlen("four") == 4 && strnlen("four", 2) == 2);
  CHECK(strcmp("a", "b") < 0 && strcmp("b", "a") > 0 && !strcmp("same", "same") && strcmp("ab", "a") > 0);
  CHECK(strcmp("\xff", "a") > 0 && !strncmp("abcd", "abxy", 2) && strncmp("abcd", "abxy", 3) < 0);
  CHECK(!strcmp(strcat(strcpy(text, "one"), " two"), "one two"));
  memset(text, 'x', sizeof text);
  CHECK(!memcmp(strncpy(text, "ab", 5), "ab\0\0\0x", 6));
  const char *path = "a/b/c";
  CHECK(strchr(path, '/') == path + 1 && strrchr(path, '/') == path + 3 && !strchr(path, 'x'));
  CHECK(*strchr(path, 0) == 0 && strrchr(path, 0) == path + 5);
  CHECK(strstr(path, "b/") == path + 2 && strstr(path, "") == path && !strstr(path, "bc"));
}

PM_TEST(numbers, 0, 1, "strtol, strtoul, strtoull, atoi: bases, signs, ends and limits") {
  char *end;
  CHECK_EQ(strtoul("  123abc", &end, 10), 123);
  CHECK(!strcmp(end, "abc"));
  CHECK(strtoull("0x1fG", &end, 0) == 31 && *end == 'G');
  CHECK(strtoull("017", NULL, 0) == 15 && strtoull("zz", NULL, 36) == 35 * 37 && strtoull("0x10", NULL, 16) == 16);
  CHECK(strtoull("18446744073709551615", NULL, 10) == UINT64_MAX);
  CHECK(strtoull("99999999999999999999999", &end, 10) == UINT64_MAX && !*end);
  CHECK(strtol("-42", NULL, 10) == -42 && strtol("-99999999999999999999", NULL, 10) == INT64_MIN);
  CHECK(strtol("99999999999999999999", NULL, 10) == INT64_MAX && atoi("-7x") == -7 && atoi("none") == 0);
  const char *nothing = "  xyz";
  CHECK(strtoul(nothing, &end, 10) == 0 && end == nothing);
}

static int compare(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return a < b ? -1 : a > b;
}

PM_TEST(sorting, 0, 1, "qsort: any number of elements in order") {
  static uint64_t values[1000];
  uint64_t state = 3;
  for (size_t count = 0; count <= 1000; count = count * 2 + 1) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += values[i] = next_random(&state) % 500;
    qsort(values, count, sizeof *values, compare);
    for (size_t i = 0; i < count; i++) sum -= values[i];
    CHECK_EQ(sum, 0);
    for (size_t i = 1; i < count; i++) CHECK(values[i - 1] <= values[i]);
  }
}
