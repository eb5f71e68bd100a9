// The file behind a disk.

internal import CKVM
internal import Glibc
public import SystemPackage

/// Why a file cannot be a disk.
public enum BackingFileError: Error, Equatable, CustomStringConvertible {
  case missing
  case notRegular
  case tooSmall
  /// The system's words for it.
  case system(String)

  public var description: String {
    switch self {
    case .missing: "does not exist: make it first, for example with truncate"
    case .notRegular: "is not a regular file: name a file with the disk's contents"
    case .tooSmall: "has not even one sector of 512 bytes: name a larger file"
    case .system(let text): "cannot be opened (\(text)): name a file that can, or add readonly"
    }
  }
}

/// An open file whose whole sectors of 512 bytes are a disk's. It is open for as long as the object lives.
public final class BackingFile: Sendable {
  /// For messages.
  let name: String
  let descriptor: FileDescriptor
  let isReadOnly: Bool
  /// As of when it was opened.
  let sectorCount: UInt64

  public convenience init(path: String, isReadOnly: Bool = false) throws(BackingFileError) {
    try self.init(FilePath(path), isReadOnly: isReadOnly)
  }

  public init(_ path: FilePath, isReadOnly: Bool = false) throws(BackingFileError) {
    let opened: (descriptor: FileDescriptor, size: Int64)
    do {
      // A named pipe would wait for somebody to write to it.
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

  /// Any open file, which is closed with the object, for tests.
  package init(_ descriptor: FileDescriptor, sectorCount: UInt64, isReadOnly: Bool = false) {
    name = "the disk"
    self.descriptor = descriptor
    self.sectorCount = sectorCount
    self.isReadOnly = isReadOnly
  }

  /// A file in memory that nobody else sees, for tests.
  package convenience init(contents: [UInt8], isReadOnly: Bool = false) throws(Errno) {
    let made = unsafe memfd_create("physmem-disk", CKVM_MFD_CLOEXEC)
    guard made >= 0 else { throw Errno(rawValue: errno) }
    self.init(FileDescriptor(rawValue: made), sectorCount: UInt64(contents.count / 512), isReadOnly: isReadOnly)
    do { try descriptor.writeAll(contents) } catch { throw error as? Errno ?? .ioError }
  }

  /// For tests: makes the file shorter, as somebody else might.
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

  /// A write beyond the process's limit of file sizes shall fail, and not end the process by a signal, on the calling thread.
  static func blockSizeSignal() {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGXFSZ)
    unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  /// Returns when all that was written is on the medium.
  func flush() throws(Errno) {
    while fdatasync(descriptor.rawValue) != 0 {
      guard errno == EINTR else { throw Errno(rawValue: errno) }
    }
  }
}
