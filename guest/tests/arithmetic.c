// Functions that the compiler calls implicitly, and mathematics: programs that use them link, and the results are
// right. Operands pass through `opaque`, so the compiler cannot compute the results.
#include <math.h>

#include "test.h"

#define opaque(value)                   \
  ({                                    \
    volatile typeof(value) held = (value); \
    held;                               \
  })

/// Checks that two doubles are equal, with the same sign.
#define CHECK_DOUBLE(left, right)                      \
  ({                                                   \
    double l = (left), r = (right);                    \
    uint64_t l_bits, r_bits;                           \
    memcpy(&l_bits, &l, 8);                            \
    memcpy(&r_bits, &r, 8);                            \
    if (!(isnan(l) && isnan(r))) CHECK_EQ(l_bits, r_bits); \
  })

typedef unsigned __int128 wide_t;
typedef __int128 signed_wide_t;

static wide_t wide(uint64_t high, uint64_t low) { return opaque((wide_t)high << 64 | low); }

PM_TEST(division, 0, 1, "128-bit numbers: products, quotients and remainders") {
  uint64_t state = 1;
  for (int i = 0; i < 1000; i++) {
    wide_t divisor = wide(next_random(&state) >> (i % 64), next_random(&state) | 1);
    wide_t quotient = wide(0, next_random(&state) >> (63 - i % 64));
    if (i % 64 > 60) divisor = (uint64_t)divisor;
    wide_t rest = wide(next_random(&state), next_random(&state)) % divisor, product;
    if (__builtin_mul_overflow(divisor, quotient, &product) || __builtin_add_overflow(product, rest, &product)) continue;
    CHECK(rest < divisor);
    CHECK(product / divisor == quotient);
    CHECK(product % divisor == rest);
  }
  signed_wide_t negative = -(signed_wide_t)wide(1, 5);
  CHECK(negative / opaque(7) == -(signed_wide_t)(wide(1, 5) / opaque(7u)));
  CHECK(negative % opaque(7) == -(signed_wide_t)(wide(1, 5) % opaque(7u)));
  signed_wide_t product;
  CHECK(__builtin_mul_overflow(negative, (signed_wide_t)wide(1ull << 62, 0), &product));
}

PM_TEST(conversions, 0, 1, "128-bit numbers, half precision and powers: conversions and calls of the compiler") {
  CHECK_DOUBLE((double)wide(1, 0), 0x1p64);
  CHECK_DOUBLE((double)(signed_wide_t)-wide(1, 0), -0x1p64);
  CHECK_DOUBLE((float)wide(1, 0), 0x1p64);
  CHECK((wide_t)opaque(0x1.8p100) == (wide_t)3 << 99);
  CHECK((signed_wide_t)opaque(-0x1.8p100) == -((signed_wide_t)3 << 99));
  CHECK((wide_t)opaque(0x1.8p100L) == (wide_t)3 << 99);
  CHECK_DOUBLE((double)(_Float16)opaque(1.5), 1.5);
  CHECK_DOUBLE((double)(_Float16)opaque(1e6), INFINITY);
  CHECK_DOUBLE(__builtin_powi(opaque(1.5), opaque(3)), 3.375);
  CHECK_EQ(__builtin_popcountg(wide(3, 1)), 3);
  _Complex double number = opaque(3.0) + opaque(4.0) * 1.0i;
  number = number * number / number;
  CHECK_DOUBLE(__builtin_creal(number), 3);
  CHECK_DOUBLE(__builtin_cimag(number), 4);
}

