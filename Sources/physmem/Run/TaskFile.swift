// Resolves TASK on the command line: a bundled program, or a file of the user's.

internal import GuestImages
internal import OutputFiles
internal import SystemPackage

/// A program as unchecked bytes.
struct TaskFile {
  /// What a name refers to, under whatever name.
  enum Origin: Hashable {
    case bundled(String)
    case file(FileIdentity)
  }

  /// As given by the user; for messages, and as the task's argv[0].
  let name: OutsideName
  let bytes: [UInt8]
  let origin: Origin

  /// No guest program is larger; a larger file is not read.
  private static let mostBytes: Int64 = 1 << 30

  /// "noop", "bench/noop" or the path of a file. If both exist, a plain name is the bundled program, and one
  /// with a slash the file.
  init(_ name: OutsideName) throws(CommandFailure) {
    self.name = name
    if !name.hasSlash, let image = name.text.flatMap(GuestImages.named) {
      (bytes, origin) = (image.bytes, .bundled(image.name))
    } else if let bytes = try Self.read(name), let identity = name.identity {
      (self.bytes, origin) = (bytes, .file(identity))
    } else if let image = GuestImages.all.first(where: { "\($0.group)/\($0.name)" == name.text }) {
      (bytes, origin) = (image.bytes, .bundled(image.name))
    } else if name.hasSlash {
      throw .usage("there is no file \(name): name a program's file, or a bundled program (see `physmem list`)")
    } else {
      throw .usage("there is no bundled program \(name): see `physmem list`, or name a program's file")
    }
  }

  /// - Returns: nil if there is no such file.
  private static func read(_ path: OutsideName) throws(CommandFailure) -> [UInt8]? {
    do {
      // Checked before it is opened: opening a named pipe would wait for a writer.
      let stat = try path.path.stat()
      try check(stat, path)
      let file = try FileDescriptor.open(path.path, .readOnly, options: .closeOnExec)
      return try file.closeAfter { try readBytes(file, most: Int(stat.size)) }
    } catch Errno.noSuchFileOrDirectory, Errno.notDirectory {
      return nil
    } catch let failure as CommandFailure {
      throw failure
    } catch {
      throw .usage("\(path): cannot be read (\(error)): name a program's file that can")
    }
  }

  private static func check(_ stat: Stat, _ path: OutsideName) throws(CommandFailure) {
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

  /// The file's bytes, up to `most`, since it may have grown.
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
