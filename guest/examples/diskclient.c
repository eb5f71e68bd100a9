// Reads and writes a disk through blockdriver without copying: the frames are this task's, the driver pins them, and
// the device fills them (R22, R40). Once the share is revoked the driver has no access.
#include <physmem/block.h>

PM_PROGRAM("Reads and writes a disk: --disk IMAGE --with disk=blockdriver. Arguments: sector, text to write there.");

#define BUFFER ((char *)0x200000000000ull)
#define FRAMES 1

static pm_cap_t driver;

static void check(const char *what, pm_error_t error) {
  if (!error) return;
  printf("diskclient: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

static struct pm_message ask(enum pm_disk_request what, uint64_t sector, uint64_t sectors, pm_cap_t weak) {
  struct pm_message message = {.words = {what, sector, sectors, 0}, .caps = {weak}, .moves = 1};
  check("the call", pm_call(driver, &message, PM_FOREVER));
  check("the driver's answer", (pm_error_t)message.words[0]);
  return message;
}

/// Shares the container with the driver for one request, and revokes the share.
static void move(enum pm_disk_request what, uint64_t sector, uint64_t sectors, pm_container_t container) {
  pm_container_t weak;
  check("sharing", pm_container_share(container, driver, &weak));
  ask(what, sector, sectors, weak);
  check("revoking", pm_container_revoke(container));
}

int main(int argc, char **argv) {
  uint64_t sector = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
  check("finding the driver", pm_name_lookup(PM_DISK_NAME, &driver, 10000000));
  struct pm_message info = ask(PM_DISK_INFO, 0, 0, PM_CAP_NONE);
  printf("The disk has %lu sectors%s.\n", info.words[1], info.words[2] ? ", and cannot be written" : "");

  // Frames that the device reaches.
  pm_container_t container;
  uint32_t count = FRAMES;
  struct pm_placement placement = {.below = info.words[3] < 64 ? 1ull << info.words[3] : 0};
  check("making a container", pm_container_create(&container));
  check("allocating", info.words[3] < 64 ? pm_container_allocate_placed(container, 0, &count, 0, &placement)
                                         : pm_container_allocate(container, 0, &count, 0));
  check("mapping", pm_container_map(container, 0, FRAMES, BUFFER, PM_MAP_READ | PM_MAP_WRITE));
  struct pm_mapping before, after;
  BUFFER[0] = 0;
  check("pm_mapping", pm_mapping(BUFFER, &before));

  move(PM_DISK_READ, sector, 1, container);
  check("pm_mapping", pm_mapping(BUFFER, &after));
  printf("Sector %lu begins: %.40s\n", sector, BUFFER);
  printf("It is in the frame that the page had before: %s.\n", before.physical == after.physical ? "yes" : "no");
  if (argc > 2) {
    memset(BUFFER, 0, PM_BLOCK_SECTOR);
    snprintf(BUFFER, PM_BLOCK_SECTOR, "%s\n", argv[2]);
    move(PM_DISK_WRITE, sector, 1, container);
    ask(PM_DISK_FLUSH, 0, 0, PM_CAP_NONE);
    printf("It has been rewritten.\n");
  }
  return 0;
}
