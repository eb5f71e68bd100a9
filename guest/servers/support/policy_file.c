// Reading the policy server's file:
//
//      NAME GUARANTEED extra|fixed     the quota of tasks of that name
//      default GUARANTEED extra|fixed  the quota of all others
//      grace MILLISECONDS              how long a reduction is deferred
//
// GUARANTEED is a number of frames, or of bytes with a suffix K or M. A # begins a comment.
#include "policy_file.h"

#define QUOTAS 1024
#define WORDS 4

static struct named_quota {
  const char *name;
  struct quota quota;
} quotas[QUOTAS];
static unsigned quota_count;
static struct quota default_quota = {64, true};
uint64_t grace_us = 100000;

static int line_number;
static bool is_good;

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("policy line %d: ", line_number);
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  is_good = false;
}

static bool is_space(char character) { return character == ' ' || character == '\t' || character == '\r'; }

/// Splits a line into words, WORDS at most; the last one being set means that there are too many.
static unsigned split(char *line, char *words[WORDS]) {
  unsigned count = 0;
  while (*line && *line != '#' && count < WORDS) {
    if (is_space(*line)) {
      line++;
      continue;
    }
    words[count++] = line;
    while (*line && *line != '#' && !is_space(*line)) line++;
    bool is_comment = *line == '#';
    if (*line) *line++ = 0;
    if (is_comment) break;
  }
  return count;
}

/// Reads a number and returns the text after it. Returns false if there is none, or it has more than 15 digits.
static bool read_number(const char *text, uint64_t *number, const char **rest) {
  const char *at = text;
  for (*number = 0; *at >= '0' && *at <= '9' && at - text < 16; at++) *number = *number * 10 + (uint64_t)(*at - '0');
  *rest = at;
  return at > text && at - text < 16;
}

static bool read_size(const char *text, uint64_t *frames) {
  const char *unit;
  if (!read_number(text, frames, &unit)) return false;
  if (!*unit) return true;
  uint64_t shift = *unit == 'K' ? 10 : *unit == 'M' ? 20 : 0;
  if (!shift || unit[1] || *frames >> (63 - shift)) return false;
  *frames = ((*frames << shift) + PM_PAGE_SIZE - 1) / PM_PAGE_SIZE;
  return true;
}

static void read_grace(char *words[], unsigned count) {
  const char *rest;
  uint64_t milliseconds;
  if (count != 2 || !read_number(words[1], &milliseconds, &rest) || *rest || milliseconds > 1000000000)
    return complain("grace is followed by a number of milliseconds, at most 1000000000, such as grace 100.");
  grace_us = milliseconds * 1000;
}

static struct named_quota *find(const char *name) {
  for (unsigned i = 0; i < quota_count; i++)
    if (!strcmp(quotas[i].name, name)) return &quotas[i];
  return NULL;
}

static void read_quota(char *words[], unsigned count) {
  struct quota quota;
  if (count != 3)
    return complain("%s is followed by two words, such as %s 64 extra or %s 1M fixed.", words[0], words[0], words[0]);
  if (strlen(words[0]) > PM_NAME_MAXIMUM) return complain("a name has at most %d bytes.", PM_NAME_MAXIMUM);
  if (!read_size(words[1], &quota.guaranteed))
    return complain("%s is no size: give frames, or bytes with K or M, such as 64, 256K or 1M.", words[1]);
  quota.extra = !strcmp(words[2], "extra");
  if (!quota.extra && strcmp(words[2], "fixed"))
    return complain("%s is neither extra nor fixed.", words[2]);
  if (!strcmp(words[0], "default")) {
    default_quota = quota;
    return;
  }
  if (find(words[0])) return complain("%s was there before: keep one of the lines.", words[0]);
  if (quota_count == QUOTAS) return complain("there are more than %d names.", QUOTAS);
  quotas[quota_count++] = (struct named_quota){words[0], quota};
}

bool read_policy(char *text) {
  is_good = true;
  for (line_number = 1; text; line_number++) {
    char *end = strchr(text, '\n'), *words[WORDS];
    if (end) *end++ = 0;
    unsigned count = split(text, words);
    if (count && !strcmp(words[0], "grace")) read_grace(words, count);
    else if (count) read_quota(words, count);
    text = end;
  }
  return is_good;
}

struct quota quota_of(const char *name) {
  const struct named_quota *found = find(name);
  return found ? found->quota : default_quota;
}
