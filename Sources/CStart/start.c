// Runs before all constructors, those of libraries and of Swift's runtime included: functions in .preinit_array.
#include <cstart.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <unistd.h>

static int count;
static char **values;

// The constructors of Swift's runtime look up the program's path to find its backtrace tool, and abort if /proc does
// not give it (stdlib/public/runtime/Paths.cpp). With SWIFT_ROOT set they do not ask, nor use the files there.
static void begin(int argument_count, char **arguments, char **environment) {
  (void)environment;
  count = argument_count;
  values = arguments;
  // Each thread's own arena reserves 128 MiB of address space for a moment. If that is limited, all threads use one
  // arena; no hot path allocates.
  struct rlimit space;
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) mallopt(M_ARENA_MAX, 1);
  if (access("/proc/self/exe", F_OK) != 0) setenv("SWIFT_ROOT", "/", 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = begin;

int cstart_argument_count(void) { return count; }
const char *cstart_argument(int index) { return values[index]; }
const char *cstart_program(void) { return (const char *)getauxval(AT_EXECFN); }
