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
      throw .usage("there is no file \(text): name a program's file, or a bundled program (see `physmem list`)")
    } else {
      throw .usage("there is no bundled program \(text): see `physmem list`, or name a program's file")
    }
  }

  /// - Returns: nil where there is no such file.
  private static func read(_ path: String) throws(CommandFailure) -> [UInt8]? {
    do {
      // Opening a named pipe would wait for somebody to write to it.
      let file = try FileDescriptor.open(FilePath(path), .readOnly, options: [.closeOnExec, .nonBlock])
      return try file.closeAfter { try readProgram(file, path) }
    } catch Errno.noSuchFileOrDirectory, Errno.notDirectory {
      return nil
    } catch let failure as CommandFailure {
      throw failure
    } catch {
      throw .usage("\(path): cannot be read (\(error)): name a program's file that can")
    }
  }

  private static func readProgram(_ file: FileDescriptor, _ path: String) throws -> [UInt8] {
    let stat = try file.stat()
    switch stat.type {
    case .regular: break
    case .directory: throw CommandFailure.usage("\(path): is a directory: name a program's file")
    default: throw CommandFailure.usage("\(path): is not a regular file: name a program's file")
    }
    if stat.size == 0 { throw CommandFailure.usage("\(path): is empty: build it again with scripts/guest-cc") }
    if stat.size > mostBytes {
      throw CommandFailure.usage("\(path): has \(stat.size) bytes, more than any guest program: name a program's file")
    }
    let size = Int(stat.size)
    return try [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
      while count < size {
        // SAFETY: the buffer has `size` bytes, of which `count` are initialized.
        let rest = unsafe UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: buffer[count...]))
        let read = unsafe try file.read(into: rest)
        if read == 0 { break }
        count += read
      }
    }
  }
}
