// The protocol of fileserver and fileclient. words[0] of a request is the operation; words[0] of a reply is a
// pm_error_t, and the physical addresses of the server's pages follow.
#ifndef FILES_H
#define FILES_H

#define FILE_SERVER "fileserver"
#define FILE_PAGES 6

enum {
  FILE_READ = 1,    // caps[0]: a container of FILE_PAGES frames, shared with the server
  FILE_CHANGE = 2,  // words[1]: a page, which the server replaces by a second edition
  FILE_WHERE = 3,   // only returns the addresses
};

#endif
