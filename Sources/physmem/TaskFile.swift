// What TASK on the command line stands for: a bundled program, or a file of the user's.

internal import GuestImages
internal import SystemPackage

/// A program as bytes that nobody has checked yet.
struct TaskFile {
  /// As the user gave it; for messages, and the task's argv[0].
  let name: String
  let bytes: [UInt8]

  /// More than this is no guest program, and is not read.
  private static let mostBytes: Int64 = 1 << 30

  /// "noop", "bench/noop" or the path of a file. Where both are meant, a plain name is the bundled program, and one
  /// with a slash the file.
  init(_ text: String) throws(CommandFailure) {
    name = text
    if !text.contains("/"), let image = GuestImages.named(text) {
      bytes = image.bytes
    } else if let bytes = try Self.read(text) {
      self.bytes = bytes
    } else if let image = GuestImages.all.first(where: { "\($0.group)/\($0.name)" == text }) {
      bytes = image.bytes
    } else if text.contains("/") {
      throw .usage("there is no file \(quoted(text)): name a program's file, or a bundled program (see `physmem list`)")
    } else {
      throw .usage("there is no bundled program \(quoted(text)): see `physmem list`, or name a program's file")
    }
  }

  /// - Returns: nil where there is no such file.
  private static func read(_ path: String) throws(CommandFailure) -> [UInt8]? {
    do {
      // Looked at before it is opened: opening a named pipe would wait for somebody to write to it.
      let stat = try FilePath(path).stat()
      try check(stat, path)
      let file = try FileDescriptor.open(FilePath(path), .readOnly, options: .closeOnExec)
      return try file.closeAfter { try readBytes(file, most: Int(stat.size)) }
    } catch Errno.noSuchFileOrDirectory, Errno.notDirectory {
      return nil
    } catch let failure as CommandFailure {
      throw failure
    } catch {
      throw .usage("\(path): cannot be read (\(error)): name a program's file that can")
    }
  }

  private static func check(_ stat: Stat, _ path: String) throws(CommandFailure) {
    switch stat.type {
    case .regular: break
    case .directory: throw .usage("\(path): is a directory: name a program's file")
    default: throw .usage("\(path): is not a regular file: name a program's file")
    }
    if stat.size == 0 { throw .usage("\(path): is empty: build it again with scripts/guest-cc") }
    if stat.size > mostBytes {
      throw .usage("\(path): has \(stat.size) bytes, more than any guest program: name a program's file")
    }
  }

  /// The file's bytes, up to `most`: it may have grown.
  static func readBytes(_ file: FileDescriptor, most: Int) throws -> [UInt8] {
    // SAFETY: the buffer has `most` bytes, of which `count` are initialized; it is not used after the closure.
    try unsafe [UInt8](unsafeUninitializedCapacity: most) { buffer, count in
      while count < most {
        let rest = unsafe UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: buffer[count...]))
        let read = try unsafe file.read(into: rest)
        if read == 0 { break }
        count += read
      }
    }
  }
}
