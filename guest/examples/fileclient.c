// Reads a file from fileserver into its own container and compares physical frames with the server's. Both sides then
// write, and each keeps its data: R40, R42, and copy on write.
#include <physmem.h>

#include "files.h"

PM_PROGRAM("Reads a file from fileserver, and shows which frames are shared. Run it with --with server=fileserver.");

#define FILE_START ((char *)0x200000000000ull)

static pm_cap_t server;
static uint64_t server_frames[FILE_PAGES];

static char *page_at(uint64_t page) { return FILE_START + page * PM_PAGE_SIZE; }

static void check(const char *what, pm_error_t error) {
  if (!error) return;
  printf("fileclient: %s: %s\n", what, pm_strerror(error));
  exit(1);
}

/// Sends a request, with a capability that is moved to the server, or none.
static void request(uint64_t what, uint64_t page, pm_cap_t cap) {
  struct pm_message message = {.words = {what, page}, .caps = {cap}, .moves = 1};
  check("the call", pm_call(server, &message, PM_FOREVER));
  check("the server's answer", (pm_error_t)message.words[0]);
  memcpy(server_frames, message.words + 1, sizeof server_frames);
}

/// Sends an empty container to the server, which fills it; after that the server has no access.
static pm_container_t read_file(void) {
  pm_container_t container, weak;
  check("making a container", pm_container_create_with(&container, FILE_PAGES, server, &weak));
  request(FILE_READ, 0, weak);
  check("revoking it", pm_container_revoke(container));
  return container;
}

static uint64_t own_frame(uint64_t page) {
  struct pm_mapping mapping;
  check("pm_mapping", pm_mapping(page_at(page), &mapping));
  return mapping.physical;
}

/// Adds a row to the table: how many frames hold the client's pages and the server's.
static void report(const char *what) {
  request(FILE_WHERE, 0, PM_CAP_NONE);
  int shared = 0;
  for (uint64_t page = 0; page < FILE_PAGES; page++) shared += own_frame(page) == server_frames[page];
  printf("%-34s %6d %9d %7d\n", what, 2 * FILE_PAGES, shared, 2 * FILE_PAGES - shared);
}

/// Prints the first line of a page, without the line's end.
static void show(const char *what, uint64_t page) {
  const char *start = page_at(page), *end = strchr(start, '\n');
  printf("%s: %.*s\n", what, end ? (int)(end - start) : 0, start);
}

/// Makes calls with as many capabilities as a message holds, all of them useless to the server.
static void pester(uint64_t calls) {
  struct pm_message message = {.words = {FILE_WHERE}, .caps = {server, server, server, server}};
  while (calls--) {
    struct pm_message sent = message;
    check("the call", pm_call(server, &sent, PM_FOREVER));
    pm_message_drop_caps(&sent);
  }
}

int main(int argc, char **argv) {
  check("finding the server", pm_name_lookup(FILE_SERVER, &server, 10000000));
  if (argc > 1) pester(strtoul(argv[1], NULL, 10));
  pm_container_t file = read_file();
  check("mapping", pm_container_map(file, 0, FILE_PAGES, FILE_START, PM_MAP_READ | PM_MAP_WRITE | PM_MAP_LAZY));
  show("The file begins", 0);
  for (uint64_t page = 0; page < FILE_PAGES; page++) (void)*(volatile char *)page_at(page);

  printf("\n%-34s %6s %9s %7s\n", "", "pages", "shared", "frames");
  report("the client has read the file");
  memcpy(page_at(2), "PAGE", 4);
  report("the client has written page 2");
  request(FILE_CHANGE, 4, PM_CAP_NONE);
  report("the server has changed page 4");

  printf("\n");
  show("The client's page 2", 2);
  show("The client's page 4", 4);
  check("unmapping", pm_unmap(FILE_START, FILE_PAGES));
  check("destroying", pm_container_destroy(file));
  file = read_file();
  check("mapping", pm_container_map(file, 0, FILE_PAGES, FILE_START, PM_MAP_READ));
  show("The file's page 2 ", 2);
  show("The file's page 4 ", 4);
  return 0;
}
