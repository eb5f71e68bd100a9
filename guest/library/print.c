// The printf family. Console text is buffered up to the end of the line, of the buffer or of the task, since a
// call to the server costs as much as formatting a page of text.
#include <physmem.h>

#include "library.h"

#define BUFFER_SIZE 1024

static char buffer[BUFFER_SIZE];
static size_t buffered;

void pm_flush(void) {
  size_t length = buffered;
  buffered = 0;
  if (length) (void)pm_write(buffer, length);
}

int putchar(int character) {
  buffer[buffered++] = (char)character;
  if (character == '\n' || buffered == BUFFER_SIZE) pm_flush();
  return (unsigned char)character;
}

int puts(const char *text) {
  while (*text) putchar(*text++);
  putchar('\n');
  return 0;
}

// ---- output of formatted text -----------------------------------------------

/// Memory of `size` bytes, or the console if `console` is set; `length` also counts text that does not fit.
struct output {
  char *text;
  size_t size, length;
  bool console;
};

static void emit(struct output *out, char character) {
  if (out->console)
    putchar(character);
  else if (out->length < out->size)
    out->text[out->length] = character;
  out->length++;
}

static void emit_repeated(struct output *out, char character, int count) {
  while (count-- > 0) emit(out, character);
}

// ---- one conversion ------------------------------------------------------------

struct conversion {
  bool left, plus, space, alternative, zero;
  int width, precision;  // precision -1: none was given
  char length;           // h, l, z, j, t; H for hh, L for ll
  char kind;
};

/// Writes `prefix` (sign or 0x) and `body`, padded to the width.
static void emit_field(struct output *out, const struct conversion *c, const char *prefix, const char *body,
                       size_t size, bool zeros_allowed) {
  size_t prefix_size = strlen(prefix);
  int padding = c->width - (int)(prefix_size + size);
  bool zeros = c->zero && !c->left && zeros_allowed;
  if (!c->left && !zeros) emit_repeated(out, ' ', padding);
  while (*prefix) emit(out, *prefix++);
  if (zeros) emit_repeated(out, '0', padding);
  while (size--) emit(out, *body++);
  if (c->left) emit_repeated(out, ' ', padding);
}

static const char *sign(const struct conversion *c, bool negative) {
  return negative ? "-" : c->plus ? "+" : c->space ? " " : "";
}

static unsigned base_of(char kind) {
  return kind == 'x' || kind == 'X' || kind == 'p' ? 16 : kind == 'o' ? 8 : 10;
}

static void format_integer(struct output *out, const struct conversion *c, uint64_t value, const char *prefix) {
  // No sensible precision is larger; cut it rather than reserve more stack.
  char digits[128];
  size_t at = sizeof digits;
  unsigned base = base_of(c->kind);
  const char *alphabet = c->kind == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
  size_t least = c->precision < 0 ? 1 : c->precision > 120 ? 120 : (size_t)c->precision;
  bool hex_prefix = c->kind == 'p' || (c->alternative && base == 16 && value);
  for (; value; value /= base) digits[--at] = alphabet[value % base];
  if (c->alternative && base == 8 && sizeof digits - at >= least) least = sizeof digits - at + 1;
  while (sizeof digits - at < least) digits[--at] = '0';
  if (hex_prefix) prefix = c->kind == 'X' ? "0X" : "0x";
  emit_field(out, c, prefix, digits + at, sizeof digits - at, c->precision < 0);
}

static void format_float(struct output *out, const struct conversion *c, double value) {
  char text[PM_FLOAT_TEXT];
  bool negative = __builtin_signbit(value);
  size_t size = pm_format_float(text, negative ? -value : value, c->kind, c->precision, c->alternative);
  emit_field(out, c, sign(c, negative), text, size, __builtin_isfinite(value));
}

static int64_t signed_argument(char length, va_list *arguments) {
  switch (length) {
    case 'H': return (signed char)va_arg(*arguments, int);
    case 'h': return (short)va_arg(*arguments, int);
    case 0: return va_arg(*arguments, int);
    default: return va_arg(*arguments, int64_t);
  }
}

