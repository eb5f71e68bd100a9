// Operations on the frames of a container, owned or another task's: mapping (R25), logical copies (R24), pins (R22).
// And weak capabilities (R20, R21).

import CPhysmem

/// The frames of a container.
public protocol FrameSpace: ~Copyable {
  /// The handle in the C interface.
  var handle: UInt32 { get }
}

/// An error of a copy, which changed nothing.
public struct CopyError: Error, Equatable {
  public let error: PMError
  /// The id that the error concerns, if any.
  public let frame: UInt32?

  public init(_ error: PMError, frame: UInt32?) {
    self.error = error
    self.frame = frame
  }
}

extension FrameSpace where Self: ~Copyable {
  /// Maps the frames in order from the page at `address` on, replacing what was mapped there.
  public func map(
    _ frames: Range<UInt32>,
    at address: UInt,
    rights: Rights,
    lazily: Bool = true
  ) throws(PMError) {
    let flags = rights.rawValue | (lazily ? UInt32(PM_MAP_LAZY) : 0)
    // SAFETY: the server checks the address; the program decides how it uses the pages.
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

  /// The same with frames listed one by one.
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

  /// The same to ids listed one by one, one for each frame; if an id occurs twice, the last one counts.
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

  /// The same with both listed one by one.
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

  /// Makes a call that may store the id that it fails for.
  static func check(_ call: (inout UInt32) -> pm_error_t) throws(CopyError) {
    // Unchanged if the error does not concern an id.
    var frame = UInt32.max
    guard let error = PMError.of(call(&frame)) else { return }
    let isAlwaysAboutOne = error == .noEntry || error == .noMemory
    throw CopyError(error, frame: isAlwaysAboutOne || frame != .max ? frame : nil)
  }

  /// Pins the frames, each in a physical frame of its own.
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

/// A weak capability to another task's container. Its calls throw `canceled` once the owner has revoked it. The value
/// owns the handle.
@frozen
public struct WeakContainer: ~Copyable, FrameSpace {
  public let handle: UInt32

  /// Takes ownership of a handle, such as one from a message.
  public init(handle: UInt32) { self.handle = handle }

  deinit { _ = pm_cap_drop(handle) }

  /// Gives the handle to the caller, for example to be moved in a message.
  public consuming func take() -> UInt32 {
    let handle = handle
    discard self
    return handle
  }

  /// Locks the owner out of the container, for at most PM_LOCK_MAXIMUM_US.
  public func lock(microseconds: UInt64) throws(PMError) {
    try PMError.check(pm_container_lock(handle, microseconds))
  }

  /// Ends the task's lock.
  public func unlock() throws(PMError) { try PMError.check(pm_container_unlock(handle)) }
}
