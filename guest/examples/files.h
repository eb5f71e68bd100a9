// What fileserver and fileclient have agreed on. words[0] of a request says what to do; words[0] of a reply is a
// pm_error_t, and the physical addresses of the server's pages follow.
#ifndef FILES_H
#define FILES_H

#define FILE_SERVER "fileserver"
#define FILE_PAGES 6

enum {
  FILE_READ = 1,    // caps[0]: a container of FILE_PAGES frames, shared with the server
  FILE_CHANGE = 2,  // words[1]: a page, of which a second edition comes out
  FILE_WHERE = 3,   // nothing, but the addresses
};

#endif
