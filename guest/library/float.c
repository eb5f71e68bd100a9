// Floating-point numbers in decimal, exactly: the number is laid out in base 10^9, where doubling and halving
// lose nothing, and rounded once at the digit that is asked for.
#include <physmem.h>

#include "library.h"

#define LIMB 1000000000u
#define LIMB_DIGITS 9
// 2^1024 has 309 decimal digits, and 2^-1074 ends 1074 digits after the point.
#define WHOLE_LIMBS 35
#define FRACTION_LIMBS 120
#define LIMBS (WHOLE_LIMBS + FRACTION_LIMBS)
#define WHOLE_DIGITS (WHOLE_LIMBS * LIMB_DIGITS)
#define DIGITS (LIMBS * LIMB_DIGITS)
#define MAX_PRECISION 100

/// Decimal digits of a number, most significant first; the point comes after WHOLE_DIGITS of them.
struct decimal {
  char digit[DIGITS];
  int first;  // the first digit that is not 0; WHOLE_DIGITS - 1 for the number 0
};

static void shift_left(uint32_t *limbs, int bits) {
  uint64_t carry = 0;
  for (int i = LIMBS - 1; i >= 0; i--) {
    uint64_t value = ((uint64_t)limbs[i] << bits) + carry;
    limbs[i] = (uint32_t)(value % LIMB);
    carry = value / LIMB;
  }
}

/// `bits` is at most 9: 10^9 is a multiple of 2^9, so what leaves one limb is a whole part of the next.
static void shift_right(uint32_t *limbs, int bits) {
  uint32_t carry = 0, mask = (1u << bits) - 1;
  for (int i = 0; i < LIMBS; i++) {
    uint32_t rest = limbs[i] & mask;
    limbs[i] = (limbs[i] >> bits) + carry;
    carry = (LIMB >> bits) * rest;
  }
}

static void expand(struct decimal *decimal, double value) {
  uint32_t limbs[LIMBS] = {0};
  uint64_t bits, mantissa;
  memcpy(&bits, &value, sizeof bits);
  int exponent = (int)(bits >> 52 & 0x7ff);
  mantissa = (bits & ((1ull << 52) - 1)) | (exponent ? 1ull << 52 : 0);
  exponent = (exponent ? exponent : 1) - 1075;
  limbs[WHOLE_LIMBS - 1] = (uint32_t)(mantissa % LIMB);
  limbs[WHOLE_LIMBS - 2] = (uint32_t)(mantissa / LIMB);
  for (; exponent >= 29; exponent -= 29) shift_left(limbs, 29);
  if (exponent > 0) shift_left(limbs, exponent);
  for (; exponent <= -9; exponent += 9) shift_right(limbs, 9);
  if (exponent < 0) shift_right(limbs, -exponent);
  for (int i = 0; i < LIMBS; i++)
    for (int j = LIMB_DIGITS - 1; j >= 0; j--, limbs[i] /= 10)
      decimal->digit[i * LIMB_DIGITS + j] = (char)(limbs[i] % 10);
  decimal->first = 0;
  while (decimal->first < DIGITS && !decimal->digit[decimal->first]) decimal->first++;
  if (decimal->first == DIGITS) decimal->first = WHOLE_DIGITS - 1;
}

/// Rounds to the digits before `end`, half to even.
static void round_at(struct decimal *decimal, int end) {
  if (end >= DIGITS) return;
  if (end < 1) end = 1;  // the number has fewer digits than fit, so nothing that counts lies there
  bool tail = false;
  for (int i = end + 1; i < DIGITS && !tail; i++) tail = decimal->digit[i] != 0;
  bool up = decimal->digit[end] > 5 || (decimal->digit[end] == 5 && (tail || decimal->digit[end - 1] % 2));
  memset(decimal->digit + end, 0, (size_t)(DIGITS - end));
  int at = end - 1;
  for (; up && at >= 0; at--) {
    up = decimal->digit[at] == 9;
    decimal->digit[at] = up ? 0 : decimal->digit[at] + 1;
  }
  if (at + 1 < decimal->first) decimal->first = at + 1;
}

/// Puts `count` digits at `text`, from the one at `from` on; those beyond the last are 0.
static char *put_digits(char *text, const struct decimal *decimal, int from, int count) {
  for (int i = from; i < from + count; i++) *text++ = (char)('0' + (i < DIGITS ? decimal->digit[i] : 0));
  return text;
}

static char *put_fixed(char *text, struct decimal *decimal, int precision, int point) {
  int first = decimal->first < WHOLE_DIGITS ? decimal->first : WHOLE_DIGITS - 1;
  text = put_digits(text, decimal, first, WHOLE_DIGITS - first);
  if (precision || point) *text++ = '.';
  return put_digits(text, decimal, WHOLE_DIGITS, precision);
}

static char *put_scientific(char *text, struct decimal *decimal, int precision, int point, char letter) {
  int exponent = WHOLE_DIGITS - 1 - decimal->first;
  text = put_digits(text, decimal, decimal->first, 1);
  if (precision || point) *text++ = '.';
  text = put_digits(text, decimal, decimal->first + 1, precision);
  *text++ = letter;
  *text++ = exponent < 0 ? '-' : '+';
  if (exponent < 0) exponent = -exponent;
  if (exponent >= 100) *text++ = (char)('0' + exponent / 100);
  *text++ = (char)('0' + exponent / 10 % 10);
  *text++ = (char)('0' + exponent % 10);
  return text;
}

/// `precision` significant digits, in whichever form is shorter, without closing zeros unless `alternative`.
static char *put_shorter(char *text, struct decimal *decimal, int precision, int alternative, char letter) {
  if (precision == 0) precision = 1;
  round_at(decimal, decimal->first + precision);
  int exponent = WHOLE_DIGITS - 1 - decimal->first;
  int last = decimal->first + precision;
  if (!alternative)
    while (last > decimal->first + 1 && !(last - 1 < DIGITS && decimal->digit[last - 1])) last--;
  if (exponent < -4 || exponent >= precision)
    return put_scientific(text, decimal, last - decimal->first - 1, alternative, letter);
  return put_fixed(text, decimal, last > WHOLE_DIGITS ? last - WHOLE_DIGITS : 0, alternative);
}

size_t pm_format_float(char *text, double value, char conversion, int precision, int alternative) {
  bool capital = conversion < 'a';
  if (!__builtin_isfinite(value)) {
    memcpy(text, __builtin_isnan(value) ? (capital ? "NAN" : "nan") : (capital ? "INF" : "inf"), 3);
    return 3;
  }
  if (precision < 0) precision = 6;
  if (precision > MAX_PRECISION) precision = MAX_PRECISION;
  struct decimal decimal;
  expand(&decimal, value);
  char letter = capital ? 'E' : 'e', *end;
  switch (conversion | 0x20) {
    case 'f':
      round_at(&decimal, WHOLE_DIGITS + precision);
      end = put_fixed(text, &decimal, precision, alternative);
      break;
    case 'e':
      round_at(&decimal, decimal.first + 1 + precision);
      end = put_scientific(text, &decimal, precision, alternative, letter);
      break;
    default: end = put_shorter(text, &decimal, precision, alternative, letter); break;
  }
  return (size_t)(end - text);
}
