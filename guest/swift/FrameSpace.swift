// What can be done with the frames of a container, one's own or somebody's: mapping (R25), logical copies (R24), pins
// (R22). And the weak capability to somebody's (R20, R21).

import CPhysmem

/// The frames of a container.
public protocol FrameSpace: ~Copyable {
  /// The handle in the C interface.
  var handle: UInt32 { get }
}

/// An error of a copy, with nothing changed.
public struct CopyError: Error, Equatable {
  public let error: PMError
  /// The id it is about; nil where it is about none.
  public let frame: UInt32?

  public init(_ error: PMError, frame: UInt32?) {
    self.error = error
    self.frame = frame
  }
}

extension FrameSpace where Self: ~Copyable {
  /// Maps the frames in order from the page at `address` on, in place of what was mapped there.
  public func map(
    _ frames: Range<UInt32>,
    at address: UInt,
    rights: Rights,
    lazily: Bool = true
  ) throws(PMError) {
    let flags = rights.rawValue | (lazily ? UInt32(PM_MAP_LAZY) : 0)
    // SAFETY: the server checks the address; the program says what it uses the pages for.
    let place = unsafe UnsafeMutableRawPointer(bitPattern: address)
    try PMError.check(unsafe pm_container_map(handle, frames.lowerBound, UInt32(frames.count), place, flags))
  }

  /// Makes the ids from `start` on name logical copies of the frames, as memmove would.
  public func copy(
    _ frames: Range<UInt32>, to destination: borrowing some FrameSpace & ~Copyable, at start: UInt32
  ) throws(CopyError) {
    let (from, to, count) = (handle, destination.handle, UInt32(frames.count))
    try Self.check { unsafe pm_container_copy(from, frames.lowerBound, to, start, count, &$0) }
  }

  /// Does so with frames named one by one.
  public func copy(
    _ frames: [UInt32], to destination: borrowing some FrameSpace & ~Copyable, at start: UInt32
  ) throws(CopyError) {
    let (from, to, count) = (handle, destination.handle, UInt32(frames.count))
    try Self.check { error in
      unsafe frames.withUnsafeBufferPointer {
        unsafe pm_container_copy_gather(from, $0.baseAddress, to, start, count, &error)
      }
    }
  }

  /// Does so to ids named one by one, one for each frame; of an id that is there twice, the last one counts.
  public func copy(
    _ frames: Range<UInt32>, to destination: borrowing some FrameSpace & ~Copyable, at ids: [UInt32]
  ) throws(CopyError) {
    precondition(ids.count == frames.count)
    let (from, to, count) = (handle, destination.handle, UInt32(frames.count))
    try Self.check { error in
      unsafe ids.withUnsafeBufferPointer {
        unsafe pm_container_copy_scatter(from, frames.lowerBound, to, $0.baseAddress, count, &error)
      }
    }
  }

  /// Does so with both.
  public func copy(
    _ frames: [UInt32], to destination: borrowing some FrameSpace & ~Copyable, at ids: [UInt32]
  ) throws(CopyError) {
    precondition(ids.count == frames.count)
    let (from, to, count) = (handle, destination.handle, UInt32(frames.count))
    try Self.check { error in
      unsafe frames.withUnsafeBufferPointer { sources in
        unsafe ids.withUnsafeBufferPointer { destinations in
          unsafe pm_container_copy_scatter_gather(
            from, sources.baseAddress, to, destinations.baseAddress, count, &error)
        }
      }
    }
  }

  /// Makes a call that may store the id it fails for.
  static func check(_ call: (inout UInt32) -> pm_error_t) throws(CopyError) {
    // Stays as it is where the error is about no id.
    var frame = UInt32.max
    guard let error = PMError.of(call(&frame)) else { return }
    let isAlwaysAboutOne = error == .noEntry || error == .noMemory
    throw CopyError(error, frame: isAlwaysAboutOne || frame != .max ? frame : nil)
  }

  /// Keeps the frames in place, each in a physical frame of its own.
  /// - Parameter microseconds: at most PM_LOCK_MAXIMUM_US.
  /// - Returns: their physical addresses.
  public func pin(_ frames: Range<UInt32>, microseconds: UInt64) throws(PMError) -> [UInt64] {
    var physical = [UInt64](repeating: 0, count: frames.count)
    let (handle, count) = (handle, UInt32(frames.count))
    let result = unsafe physical.withUnsafeMutableBufferPointer {
      unsafe pm_container_pin(handle, frames.lowerBound, count, microseconds, $0.baseAddress)
    }
    try PMError.check(result)
    return physical
  }

  /// Ends the task's pin of the frames.
  public func unpin(_ frames: Range<UInt32>) throws(PMError) {
    try PMError.check(pm_container_unpin(handle, frames.lowerBound, UInt32(frames.count)))
  }
}

/// A weak capability to somebody's container. Its calls throw `canceled` once the owner has revoked it. The value owns
/// the handle.
@frozen
public struct WeakContainer: ~Copyable, FrameSpace {
  public let handle: UInt32

  /// Takes over a handle, such as one from a message.
  public init(handle: UInt32) { self.handle = handle }

  deinit { _ = pm_cap_drop(handle) }

  /// The handle, which is the caller's to give up from now on: to be moved in a message.
  public consuming func take() -> UInt32 {
    let handle = handle
    discard self
    return handle
  }

  /// Keeps the owner from the container for a time, at most PM_LOCK_MAXIMUM_US.
  public func lock(microseconds: UInt64) throws(PMError) {
    try PMError.check(pm_container_lock(handle, microseconds))
  }

  /// Ends the task's lock.
  public func unlock() throws(PMError) { try PMError.check(pm_container_unlock(handle)) }
}
