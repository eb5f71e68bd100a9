// A file that a program writes for its user: a report, a trace, an executable. It is written whole or not at all, and
// replaces only a regular file.

internal import Glibc

/// The identity of a file, under whatever name.
public struct FileIdentity: Hashable, Sendable {
  private let device: UInt64
  private let number: UInt64

  fileprivate init(_ status: stat) {
    device = UInt64(status.st_dev)
    number = UInt64(status.st_ino)
  }

  /// The file at a path; nil if there is none.
  public init?(path: [UInt8]) {
    var status = stat()
    // SAFETY: a string that ends with a NUL, and a buffer for the result; both outlive the call.
    guard unsafe stat(path.map { CChar(bitPattern: $0) } + [0], &status) == 0 else { return nil }
    self.init(status)
  }
}

/// Why a file is not written. The description follows the file's name and a colon.
public enum OutputError: Error, Equatable, CustomStringConvertible {
  case directory
  /// A device, a named pipe or a socket.
  case notRegular
  case input
  /// A link whose target is missing.
  case danglingLink
  case protected
  /// An `errno` of the system; `folder`: its folder is not writable.
  case system(Int32)
  case folder(Int32)

  public var description: String {
    switch self {
    case .directory: "is a directory: name a file"
    case .notRegular: "is not a regular file: name one that may be replaced, or a new one"
    case .input: "is read by this command and would be replaced: name another file"
    case .danglingLink: "is a dangling link: remove it, or name another file"
    case .protected: "is write-protected: name another file"
    case .system(let code): "cannot be written (\(Self.text(code))): name another file"
    case .folder(let code): "cannot be written (\(Self.text(code))): name a file in a folder that can be written to"
    }
  }

  private static func text(_ code: Int32) -> String {
    // SAFETY: the text is a constant of the C library.
    unsafe strerror(code).map { unsafe String(cString: $0) } ?? "error \(code)"
  }
}

public struct OutputFile: Sendable {
  /// As given.
  public let path: [UInt8]
  private let inputs: Set<FileIdentity>

  /// Checks that the file can be written, without writing it.
  /// - Parameter inputs: the files that the command reads, none of which is replaced.
  public init(_ path: [UInt8], inputs: Set<FileIdentity> = []) throws(OutputError) {
    self.path = path
    self.inputs = inputs
    _ = try place()
  }

  /// Creates or replaces the file with these bytes. A process that has the old file open keeps the old contents.
  public func write(_ bytes: [UInt8], isExecutable: Bool = false) throws(OutputError) {
    // Checked again, since it may have changed.
    let place = try place()
    let partial = place.folder + Array("/.physmem-\(getpid())-\(UInt32.random(in: 0 ... .max))".utf8)
    let descriptor = retried { unsafe open(Self.string(partial), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666) }
    guard descriptor >= 0 else { throw .folder(errno) }
    do throws(OutputError) {
      defer { close(descriptor) }
      try Self.write(bytes, to: descriptor)
      try setMode(descriptor, replacing: place.mode, isExecutable)
      // fsync reports errors that some file systems report only at close.
      guard retried({ fsync(descriptor) }) == 0 || errno == EINVAL else { throw .system(errno) }
    } catch {
      // SAFETY: a string that ends with a NUL.
      unsafe unlink(Self.string(partial))
      throw error
    }
    // SAFETY: as above.
    guard unsafe rename(Self.string(partial), Self.string(place.file)) == 0 else {
      let code = errno
      unsafe unlink(Self.string(partial))
      throw .system(code)
    }
  }

  // MARK: Where

  private struct Place {
    /// With links resolved: a link's target is replaced, and the link stays.
    let file: [UInt8]
    let folder: [UInt8]
    /// The mode of the existing file.
    let mode: mode_t?
  }

  private func place() throws(OutputError) -> Place {
    var status = stat()
    // SAFETY: a string that ends with a NUL, and a buffer for the result.
    let found = unsafe stat(Self.string(path), &status) == 0
    if !found, errno != ENOENT { throw .system(errno) }
    if !found {
      guard unsafe lstat(Self.string(path), &status) != 0 else { throw .danglingLink }
      guard path.last != UInt8(ascii: "/") else { throw .directory }
      return try checked(Place(file: path, folder: Self.folder(of: path), mode: nil))
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR: throw .directory
    default: throw .notRegular
    }
    if inputs.contains(FileIdentity(status)) { throw .input }
    guard unsafe access(Self.string(path), W_OK) == 0 else { throw .protected }
    let file = try resolved()
    return try checked(Place(file: file, folder: Self.folder(of: file), mode: status.st_mode & 0o7777))
  }

  private func checked(_ place: Place) throws(OutputError) -> Place {
    // SAFETY: a string that ends with a NUL.
    guard unsafe access(Self.string(place.folder), W_OK | X_OK) == 0 else { throw .folder(errno) }
    return place
  }

  private func resolved() throws(OutputError) -> [UInt8] {
    // SAFETY: without a buffer the call allocates one, which is copied and freed.
    guard let real = unsafe realpath(Self.string(path), nil) else { throw .system(errno) }
    defer { unsafe free(real) }
    return unsafe (0..<strlen(real)).map { unsafe UInt8(bitPattern: real[$0]) }
  }

  private static func folder(of path: [UInt8]) -> [UInt8] {
    let slash = UInt8(ascii: "/")
    guard let last = path.lastIndex(of: slash) else { return [UInt8(ascii: ".")] }
    return last == 0 ? [slash] : Array(path[..<last])
  }

  // MARK: System calls

  private static func string(_ path: [UInt8]) -> [CChar] { path.map { CChar(bitPattern: $0) } + [0] }

  private static func write(_ bytes: [UInt8], to descriptor: Int32) throws(OutputError) {
    var done = 0
    while done < bytes.count {
      // SAFETY: the buffer is the array's; its bytes from `done` on are passed on.
      let count = unsafe bytes.withUnsafeBytes { buffer in
        retried { unsafe Glibc.write(descriptor, buffer.baseAddress.map { unsafe $0 + done }, buffer.count - done) }
      }
      guard count > 0 else { throw .system(count < 0 ? errno : ENOSPC) }
      done += count
    }
  }

  /// A replacement keeps the permissions of the old file; a new file gets those of the umask.
  private func setMode(_ descriptor: Int32, replacing old: mode_t?, _ isExecutable: Bool) throws(OutputError) {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw .system(errno) }
    var mode = old ?? (status.st_mode & 0o777)
    // Executable for those who may read it.
    if isExecutable { mode |= (mode & 0o444) >> 2 }
    guard fchmod(descriptor, mode & 0o777) == 0 else { throw .system(errno) }
  }
}

/// Retries a system call that a signal interrupts.
func retried<Result: SignedInteger>(_ call: () -> Result) -> Result {
  while true {
    let result = call()
    if result >= 0 || errno != EINTR { return result }
  }
}