PM_TEST(rounding, 0, 1,
        "mathematics: rounding to whole numbers, halves, the sign of zero, and values without fractions") {
  static const struct {
    double value, down, up, cut, away, even;
  } rows[] = {
      {0.5, 0, 1, 0, 1, 0},        {-0.5, -1, -0.0, -0.0, -1, -0.0}, {1.5, 1, 2, 1, 2, 2},
      {2.5, 2, 3, 2, 3, 2},        {-2.5, -3, -2, -2, -3, -2},       {-0.0, -0.0, -0.0, -0.0, -0.0, -0.0},
      {0x1p52, 0x1p52, 0x1p52, 0x1p52, 0x1p52, 0x1p52},
      {0x1.fffffffffffffp-2, 0, 1, 0, 0, 0},
      {0x1.fffffffffffffp51, 0x1p52 - 1, 0x1p52, 0x1p52 - 1, 0x1p52, 0x1p52},
      {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
      {NAN, NAN, NAN, NAN, NAN, NAN},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    double value = opaque(rows[i].value);
    CHECK_DOUBLE(floor(value), rows[i].down);
    CHECK_DOUBLE(ceil(value), rows[i].up);
    CHECK_DOUBLE(trunc(value), rows[i].cut);
    CHECK_DOUBLE(round(value), rows[i].away);
    CHECK_DOUBLE(roundeven(value), rows[i].even);
    CHECK_DOUBLE(rint(value), rows[i].even);
    CHECK_DOUBLE(nearbyint(value), rows[i].even);
    if ((double)(float)value != value) continue;
    CHECK_DOUBLE(floorf((float)value), rows[i].down);
    CHECK_DOUBLE(ceilf((float)value), rows[i].up);
    CHECK_DOUBLE(truncf((float)value), rows[i].cut);
    CHECK_DOUBLE(roundf((float)value), rows[i].away);
    CHECK_DOUBLE(roundevenf((float)value), rows[i].even);
    CHECK_DOUBLE(rintf((float)value), rows[i].even);
    CHECK_DOUBLE(nearbyintf((float)value), rows[i].even);
  }
}

PM_TEST(remainders, 0, 1, "mathematics: remainders, roots, and fused multiply-add, exact or rounded once") {
  CHECK_DOUBLE(fmod(opaque(5.5), 2), 1.5);
  CHECK_DOUBLE(fmod(opaque(-6.0), 2), -0.0);
  CHECK_DOUBLE(fmod(opaque(0x1p1000), 3), 1);
  CHECK_DOUBLE(fmod(opaque(1.0), INFINITY), 1);
  CHECK_DOUBLE(fmod(opaque(1.0), 0), NAN);
  CHECK_DOUBLE(remainder(opaque(5.5), 2), -0.5);
  CHECK_DOUBLE(remainder(opaque(5.0), 2), 1);
  CHECK_DOUBLE(fmodf(opaque(5.5f), 2), 1.5);
  CHECK_DOUBLE(remainderf(opaque(7.0f), 4), -1);
  CHECK_DOUBLE(sqrt(opaque(2.0)), 0x1.6a09e667f3bcdp+0);
  CHECK_DOUBLE(sqrtf(opaque(2.0f)), 0x1.6a09e6p+0f);
  // Two roundings would make the first 0, and lose the last digit of the third.
  CHECK_DOUBLE(fma(opaque(0x1.0000000000001p0), 0x1.0000000000001p0, -0x1.0000000000002p0), 0x1p-104);
  CHECK_DOUBLE(fma(opaque(0x1p600), 0x1p600, -INFINITY), -INFINITY);
  CHECK_DOUBLE(fma(opaque(0x1.0000000000001p0), 0x1.8p0, 0x1p-1074), 0x1.8000000000002p0);
  CHECK_DOUBLE(fma(opaque(0x1p-600), 0x1p-474, 0x1p-1074), 0x1p-1073);
  CHECK_DOUBLE(fmaf(opaque(0x1.000002p0f), 0x1.000002p0f, -0x1.000004p0f), 0x1p-46);
  CHECK_DOUBLE(ldexp(opaque(1.5), -1074), 0x1p-1073);
  CHECK_DOUBLE(ldexp(opaque(1.5), 5000), INFINITY);
  CHECK_DOUBLE(fmax(opaque(1.0), NAN), 1);
  CHECK_DOUBLE(fmin(opaque(1.0), 2), 1);
}

static void check_number(const char *text, double value, size_t length) {
  char *end;
  CHECK_DOUBLE(strtod(text, &end), value);
  CHECK_EQ(end - text, length);
}

PM_TEST(from_text, 0, 1,
        "strtod: decimal and hexadecimal, the ends of the range, halves, and text that is not a number") {
  check_number("1.5", 1.5, 3);
  check_number("  -.5e1x", -5, 7);
  check_number("1e", 1, 1);
  check_number("1e400", INFINITY, 5);
  check_number("-1e-400", -0.0, 7);
  check_number("4.9406564584124654e-324", 0x1p-1074, 23);
  check_number("1.7976931348623157e308", 0x1.fffffffffffffp1023, 22);
  // Half way between two doubles, and slightly more.
  check_number("9007199254740993", 0x1p53, 16);
  check_number("9007199254740993.00000000000000000000000000000000000001", 0x1p53 + 2, 55);
  check_number("0x1.8p-1075", 0x1p-1074, 11);
  check_number("infinity", INFINITY, 8);
  check_number("nan", NAN, 3);
  check_number("0x", 0, 1);
  check_number("", 0, 0);
  check_number("-", 0, 0);
  check_number(".", 0, 0);
  CHECK_DOUBLE(strtof("16777217", NULL), 0x1p24);
  CHECK_DOUBLE(strtof("1e39", NULL), INFINITY);
}

PM_TEST(round_trip, 0, 1, "strtod reads back every double that printf writes with 17 digits") {
  uint64_t state = 1;
  for (int i = 0; i < 300; i++) {
    uint64_t bits = next_random(&state);
    double value;
    memcpy(&value, &bits, 8);
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    CHECK_DOUBLE(strtod(text, NULL), value);
  }
}

PM_TEST(whole_from_text, 0, 1, "strtoul: a negative number wraps, one out of range does not") {
  CHECK_EQ(strtoul("-1", NULL, 10), UINT64_MAX);
  CHECK_EQ(strtoul("-18446744073709551615", NULL, 10), 1);
  CHECK_EQ(strtoul("18446744073709551615", NULL, 0), UINT64_MAX);
  CHECK_EQ(strtoul("18446744073709551616", NULL, 0), UINT64_MAX);
  CHECK_EQ(strtoul("-18446744073709551616", NULL, 0), UINT64_MAX);
  CHECK_EQ(strtol("-9223372036854775808", NULL, 10), INT64_MIN);
  CHECK_EQ(strtol("-18446744073709551615", NULL, 10), INT64_MIN);
}
