// Starting another process and waiting for it.

internal import Glibc
internal import SystemPackage

struct ChildProcess {
  private let id: pid_t

  /// Starts a program, with an empty environment and only the files that are not closed on exec.
  /// - Parameters:
  ///   - arguments: its argv, the first element included.
  ///   - input: its standard input; nil: /dev/null.
  ///   - output, error: its standard output and standard error; nil: /dev/null.
  init(
    _ path: String,
    _ arguments: [String],
    input: FileDescriptor? = nil,
    output: FileDescriptor? = nil,
    error: FileDescriptor? = nil
  ) throws(Errno) {
    // SAFETY: initialized here and destroyed below; strings and arrays that are passed outlive the calls.
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    if let input {
      unsafe posix_spawn_file_actions_adddup2(&actions, input.rawValue, 0)
    } else {
      unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    }
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

  /// A pipe whose ends a child inherits only if they are passed to it: an end left open would block the other one.
  static func pipe() throws(Errno) -> (readEnd: FileDescriptor, writeEnd: FileDescriptor) {
    var ends: (Int32, Int32) = (0, 0)
    // SAFETY: two adjacent integers, as the call requires.
    let result = unsafe withUnsafeMutablePointer(to: &ends) { pair in
      unsafe pair.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe Glibc.pipe($0) }
    }
    guard result == 0 else { throw Errno(rawValue: errno) }
    _ = fcntl(ends.0, F_SETFD, FD_CLOEXEC)
    _ = fcntl(ends.1, F_SETFD, FD_CLOEXEC)
    return (FileDescriptor(rawValue: ends.0), FileDescriptor(rawValue: ends.1))
  }

  /// Waits for its end; may be called once.
  /// - Returns: its status, or 128 plus the number of the signal that ended it.
  func wait() throws(Errno) -> Int32 {
    var status: Int32 = 0
    // SAFETY: `status` outlives the call.
    while unsafe waitpid(id, &status, 0) == -1 {
      guard errno == EINTR else { throw Errno(rawValue: errno) }
    }
    // As the macros WIFEXITED, WEXITSTATUS and WTERMSIG of <sys/wait.h>.
    return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f)
  }
}
