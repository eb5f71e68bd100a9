// Runs before all constructors, of libraries and of Swift's runtime too: the functions of a program's .preinit_array.
#include <cstart.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <unistd.h>

static int count;
static char **values;

// Swift's runtime: its constructors ask where the program lies, to find its tool for backtraces, and abort where /proc
// does not tell (stdlib/public/runtime/Paths.cpp). They do not ask where SWIFT_ROOT says it; nothing there is used then.
static void begin(int argument_count, char **arguments, char **environment) {
  (void)environment;
  count = argument_count;
  values = arguments;
  // Each thread's own arena would take 128 MiB of address space for a moment: where that is limited, one must do for all,
  // and nothing in a hot path allocates.
  struct rlimit space;
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) mallopt(M_ARENA_MAX, 1);
  if (access("/proc/self/exe", F_OK) != 0) setenv("SWIFT_ROOT", "/", 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = begin;

int cstart_argument_count(void) { return count; }
const char *cstart_argument(int index) { return values[index]; }
const char *cstart_program(void) { return (const char *)getauxval(AT_EXECFN); }
