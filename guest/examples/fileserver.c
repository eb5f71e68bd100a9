// A file server that answers with logical copies of its cache: no data is copied, and the client is charged for the
// frames. It generates its file; a real server would read a disk.
#include <physmem.h>

#include "files.h"

PM_PROGRAM("Serves a file to fileclient by logical copies from its cache.");

#define CACHE ((char *)0x200000000000ull)

static pm_container_t cache;

static char *page_at(uint64_t page) { return CACHE + page * PM_PAGE_SIZE; }

/// A real server would read the disk here.
static void read_block(uint64_t page, const char *edition) {
  size_t length = 0;
  for (int line = 0; length < PM_PAGE_SIZE - 80; line++)
    length += (size_t)snprintf(page_at(page) + length, 80, "page %lu, line %d, %s edition\n", page, line, edition);
}

static pm_error_t fill_cache(void) {
  uint32_t pages = FILE_PAGES;
  pm_error_t error = pm_container_create(&cache);
  if (!error) error = pm_container_allocate(cache, 0, &pages, PM_ALLOC_EXTRA);
  if (!error) error = pm_container_map(cache, 0, pages, CACHE, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY);
  for (uint64_t page = 0; !error && page < pages; page++) read_block(page, "first");
  return error;
}

/// Fills the client's container, which the client can neither use nor destroy meanwhile (R21, R40).
static pm_error_t read_file(pm_container_t container) {
  pm_error_t error = pm_container_lock(container, 1000000);
  if (error) return error;
  error = pm_container_copy(cache, 0, container, 0, FILE_PAGES, NULL);
  // The copy's result counts, even if the lock has timed out.
  (void)pm_container_unlock(container);
  return error;
}

static pm_error_t serve(const struct pm_message *request) {
  uint64_t page = request->words[1];
  switch (request->words[0]) {
    case FILE_READ: return read_file(request->caps[0]);
    case FILE_CHANGE:
      if (page >= FILE_PAGES) return PM_EINVAL;
      read_block(page, "second");
      return PM_OK;
    case FILE_WHERE: return PM_OK;
    default: return PM_EINVAL;
  }
}

/// The result, and the physical addresses of the cache's pages, which only the client's table needs.
static struct pm_message reply_to(const struct pm_message *request, pm_error_t result) {
  struct pm_message reply = {.words = {(uint64_t)result}, .reply = request->reply};
  for (uint64_t page = 0; page < FILE_PAGES; page++) {
    struct pm_mapping mapping;
    if (!pm_mapping(page_at(page), &mapping)) reply.words[1 + page] = mapping.physical;
  }
  return reply;
}

int main(void) {
  pm_cap_t endpoint;
  pm_error_t error = fill_cache();
  if (!error) error = pm_endpoint_create(&endpoint);
  if (!error) error = pm_name_register(FILE_SERVER, endpoint);
  struct pm_message message;
  if (!error) error = pm_receive(endpoint, &message, PM_FOREVER);
  while (!error) {
    pm_error_t result = serve(&message);
    pm_message_drop_caps(&message);
    message = reply_to(&message, result);
    error = pm_reply_receive(endpoint, &message, PM_FOREVER);
    // The client has ended: serve the next one.
    if (error == PM_ECANCELED) error = pm_receive(endpoint, &message, PM_FOREVER);
  }
  printf("fileserver: %s\n", pm_strerror(error));
  return 1;
}
