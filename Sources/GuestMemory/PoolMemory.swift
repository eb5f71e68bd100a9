// The frame pool's memory: one memfd, mapped twice.
//
// The *guest window* is KVM's memory slot: the guest's accesses go through it, and dropping
// its host page-table entries makes KVM forget its translations of a frame. Through the *host window*
// the server itself reads and writes frames; dropping the guest window's entries does not affect it.

internal import CKVM
internal import Glibc
public import SystemPackage

// SAFETY: both windows are mapped for the object's whole life and unmapped only in deinit; every access by
// frame or address is first checked against `byteCount`. The memory is shared with running guests, so no value
// is read from it twice.
@safe
public final class PoolMemory: Sendable {
  public let frameCount: Int
  public var byteCount: Int { frameCount << 12 }

  private let descriptor: Int32
  nonisolated(unsafe) private let guestWindow: UnsafeMutableRawPointer
  nonisolated(unsafe) private let hostWindow: UnsafeMutableRawPointer

  /// Both windows begin at a multiple of this, so that a huge page of the memfd is mapped as one in both.
  static let windowAlignment = 2 << 20

  /// Creates a pool of `frameCount` zero frames. No memory is used until a frame is touched.
  public init(frameCount: Int) throws(Errno) {
    precondition(frameCount > 0 && frameCount <= 1 << 31)
    let descriptor = unsafe memfd_create("physmem-pool", CKVM_MFD_CLOEXEC)
    guard descriptor >= 0 else { throw Errno(rawValue: errno) }
    let truncated = ckvm_truncate(descriptor, Int64(frameCount << 12))
    guard truncated == 0 else {
      close(descriptor)
      throw Errno(rawValue: -truncated)
    }
    do throws(Errno) {
      unsafe guestWindow = try Self.mapAligned(descriptor, byteCount: frameCount << 12)
      do throws(Errno) {
        unsafe hostWindow = try Self.mapAligned(descriptor, byteCount: frameCount << 12)
      } catch {
        unsafe munmap(guestWindow, frameCount << 12)
        throw error
      }
    } catch {
      close(descriptor)
      throw error
    }
    self.descriptor = descriptor
    self.frameCount = frameCount
  }

  deinit {
    unsafe munmap(guestWindow, byteCount)
    unsafe munmap(hostWindow, byteCount)
    close(descriptor)
  }

  private static func mapAligned(_ descriptor: Int32, byteCount: Int) throws(Errno) -> UnsafeMutableRawPointer {
    let reserved = byteCount + windowAlignment
    guard
      let area = unsafe mmap(nil, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      unsafe area != MAP_FAILED
    else { throw Errno(rawValue: errno) }
    let start = unsafe area.alignedUp(toMultipleOf: windowAlignment)
    let before = unsafe area.distance(to: start)
    guard
      let window = unsafe mmap(start, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0),
      unsafe window != MAP_FAILED
    else {
      let error = Errno(rawValue: errno)
      unsafe munmap(area, reserved)
      throw error
    }
    if before > 0 { unsafe munmap(area, before) }
    unsafe munmap(window + byteCount, windowAlignment - before)
    return unsafe window
  }

  /// The memory slot's `userspace_addr`.
  public var guestWindowAddress: UInt64 { unsafe UInt64(UInt(bitPattern: guestWindow)) }

  // MARK: Translations

  /// Makes KVM drop every translation of the frames: when this returns, no vCPU reads or writes them through an
  /// entry cached before the call. A shared memfd keeps its data. Rewrite page-table entries before the call, and
  /// copy or reuse a frame only after it.
  public func zap(_ run: FrameRun) {
    check(run)
    // Cannot fail for a range inside one shared mapping, and continuing with a stale translation would hand one
    // task's frame to another: stop instead.
    let result = unsafe ckvm_advise(guestWindow + Int(run.start.address), run.count << 12, MADV_DONTNEED)
    precondition(result == 0, "madvise(MADV_DONTNEED) failed")
  }

  /// Gives the frames memory and host page-table entries in both windows, so that later faults are cheaper.
  public func populate(_ run: FrameRun) throws(Errno) {
    check(run)
    try unsafe Self.populate(hostWindow + Int(run.start.address), byteCount: run.count << 12)
    try unsafe Self.populate(guestWindow + Int(run.start.address), byteCount: run.count << 12)
  }

  /// Makes the 512 frames from a multiple of 512 on a huge page of the host, mapped as one in both windows. They keep
  /// their data, and concurrent accesses only wait. Takes 0.3 ms if the frames had no memory, else some milliseconds.
  /// - Throws: if the host has no free huge page, or is older than Linux 6.1.
  public func collapse(_ run: FrameRun) throws(Errno) {
    check(run)
    precondition(run.count == Self.framesPerBlock && Int(run.start.rawValue) % Self.framesPerBlock == 0)
    // The kernel collapses only a range with at least one page present.
    try populate(FrameRun(start: run.start, count: 1))
    let result = unsafe ckvm_advise(guestWindow + Int(run.start.address), run.count << 12, CKVM_MADV_COLLAPSE)
    guard result == 0 else { throw Errno(rawValue: -result) }
    try populate(run)
  }

  /// Frames in a huge page of the host.
  public static let framesPerBlock = 512

  private static func populate(_ start: UnsafeMutableRawPointer, byteCount: Int) throws(Errno) {
    let result = unsafe ckvm_advise(start, byteCount, CKVM_MADV_POPULATE_WRITE)
    guard result == 0 else { throw Errno(rawValue: -result) }
  }

  /// Returns the frames' memory to the host: the memfd gets a hole, which reads as zero; both windows' entries go.
  public func discard(_ run: FrameRun) {
    check(run)
    // Cannot fail for a memfd of this size; callers depend on the zeros, so do not continue without.
    let result = ckvm_punch_hole(descriptor, Int64(run.start.address), Int64(run.count << 12))
    precondition(result == 0, "fallocate(FALLOC_FL_PUNCH_HOLE) failed")
  }

  // MARK: Contents, through the host window

  public func zero(_ run: FrameRun) {
    check(run)
    unsafe memset(hostWindow + Int(run.start.address), 0, run.count << 12)
  }

  public func copy(from source: FrameNumber, to destination: FrameNumber) {
    unsafe memcpy(pointer(to: destination), pointer(to: source), 4096)
  }

  /// The 4,096 bytes of a frame in the host window; valid as long as the pool.
  @unsafe
  public func pointer(to frame: FrameNumber) -> UnsafeMutableRawPointer {
    check(FrameRun(start: frame, count: 1))
    return unsafe hostWindow + Int(frame.address)
  }

  /// Copies bytes of one frame, from `offset` on, into `buffer`.
  public func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>) {
    precondition(offset >= 0 && offset + buffer.count <= 4096)
    unsafe buffer.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      unsafe memcpy(base, pointer(to: frame) + offset, bytes.count)
    }
  }

  /// Copies `bytes` into one frame, from `offset` on.
  public func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>) {
    precondition(offset >= 0 && offset + bytes.count <= 4096)
    unsafe bytes.withUnsafeBytes { source in
      guard let base = source.baseAddress else { return }
      unsafe memcpy(pointer(to: frame) + offset, base, source.count)
    }
  }

  private func check(_ run: FrameRun) {
    precondition(run.count > 0 && Int(run.start.rawValue) + run.count <= frameCount, "frame outside the pool")
  }
}
