// Negotiates with the policy server (R14): run it with --policy FILE, or with --with policy=policy-server.
#include <physmem/policy.h>

PM_PROGRAM("Negotiates a contract: contract [FRAMES extra|fixed [MILLISECONDS [TIMES]]].");

static void show(const char *when) {
  struct pm_task_info info;
  pm_error_t error = pm_task_info(&info);
  if (error) {
    printf("contract: pm_task_info: %s\n", pm_strerror(error));
    exit(1);
  }
  printf("%s: %lu frames guaranteed, %lu allocated, %lu available\n", when, info.guaranteed, info.allocated,
         info.available);
}

/// Waits until the guarantee differs from the agreed one.
static void await_change(uint64_t guaranteed) {
  struct pm_task_info info = {.guaranteed = guaranteed};
  while (info.guaranteed == guaranteed && !pm_task_info(&info)) pm_sleep(1000);
}

int main(int argc, char **argv) {
  show("at the start");
  if (argc < 3) return 0;
  uint64_t frames = strtoul(argv[1], NULL, 10), times = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
  uint64_t duration = argc > 3 ? strtoul(argv[3], NULL, 10) * 1000 : PM_FOREVER;
  struct pm_contract contract;
  for (uint64_t i = 0; i < times; i++) {
    pm_error_t error = pm_contract_negotiate(frames + i % 2, !strcmp(argv[2], "extra"), duration, &contract);
    if (error) {
      printf("contract: %s\n", pm_strerror(error));
      return 2;
    }
  }
  show("under contract");
  if (argc != 4) return 0;
  await_change(contract.guaranteed);
  show("when it has expired");
  return 0;
}
