// Running the built command, as a user would.

import SystemPackage

@testable import physmem

#if canImport(Glibc)
  import Glibc
#endif

/// The result of a run of the command.
struct CommandResult {
  let status: Int32
  let output: String
  let error: String

  /// Runs `physmem` with these arguments, to its end.
  init(_ arguments: String...) throws { try self.init(arguments) }

  init(_ arguments: [String]) throws {
    try self.init(program: Self.command, ["physmem"] + arguments)
  }

  /// Runs a line of sh(1), with the command as `$0`.
  init(shell line: String) throws {
    try self.init(program: "/bin/sh", ["sh", "-c", line, Self.command])
  }

  private init(program: String, _ arguments: [String]) throws {
    // Files, since two pipes would have to be read concurrently.
    let output = try temporaryFile()
    let error = try temporaryFile()
    status = try ChildProcess(program, arguments, output: output, error: error).wait()
    self.output = try text(output)
    self.error = try text(error)
  }

  /// The build puts the command beside the test runner.
  private static let command = commandPath()
}

private func commandPath() -> String {
  var buffer = [UInt8](repeating: 0, count: 4096)
  // SAFETY: passes the array's own length.
  let count = unsafe readlink("/proc/self/exe", &buffer, buffer.count)
  precondition(count > 0, "this process's executable is not known")
  return FilePath(String(decoding: buffer[..<count], as: UTF8.self)).removingLastComponent().appending("physmem").string
}

/// A template for mkstemp and mkdtemp, which replace its last six letters.
private func temporaryNameTemplate() -> [CChar] {
  Array(("/tmp/physmem-test-" + String(repeating: "X", count: 6)).utf8CString)
}

/// A file without a name.
func temporaryFile() throws -> FileDescriptor {
  var template = temporaryNameTemplate()
  // SAFETY: a string that ends with a NUL, which the call changes in place.
  let descriptor = unsafe mkstemp(&template)
  guard descriptor >= 0 else { throw Errno(rawValue: errno) }
  _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
  // SAFETY: as above.
  unsafe unlink(template)
  return FileDescriptor(rawValue: descriptor)
}

private func text(_ file: FileDescriptor) throws -> String {
  try file.closeAfter {
    var text: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      // SAFETY: the buffer is the array's own, and is not used after the closure.
      let count = try unsafe buffer.withUnsafeMutableBytes {
        try unsafe file.read(fromAbsoluteOffset: Int64(text.count), into: $0)
      }
      if count == 0 { break }
      text += buffer[..<count]
    }
    return String(decoding: text, as: UTF8.self)
  }
}

/// A directory that is empty at first and removed at the end.
final class TemporaryDirectory {
  let path: String

  init() throws {
    var template = temporaryNameTemplate()
    // SAFETY: a string that ends with a NUL, which the call changes in place.
    guard unsafe mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { _ = try? CommandResult(shell: "rm -r \(path)") }
}
