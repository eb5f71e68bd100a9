// Exact conversion of floating-point numbers to and from decimal text: the number is stored in base 10^9, where
// doubling and halving lose nothing, and rounded once at the digit that is asked for.
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

/// `bits` is at most 9: 10^9 is a multiple of 2^9, so the bits shifted out of one limb are a whole part of the next.
/// Returns whether bits were lost behind the last one.
static bool shift_right(uint32_t *limbs, int bits) {
  uint32_t carry = 0, mask = (1u << bits) - 1;
  for (int i = 0; i < LIMBS; i++) {
    uint32_t rest = limbs[i] & mask;
    limbs[i] = (limbs[i] >> bits) + carry;
    carry = (LIMB >> bits) * rest;
  }
  return carry != 0;
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
  if (end < 1) end = 1;  // the number has fewer digits than fit, so no significant digit is lost
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

/// Writes `count` digits to `text`, starting at `from`; those beyond the last are 0.
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

/// `precision` significant digits, in the shorter form, without trailing zeros unless `alternative`.
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

// ---- from text ---------------------------------------------------------------------

struct format {
  /// Binary digits, and the exponent of the last of them in the smallest number.
  int digits, least;
};

static const struct format format_of_double = {53, -1074}, format_of_float = {24, -149};

static bool is_space(char character) { return character == ' ' || (character >= '\t' && character <= '\r'); }

static int digit_of(char character, int base) {
  if (character >= '0' && character <= '9') return character - '0';
  character |= 0x20;
  return base == 16 && character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

static const char *skip_word(const char *text, const char *word) {
  for (; *word; text++, word++)
    if ((*text | 0x20) != *word) return NULL;
  return text;
}

/// "e-12" or "p-12", if present; saturates where every number would be infinite or 0.
static const char *read_exponent(const char *text, char letter, int *exponent) {
  if ((*text | 0x20) != letter) return text;
  const char *at = text + 1;
  bool negative = *at == '-';
  if (*at == '-' || *at == '+') at++;
  if (digit_of(*at, 10) < 0) return text;
  int value = 0;
  for (; digit_of(*at, 10) >= 0; at++)
    if (value < 100000000) value = value * 10 + digit_of(*at, 10);
  *exponent = negative ? -value : value;
  return at;
}

/// Digits with an optional point among them.
struct digits {
  const char *first, *end;
  /// The number of digits before the point, without leading zeros; below 0: zeros behind the point.
  long whole;
};

/// Returns false if there is no digit.
static bool find_digits(const char *text, int base, struct digits *digits) {
  bool any = false, point = false, significant = false;
  *digits = (struct digits){.first = text};
  for (;; text++) {
    if (*text == '.' && !point) {
      point = true;
      continue;
    }
    int digit = digit_of(*text, base);
    if (digit < 0) break;
    any = true;
    if (digit && !significant) digits->first = text, significant = true;
    if (significant ? !point : point) digits->whole += significant ? 1 : -1;
  }
  if (!significant) digits->first = text;
  // The point of "1." belongs to the number, that of "." does not.
  digits->end = text;
  return any;
}

/// The value of the limbs before the point, times 2^exponent; the limbs behind it only affect rounding.
static double round_limbs(uint32_t *limbs, bool rest, struct format format) {
  int exponent = 0, first = 0;
  while (first < WHOLE_LIMBS - 4 && !limbs[first]) first++;
  // 10^36 fits into the mantissa, and 10^18 has more digits than needed.
  for (; first < WHOLE_LIMBS - 4; exponent += 9) {
    rest |= shift_right(limbs, 9);
    while (first < WHOLE_LIMBS - 4 && !limbs[first]) first++;
  }
  for (; !limbs[WHOLE_LIMBS - 4] && !limbs[WHOLE_LIMBS - 3] && exponent > -1200; exponent -= 29) shift_left(limbs, 29);
  unsigned __int128 mantissa = 0;
  for (int i = WHOLE_LIMBS - 4; i < WHOLE_LIMBS; i++) mantissa = mantissa * LIMB + limbs[i];
  for (int i = WHOLE_LIMBS; i < LIMBS; i++) rest |= limbs[i] != 0;
  return pm_round_float(mantissa, exponent, rest, format.digits, format.least);
}

static double decimal_value(const struct digits *digits, long exponent, struct format format) {
  uint32_t limbs[LIMBS] = {0};
  long at = WHOLE_DIGITS - (digits->whole + exponent);
  if (digits->first == digits->end) return 0;
  if (at < 0) return __builtin_inf();
  bool rest = false;
  for (const char *text = digits->first; text < digits->end; text++) {
    if (*text == '.') continue;
    uint32_t digit = (uint32_t)digit_of(*text, 10);
    if (at < DIGITS) {
      for (int i = (int)(at % LIMB_DIGITS); i < LIMB_DIGITS - 1; i++) digit *= 10;
      limbs[at / LIMB_DIGITS] += digit;
    } else {
      // Too far behind the point to matter except for rounding.
      rest |= digit != 0;
    }
    at++;
  }
  return round_limbs(limbs, rest, format);
}

static double hexadecimal_value(const struct digits *digits, long exponent, struct format format) {
  unsigned __int128 mantissa = 0;
  bool rest = false;
  long dropped = 0, count = 0;
  for (const char *text = digits->first; text < digits->end; text++) {
    if (*text == '.') continue;
    int digit = digit_of(*text, 16);
    count++;
    if (mantissa >> 100) {
      dropped++;
      rest |= digit != 0;
    } else {
      mantissa = mantissa << 4 | (unsigned)digit;
    }
  }
  long power = exponent + 4 * (digits->whole - count + dropped);
  return pm_round_float(mantissa, power > 8192 ? 8192 : power < -8192 ? -8192 : (int)power, rest, format.digits,
                        format.least);
}

/// Reads the number after the sign; `*end` becomes null if there is none.
static double read_magnitude(const char *text, const char **end, struct format format) {
  if ((*end = skip_word(text, "infinity")) || (*end = skip_word(text, "inf"))) return __builtin_inf();
  if ((*end = skip_word(text, "nan"))) return __builtin_nan("");
  struct digits digits;
  int exponent = 0;
  if (text[0] == '0' && (text[1] | 0x20) == 'x' && find_digits(text + 2, 16, &digits)) {
    *end = read_exponent(digits.end, 'p', &exponent);
    return hexadecimal_value(&digits, exponent, format);
  }
  if (!find_digits(text, 10, &digits)) {
    *end = NULL;
    return 0;
  }
  *end = read_exponent(digits.end, 'e', &exponent);
  return decimal_value(&digits, exponent, format);
}

static double read_float(const char *text, char **end, struct format format) {
  const char *at = text, *behind;
  while (is_space(*at)) at++;
  bool negative = *at == '-';
  if (*at == '-' || *at == '+') at++;
  double value = read_magnitude(at, &behind, format);
  if (end) *end = (char *)(uintptr_t)(behind ? behind : text);
  return negative && behind ? -value : value;
}

double strtod(const char *text, char **end) { return read_float(text, end, format_of_double); }
float strtof(const char *text, char **end) { return (float)read_float(text, end, format_of_float); }
double atof(const char *text) { return strtod(text, NULL); }

// Swift's Double("1.5") and Float("1.5"): null if the text is not a number; blanks are not skipped.
const char *_swift_stdlib_strtod_clocale(const char *text, double *value) {
  char *end;
  *value = strtod(text, &end);
  return end == text || is_space(*text) ? NULL : end;
}

const char *_swift_stdlib_strtof_clocale(const char *text, float *value) {
  char *end;
  *value = strtof(text, &end);
  return end == text || is_space(*text) ? NULL : end;
}