static uint64_t unsigned_argument(char length, va_list *arguments) {
  switch (length) {
    case 'H': return (unsigned char)va_arg(*arguments, int);
    case 'h': return (unsigned short)va_arg(*arguments, int);
    case 0: return va_arg(*arguments, unsigned);
    default: return va_arg(*arguments, uint64_t);
  }
}

static void format_text(struct output *out, const struct conversion *c, const char *text) {
  if (!text) text = "(null)";
  size_t size = c->precision < 0 ? strlen(text) : strnlen(text, (size_t)c->precision);
  emit_field(out, c, "", text, size, false);
}

static void convert(struct output *out, const struct conversion *c, va_list *arguments) {
  switch (c->kind) {
    case 'd':
    case 'i': {
      int64_t value = signed_argument(c->length, arguments);
      format_integer(out, c, value < 0 ? -(uint64_t)value : (uint64_t)value, sign(c, value < 0));
      return;
    }
    case 'u':
    case 'x':
    case 'X':
    case 'o': format_integer(out, c, unsigned_argument(c->length, arguments), ""); return;
    case 'p': format_integer(out, c, (uintptr_t)va_arg(*arguments, void *), ""); return;
    case 'c': {
      char character = (char)va_arg(*arguments, int);
      emit_field(out, c, "", &character, 1, false);
      return;
    }
    case 's': format_text(out, c, va_arg(*arguments, const char *)); return;
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G': format_float(out, c, va_arg(*arguments, double)); return;
    case '%': emit(out, '%'); return;
    default: emit(out, '%'), emit(out, c->kind); return;
  }
}

// ---- the format ------------------------------------------------------------------

static const char *parse_flags(const char *format, struct conversion *c) {
  for (;; format++) switch (*format) {
      case '-': c->left = true; break;
      case '+': c->plus = true; break;
      case ' ': c->space = true; break;
      case '#': c->alternative = true; break;
      case '0': c->zero = true; break;
      default: return format;
    }
}

static const char *parse_number(const char *format, int *number, va_list *arguments) {
  if (*format == '*') {
    *number = va_arg(*arguments, int);
    return format + 1;
  }
  for (*number = 0; *format >= '0' && *format <= '9'; format++)
    if (*number < 100000) *number = *number * 10 + (*format - '0');
  return format;
}

static const char *parse_length(const char *format, struct conversion *c) {
  for (;; format++) switch (*format) {
      case 'h': c->length = c->length == 'h' ? 'H' : 'h'; break;
      case 'l':
      case 'z':
      case 'j':
      case 't': c->length = 'l'; break;
      default: return format;
    }
}

static const char *parse(const char *format, struct conversion *c, va_list *arguments) {
  *c = (struct conversion){.precision = -1};
  format = parse_number(parse_flags(format, c), &c->width, arguments);
  if (c->width < 0) c->left = true, c->width = -c->width;
  if (*format == '.') format = parse_number(format + 1, &c->precision, arguments);
  if (c->precision < 0) c->precision = -1;
  format = parse_length(format, c);
  c->kind = *format;
  return *format ? format + 1 : format;
}

static void print(struct output *out, const char *format, va_list list) {
  va_list arguments;
  va_copy(arguments, list);
  while (*format) {
    if (*format != '%') {
      emit(out, *format++);
      continue;
    }
    struct conversion c;
    format = parse(format + 1, &c, &arguments);
    if (c.kind) convert(out, &c, &arguments);
  }
  va_end(arguments);
}

int vprintf(const char *format, va_list arguments) {
  struct output out = {.console = true};
  print(&out, format, arguments);
  return (int)out.length;
}

int printf(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vprintf(format, arguments);
  va_end(arguments);
  return length;
}

int vsnprintf(char *text, size_t size, const char *format, va_list arguments) {
  struct output out = {.text = text, .size = size ? size - 1 : 0};
  print(&out, format, arguments);
  if (size) text[out.length < out.size ? out.length : out.size] = 0;
  return (int)out.length;
}

int snprintf(char *text, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, size, format, arguments);
  va_end(arguments);
  return length;
}

void pm_assert_failed(const char *condition, const char *file, int line) {
  printf("%s:%d: assertion failed: %s\n", file, line, condition);
  abort();
}
