// Rounding, remainders and roots: <math.h>. The tasks' processors may lack SSE 4.1 and FMA.
#include <math.h>
#include <stdint.h>

#include "library.h"

// ---- whole numbers -----------------------------------------------------------------

/// From 2^52 on every double is whole; infinities and NaN count as whole too.
static bool is_whole(double value) { return !(value > -0x1p52 && value < 0x1p52); }

double trunc(double value) {
  return is_whole(value) ? value : __builtin_copysign((double)(int64_t)value, value);
}

double floor(double value) {
  double whole = trunc(value);
  return whole > value ? whole - 1 : whole;
}

double ceil(double value) {
  double whole = trunc(value);
  // -0.5 becomes -0, and so does -1 + 1.
  return whole < value ? __builtin_copysign(whole + 1, value) : whole;
}

double round(double value) {
  double whole = trunc(value);
  // Exact: both are multiples of the value's last place.
  double rest = __builtin_fabs(value - whole);
  return rest >= 0.5 ? whole + __builtin_copysign(1, value) : whole;
}

double roundeven(double value) {
  if (is_whole(value)) return value;
  double whole = trunc(value);
  double rest = __builtin_fabs(value - whole);
  bool up = rest > 0.5 || (rest == 0.5 && (int64_t)whole % 2);
  return up ? whole + __builtin_copysign(1, value) : whole;
}

double rint(double value) { return roundeven(value); }
double nearbyint(double value) { return roundeven(value); }

// A float is exact as a double, and for a float these functions' results are floats.
float truncf(float value) { return (float)trunc(value); }
float floorf(float value) { return (float)floor(value); }
float ceilf(float value) { return (float)ceil(value); }
float roundf(float value) { return (float)round(value); }
float roundevenf(float value) { return (float)roundeven(value); }
float rintf(float value) { return (float)roundeven(value); }
float nearbyintf(float value) { return (float)roundeven(value); }

// ---- remainders and roots ------------------------------------------------------------

/// The processor takes off a few bits of the quotient at a time, exactly, and sets C2 while bits are left.
#define PARTIAL_REMAINDER(instruction, value, divisor)                                                  \
  ({                                                                                                    \
    long double rest = (value), by = (divisor);                                                         \
    uint16_t status;                                                                                    \
    do __asm__(instruction "\n\tfnstsw %w1" : "+t"(rest), "=a"(status) : "u"(by)); while (status & 0x400); \
    (double)rest;                                                                                       \
  })

double fmod(double value, double divisor) { return PARTIAL_REMAINDER("fprem", value, divisor); }
double remainder(double value, double divisor) { return PARTIAL_REMAINDER("fprem1", value, divisor); }
float fmodf(float value, float divisor) { return (float)fmod(value, divisor); }
float remainderf(float value, float divisor) { return (float)remainder(value, divisor); }

double sqrt(double value) {
  __asm__("sqrtsd %0, %0" : "+x"(value));
  return value;
}

float sqrtf(float value) {
  __asm__("sqrtss %0, %0" : "+x"(value));
  return value;
}

// ---- parts of numbers ------------------------------------------------------------------

double fabs(double value) { return __builtin_fabs(value); }
float fabsf(float value) { return __builtin_fabsf(value); }
double copysign(double value, double sign) { return __builtin_copysign(value, sign); }
float copysignf(float value, float sign) { return __builtin_copysignf(value, sign); }

// If one argument is NaN the result is the other.
double fmin(double left, double right) { return left < right || right != right ? left : right; }
double fmax(double left, double right) { return left > right || right != right ? left : right; }
float fminf(float left, float right) { return left < right || right != right ? left : right; }
float fmaxf(float left, float right) { return left > right || right != right ? left : right; }

// ---- one rounding at the end -------------------------------------------------------------

/// The value is mantissa * 2^exponent.
struct parts {
  bool negative;
  uint64_t mantissa;
  int exponent;
};

static struct parts take_apart(double value) {
  uint64_t bits;
  __builtin_memcpy_inline(&bits, &value, 8);
  int exponent = (int)(bits >> 52 & 0x7ff);
  uint64_t fraction = bits & ((1ull << 52) - 1);
  return (struct parts){bits >> 63, exponent ? fraction | 1ull << 52 : fraction, (exponent ? exponent : 1) - 1075};
}

