// Drives a disk for other tasks. A client shares a container and names the sectors; the driver pins the client's
// frames, the device moves the data directly between them and the disk, and the driver never sees the data (R22, R40).
#include <physmem/block.h>

PM_PROGRAM("Drives a disk for other tasks: --disk IMAGE --with disk=blockdriver. Arguments: device, name.");

static struct pm_block disk;

static pm_error_t serve(const struct pm_message *request, struct pm_message *reply) {
  uint64_t sector = request->words[1];
  uint32_t sectors = (uint32_t)request->words[2], start = (uint32_t)request->words[3];
  bool is_range = request->words[2] > 0 && request->words[2] <= UINT32_MAX && request->words[3] <= UINT32_MAX;
  switch (request->words[0]) {
    case PM_DISK_READ: return is_range ? pm_block_read(&disk, sector, sectors, request->caps[0], start) : PM_EINVAL;
    case PM_DISK_WRITE: return is_range ? pm_block_write(&disk, sector, sectors, request->caps[0], start) : PM_EINVAL;
    case PM_DISK_FLUSH: return pm_block_flush(&disk);
    case PM_DISK_INFO:
      reply->words[1] = disk.sectors;
      reply->words[2] = disk.read_only;
      reply->words[3] = disk.address_bits;
      return PM_OK;
    default: return PM_EINVAL;
  }
}

int main(int argc, char **argv) {
  uint32_t device = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
  const char *name = argc > 2 ? argv[2] : PM_DISK_NAME;
  pm_cap_t endpoint;
  pm_error_t error = pm_block_open(&disk, device);
  if (error) {
    printf("blockdriver: disk %u: %s\n", device, pm_strerror(error));
    return 1;
  }
  error = pm_endpoint_create(&endpoint);
  if (!error) error = pm_name_register(name, endpoint);
  struct pm_message message;
  if (!error) error = pm_receive(endpoint, &message, PM_FOREVER);
  while (!error) {
    struct pm_message reply = {.reply = message.reply};
    reply.words[0] = (uint64_t)serve(&message, &reply);
    pm_message_drop_caps(&message);
    message = reply;
    error = pm_reply_receive(endpoint, &message, PM_FOREVER);
    // The client has ended: serve the next one.
    if (error == PM_ECANCELED) error = pm_receive(endpoint, &message, PM_FOREVER);
  }
  printf("blockdriver: %s\n", pm_strerror(error));
  return 1;
}
