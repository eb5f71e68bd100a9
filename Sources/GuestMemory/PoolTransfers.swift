// A device's access to the pool: words of a queue's rings, and transfers between a file and frames without another
// copy. All go through the host window. The server decides which frames a device may reach
// (PhysicalMemory/Transfers.swift).

internal import CKVM
internal import Glibc
public import SystemPackage

/// A guest-physical address, as passed by a device's driver.
@frozen
public struct PhysicalAddress: Hashable, Comparable, Sendable, BitwiseCopyable {
  public let rawValue: UInt64

  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public static func < (left: PhysicalAddress, right: PhysicalAddress) -> Bool {
    left.rawValue < right.rawValue
  }
}

/// Adjacent bytes of guest-physical memory, at least one, ending at 2^64 at most.
public struct PhysicalRange: Hashable, Sendable {
  public let start: PhysicalAddress
  public let count: Int

  /// Returns nil if the range is empty or exceeds the address space.
  public init?(_ start: PhysicalAddress, count: Int) {
    guard count > 0, UInt64(count) - 1 <= .max - start.rawValue else { return nil }
    self.start = start
    self.count = count
  }

  /// The last byte.
  public var last: PhysicalAddress { PhysicalAddress(start.rawValue + (UInt64(count) - 1)) }

  /// The frames that contain it; nil if they exceed the range of frame numbers.
  public var frames: FrameRun? {
    guard last.rawValue >> 12 < UInt64(UInt32.max) else { return nil }
    let first = start.rawValue >> 12
    return FrameRun(start: FrameNumber(UInt32(first)), count: Int(last.rawValue >> 12 - first) + 1)
  }
}

// SAFETY: `pointer` checks each range against the pool, which is mapped as long as it lives; words are naturally
// aligned. A driver may write the memory concurrently: words are read and written whole, none twice.
extension PoolMemory {
  /// The range in the host window; checks the pool's end.
  @unsafe
  private func pointer(_ address: PhysicalAddress, _ count: Int) -> UnsafeMutableRawPointer {
    let end = UInt64(byteCount)
    precondition(address.rawValue <= end && UInt64(count) <= end - address.rawValue, "memory outside the pool")
    let offset = Int(address.rawValue & 4095)
    return unsafe pointer(to: FrameNumber(UInt32(address.rawValue >> 12))) + offset
  }

  /// Loads the two bytes at an even address (acquire).
  public func load16(_ address: PhysicalAddress) -> UInt16 {
    precondition(address.rawValue % 2 == 0)
    return unsafe ckvm_load16(pointer(address, 2).assumingMemoryBound(to: UInt16.self))
  }

  /// Loads the eight bytes at a multiple of 8.
  public func load64(_ address: PhysicalAddress) -> UInt64 {
    precondition(address.rawValue % 8 == 0)
    return unsafe ckvm_load(pointer(address, 8).assumingMemoryBound(to: UInt64.self))
  }

  /// Stores two bytes (release).
  public func store16(_ address: PhysicalAddress, _ value: UInt16) {
    precondition(address.rawValue % 2 == 0)
    unsafe ckvm_store16(pointer(address, 2).assumingMemoryBound(to: UInt16.self), value)
  }

  public func store32(_ address: PhysicalAddress, _ value: UInt32) {
    precondition(address.rawValue % 4 == 0)
    unsafe ckvm_store32(pointer(address, 4).assumingMemoryBound(to: UInt32.self), value)
  }

  public func store8(_ address: PhysicalAddress, _ value: UInt8) {
    unsafe ckvm_store8(pointer(address, 1).assumingMemoryBound(to: UInt8.self), value)
  }

  public func load8(_ address: PhysicalAddress) -> UInt8 {
    unsafe ckvm_load8(pointer(address, 1).assumingMemoryBound(to: UInt8.self))
  }

  /// Orders earlier writes before later reads, in this thread.
  public static func fence() { ckvm_fence() }

  /// Reads bytes of a file from `offset` on into the ranges, in order.
  /// - Returns: the number of bytes; fewer than the ranges hold at the file's end.
  public func read(_ file: FileDescriptor, at offset: Int64, into ranges: [PhysicalRange]) throws(Errno) -> Int {
    try unsafe transfer(ranges) { vector, count, done in
      unsafe preadv(file.rawValue, vector, count, Int(offset) + done)
    }
  }

  /// Writes the ranges' bytes to a file, in order, from `offset` on.
  public func write(_ ranges: [PhysicalRange], to file: FileDescriptor, at offset: Int64) throws(Errno) -> Int {
    try unsafe transfer(ranges) { vector, count, done in
      unsafe pwritev(file.rawValue, vector, count, Int(offset) + done)
    }
  }

  /// Calls `move` until all bytes are moved, or it moves none.
  private func transfer(
    _ ranges: [PhysicalRange], _ move: (UnsafePointer<iovec>, Int32, _ done: Int) -> Int
  ) throws(Errno) -> Int {
    var vectors: [iovec] = unsafe []
    unsafe vectors.reserveCapacity(ranges.count)
    for range in ranges {
      let bytes = unsafe pointer(range.start, range.count)
      // Merges adjacent ranges.
      if let last = unsafe vectors.last, unsafe last.iov_base + last.iov_len == bytes {
        unsafe vectors[vectors.count - 1].iov_len += range.count
      } else {
        unsafe vectors.append(iovec(iov_base: bytes, iov_len: range.count))
      }
    }
    var done = 0
    var first = 0
    while unsafe first < vectors.count {
      let count = unsafe min(vectors.count - first, Self.mostVectors)
      let moved = unsafe vectors.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return 0 }
        return unsafe move(base + first, Int32(count), done)
      }
      if moved < 0 {
        if errno == EINTR { continue }
        throw Errno(rawValue: errno)
      }
      if moved == 0 { break }
      done += moved
      var left = moved
      while left > 0 {
        let step = unsafe min(left, vectors[first].iov_len)
        unsafe vectors[first].iov_base += step
        unsafe vectors[first].iov_len -= step
        left -= step
        if unsafe vectors[first].iov_len == 0 { first += 1 }
      }
    }
    return done
  }

  /// IOV_MAX.
  private static var mostVectors: Int { 1024 }
}
