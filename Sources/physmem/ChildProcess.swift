// Starting another process and waiting for it.

internal import Glibc
internal import SystemPackage

struct ChildProcess {
  private let id: pid_t

  /// Starts a program, with an empty environment, nothing to read, and no files but those that are not closed on exec.
  /// - Parameters:
  ///   - arguments: its argv, the first element included.
  ///   - output, error: what its standard output and standard error are; nil: /dev/null.
  init(
    _ path: String, _ arguments: [String], output: FileDescriptor? = nil, error: FileDescriptor? = nil
  ) throws(Errno) {
    // SAFETY: initialized here and destroyed below; strings and arrays that are passed outlive the calls.
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    for (stream, file) in [(Int32(1), output), (2, error)] {
      if let file {
        unsafe posix_spawn_file_actions_adddup2(&actions, file.rawValue, stream)
      } else {
        unsafe posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_WRONLY, 0)
      }
    }
    let strings = unsafe arguments.map { unsafe strdup($0) } + [nil]
    defer { unsafe strings.forEach { unsafe free($0) } }
    var id = pid_t()
    let result = unsafe posix_spawn(&id, path, &actions, nil, strings, [nil])
    guard result == 0 else { throw Errno(rawValue: result) }
    self.id = id
  }

  /// Waits for its end; once.
  /// - Returns: its status, or 128 and the number of the signal that ended it.
  func wait() throws(Errno) -> Int32 {
    var status: Int32 = 0
    // SAFETY: `status` outlives the call.
    while unsafe waitpid(id, &status, 0) == -1 {
      guard errno == EINTR else { throw Errno(rawValue: errno) }
    }
    // As WIFEXITED, WEXITSTATUS and WTERMSIG of <sys/wait.h>, which are macros.
    return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f)
  }
}