static int bit_length(unsigned __int128 value) {
  uint64_t high = (uint64_t)(value >> 64), low = (uint64_t)value;
  return high ? 128 - __builtin_clzll(high) : low ? 64 - __builtin_clzll(low) : 0;
}

static double power_of_two(int exponent) {
  uint64_t bits = (uint64_t)(exponent + 1023) << 52;
  double power;
  __builtin_memcpy_inline(&power, &bits, 8);
  return power;
}

double pm_round_float(unsigned __int128 mantissa, int exponent, bool rest, int digits, int least) {
  int excess = bit_length(mantissa) - digits;
  if (exponent + excess < least) excess = least - exponent;
  if (!mantissa || excess > 128) return 0;
  uint64_t kept = (uint64_t)mantissa;
  if (excess > 0) {
    unsigned __int128 half = (unsigned __int128)1 << (excess - 1), below = mantissa & (2 * half - 1);
    kept = excess == 128 ? 0 : (uint64_t)(mantissa >> excess);
    if (below > half || (below == half && (rest || kept % 2))) kept++;
    exponent += excess;
  }
  // The result has a double's digits, so scaling it in two steps loses none.
  if (exponent > 1100) exponent = 1100;
  return (double)kept * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
}

double ldexp(double value, int exponent) {
  if (value == 0 || !isfinite(value)) return value;
  struct parts parts = take_apart(value);
  // Far enough for any number to become 0 or infinite.
  exponent = exponent > 4096 ? 4096 : exponent < -4096 ? -4096 : exponent;
  return __builtin_copysign(pm_round_float(parts.mantissa, parts.exponent + exponent, false, 53, -1074), value);
}

double scalbn(double value, int exponent) { return ldexp(value, exponent); }
float ldexpf(float value, int exponent) {
  if (value == 0 || !isfinite(value)) return value;
  struct parts parts = take_apart(value);
  exponent = exponent > 4096 ? 4096 : exponent < -4096 ? -4096 : exponent;
  return (float)__builtin_copysign(pm_round_float(parts.mantissa, parts.exponent + exponent, false, 24, -149), value);
}
float scalbnf(float value, int exponent) { return ldexpf(value, exponent); }

/// A number whose first digit is bit 125, which leaves room for the sum of two.
struct wide {
  unsigned __int128 mantissa;
  int exponent;
  bool negative;
};

static struct wide widen(unsigned __int128 mantissa, int exponent, bool negative) {
  int shift = 126 - bit_length(mantissa);
  return (struct wide){mantissa << shift, exponent - shift, negative};
}

/// The sum of two numbers that are not 0. The product of two doubles has 106 digits, so the larger summand loses
/// none, and the smaller one only digits far below the result's last place.
static double add_wide(struct wide left, struct wide right, int digits, int least) {
  bool ordered = left.exponent != right.exponent ? left.exponent > right.exponent : left.mantissa >= right.mantissa;
  struct wide large = ordered ? left : right, small = ordered ? right : left;
  int distance = large.exponent - small.exponent;
  unsigned __int128 shifted = distance < 128 ? small.mantissa >> distance : 0;
  bool rest = distance >= 128 || shifted << distance != small.mantissa;
  unsigned __int128 sum =
      large.negative == small.negative ? large.mantissa + shifted : large.mantissa - shifted - rest;
  double result = pm_round_float(sum, large.exponent, rest, digits, least);
  return large.negative && sum ? -result : result;
}

static double multiply_and_add(double left, double right, double addend, int digits, int least) {
  struct parts l = take_apart(left), r = take_apart(right), a = take_apart(addend);
  return add_wide(
      widen((unsigned __int128)l.mantissa * r.mantissa, l.exponent + r.exponent, l.negative != r.negative),
      widen(a.mantissa, a.exponent, a.negative), digits, least);
}

static bool is_plain(double value) { return value != 0 && isfinite(value); }

double fma(double left, double right, double addend) {
  if (!is_plain(left) || !is_plain(right)) return left * right + addend;
  if (is_plain(addend)) return multiply_and_add(left, right, addend, 53, -1074);
  // Without an addend there is only one rounding; and a large product must not overflow beside an infinite addend.
  return addend == 0 ? left * right : addend;
}

float fmaf(float left, float right, float addend) {
  if (!is_plain(left) || !is_plain(right)) return left * right + addend;
  if (is_plain(addend)) return (float)multiply_and_add(left, right, addend, 24, -149);
  return addend == 0 ? left * right : addend;
}
