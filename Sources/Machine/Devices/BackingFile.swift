// The file behind a disk.

internal import CKVM
internal import Glibc
public import SystemPackage

/// Why a file cannot be a disk.
public enum BackingFileError: Error, Equatable, CustomStringConvertible {
  /// No file has this name.
  case missing
  /// The file is a directory, a device or a pipe.
  case notRegular
  /// The file is smaller than one sector.
  case tooSmall
  /// The file cannot be opened or examined; the system's error text.
  case system(String)

  /// The rest of a sentence that starts with the file's name.
  public var description: String {
    switch self {
    case .missing: "does not exist: make it first, for example with truncate"
    case .notRegular: "is not a regular file: name a file with the disk's contents"
    case .tooSmall: "is smaller than one sector of 512 bytes: name a larger file"
    case .system(let text): "cannot be opened (\(text)): name another file, or add readonly"
    }
  }
}

/// An open file whose whole sectors of 512 bytes are a disk's contents. It stays open as long as the object lives.
public final class BackingFile: Sendable {
  /// The file's name, for messages.
  let name: String
  let descriptor: FileDescriptor
  let isReadOnly: Bool
  /// Number of sectors when the file was opened.
  let sectorCount: UInt64

  /// Opens a file.
  /// - Parameters:
  ///   - path: a regular file of at least 512 bytes.
  ///   - isReadOnly: open it for reading only.
  /// - Throws: `BackingFileError.missing`, `.notRegular`, `.tooSmall` or `.system`.
  public convenience init(path: String, isReadOnly: Bool = false) throws(BackingFileError) {
    try self.init(FilePath(path), isReadOnly: isReadOnly)
  }

  /// Opens a file whose path need not be UTF-8; otherwise as `init(path:isReadOnly:)`.
  public init(_ path: FilePath, isReadOnly: Bool = false) throws(BackingFileError) {
    let opened: (descriptor: FileDescriptor, size: Int64)
    do {
      // Opening a named pipe would wait for a writer.
      opened = try Self.open(path, isReadOnly)
    } catch Errno.noSuchFileOrDirectory {
      throw .missing
    } catch let error as BackingFileError {
      throw error
    } catch {
      throw .system("\(error)")
    }
    guard opened.size >= 512 else {
      try? opened.descriptor.close()
      throw .tooSmall
    }
    name = visibleName(path.string.utf8)
    descriptor = opened.descriptor
    self.isReadOnly = isReadOnly
    sectorCount = UInt64(opened.size) / 512
  }

  /// For tests: takes any open file and closes it with the object.
  package init(_ descriptor: FileDescriptor, sectorCount: UInt64, isReadOnly: Bool = false) {
    name = "the disk"
    self.descriptor = descriptor
    self.sectorCount = sectorCount
    self.isReadOnly = isReadOnly
  }

  /// For tests: makes an anonymous file in memory.
  package convenience init(contents: [UInt8], isReadOnly: Bool = false) throws(Errno) {
    let made = unsafe memfd_create("physmem-disk", CKVM_MFD_CLOEXEC)
    guard made >= 0 else { throw Errno(rawValue: errno) }
    self.init(FileDescriptor(rawValue: made), sectorCount: UInt64(contents.count / 512), isReadOnly: isReadOnly)
    do { try descriptor.writeAll(contents) } catch { throw error as? Errno ?? .ioError }
  }

  /// For tests: truncates the file, as another process might.
  package func shorten(to byteCount: Int64) throws(Errno) {
    let result = ckvm_truncate(descriptor.rawValue, byteCount)
    guard result == 0 else { throw Errno(rawValue: -result) }
  }

  private static func open(_ path: FilePath, _ isReadOnly: Bool) throws -> (descriptor: FileDescriptor, size: Int64) {
    let stat = try path.stat()
    guard stat.type == .regular else { throw BackingFileError.notRegular }
    let descriptor = try FileDescriptor.open(
      path, isReadOnly ? .readOnly : .readWrite, options: [.closeOnExec, .nonBlocking])
    return (descriptor, Int64(try descriptor.stat().size))
  }

  deinit { try? descriptor.close() }

  /// Blocks SIGXFSZ on the calling thread, so that a write beyond the process's file size limit fails instead of ending
  /// the process.
  static func blockSizeSignal() {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGXFSZ)
    unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  /// Returns when all completed writes are on the medium.
  func flush() throws(Errno) {
    while fdatasync(descriptor.rawValue) != 0 {
      guard errno == EINTR else { throw Errno(rawValue: errno) }
    }
  }
}
