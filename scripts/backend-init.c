// The only process of the machines that scripts/test-backends boots: loads KVM, runs each line of a plan, prints
// its status on the console, and turns the machine off. Statically linked, since there are no libraries.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/// The marker that the script searches for. Each run ends with a line "RESULT STATUS SECONDS NUMBER", the last "RESULT
/// end".
#define RESULT "physmem-result:"
/// Said while a command says nothing: the machine is alive.
#define WAITING "physmem-waiting:"

static void require(int result, const char *what) {
  if (result >= 0) return;
  printf("init: cannot go on: %s: %s\n", what, strerror(errno));
  // The script shows the end of the console, and takes a missing result for a failure.
  reboot(RB_POWER_OFF);
}

static void load(const char *path, const char *parameters) {
  int module = open(path, O_RDONLY | O_CLOEXEC);
  require(module, path);
  require((int)syscall(SYS_finit_module, module, parameters, 0), path);
  close(module);
}

/// Creates a virtual machine with a vCPU and keeps it. At the first and after the last one the kernel patches its own
/// code (static keys: preempt_notifier_key, kvm_has_noapic_vcpu), for every case again. QEMU before 8.1 may keep
/// running code that it translated meanwhile, with a removed breakpoint: both vCPUs hang in it
/// (docs/internals/notes/backends.md).
static void keep_machine(void) {
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  require(kvm, "/dev/kvm");
  int machine = ioctl(kvm, KVM_CREATE_VM, 0);
  require(machine, "KVM_CREATE_VM");
  require(ioctl(machine, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
}

/// A descriptor for each vCPU, which exceeds the usual limit.
static void raise_limits(void) {
  struct rlimit files = {65536, 65536};
  require(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/// Runs one line of words between single spaces. Returns 128 + the number of a signal, as the shell does.
static int run(char *line) {
  enum { MOST_WORDS = 120, WAITING_MS = 20000 };
  char *words[MOST_WORDS + 1];
  int count = 0;
  for (char *word = strtok(line, " "); word && count < MOST_WORDS; word = strtok(NULL, " ")) words[count++] = word;
  words[count] = NULL;
  if (!count) return 0;
  // Through a pipe: on a terminal the command would show its progress.
  int ends[2];
  require(pipe2(ends, O_CLOEXEC), "pipe2");
  pid_t child = fork();
  require(child, "fork");
  if (!child) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execv(words[0], words);
    printf("init: %s: %s\n", words[0], strerror(errno));
    fflush(stdout);
    _exit(127);
  }
  close(ends[1]);
  char bytes[4096];
  for (;;) {
    if (!poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, WAITING_MS)) {
      printf(WAITING " %d s\n", WAITING_MS / 1000);
      continue;
    }
    ssize_t size = read(ends[0], bytes, sizeof bytes);
    if (size <= 0) break;
    fwrite(bytes, 1, (size_t)size, stdout);
  }
  close(ends[0]);
  int status;
  require(waitpid(child, &status, 0), "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  require(mount("devtmpfs", "/dev", "devtmpfs", 0, NULL), "mount /dev");
  require(mount("proc", "/proc", "proc", 0, NULL), "mount /proc");
  require(mount("sysfs", "/sys", "sysfs", 0, NULL), "mount /sys");
  require(mount("tmpfs", "/tmp", "tmpfs", 0, NULL), "mount /tmp");
  const char *nested = getenv("npt");  // from the kernel's command line
  char parameters[16];
  snprintf(parameters, sizeof parameters, "npt=%s", nested ? nested : "1");
  load("/modules/irqbypass.ko", "");
  load("/modules/kvm.ko", "");
  load("/modules/kvm-amd.ko", parameters);
  keep_machine();
  raise_limits();
  // The Swift runtime looks for its files beside the executable, and asks the system for its path.
  setenv("SWIFT_ROOT", "/", 1);
  setenv("LD_LIBRARY_PATH", "/lib", 1);

  // /plan.races or /plan.rest: selected by the kernel's command line.
  char path[64];
  const char *part = getenv("plan");
  snprintf(path, sizeof path, "/plan.%s", part ? part : "");
  FILE *plan = fopen(path, "re");
  require(plan ? 0 : -1, path);
  char line[4096];
  for (int number = 1; fgets(line, sizeof line, plan); number++) {
    line[strcspn(line, "\n")] = 0;
    printf("init: %s\n", line);
    double start = seconds();
    int status = run(line);
    printf("\n" RESULT " %d %.0f %d\n", status, seconds() - start, number);
  }
  printf(RESULT " end\n");
  fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
  return 1;
}
