// The ids used by tasks and by the server. Each is a type of its own, so that a source cannot be passed for a
// destination, nor a container's slot for one of its frames.

internal import GuestMemory

/// A task's name for a container, an endpoint or another capability: an index in its own handle table.
public struct Handle: Hashable, Sendable, BitwiseCopyable, ExpressibleByIntegerLiteral {
  /// The index, as the task passes it.
  public let rawValue: UInt32

  /// - Parameter rawValue: the index, as the task passes it.
  public init(_ rawValue: UInt32) { self.rawValue = rawValue }
  /// For handles with a fixed number.
  public init(integerLiteral value: UInt32) { rawValue = value }
}

/// The number of a virtual frame in its container.
public struct FrameID: Hashable, Strideable, Sendable, BitwiseCopyable, ExpressibleByIntegerLiteral {
  /// The id, from 0 to 2^32 - 1.
  public let rawValue: UInt32

  /// - Parameter rawValue: the id.
  public init(_ rawValue: UInt32) { self.rawValue = rawValue }
  /// For ids in tests.
  public init(integerLiteral value: UInt32) { rawValue = value }

  @inline(__always)
  /// Orders ids by number.
  public static func < (left: FrameID, right: FrameID) -> Bool { left.rawValue < right.rawValue }
  @inline(__always)
  /// The id `count` further on, which must exist.
  public func advanced(by count: Int) -> FrameID { FrameID(UInt32(Int(rawValue) + count)) }
  /// The number of ids from this one to `other`.
  public func distance(to other: FrameID) -> Int { Int(other.rawValue) - Int(rawValue) }
}

extension FrameID {
  init(position: UInt64) { rawValue = UInt32(position) }

  /// The id's number as a range bound: the end of a range may be past the last id.
  var position: UInt64 { UInt64(rawValue) }
}

/// A byte address in a task's address space, as the task passed it: unchecked.
public struct GuestAddress: Hashable, Sendable, BitwiseCopyable, ExpressibleByIntegerLiteral {
  /// The address in bytes.
  public let rawValue: UInt64

  /// - Parameter rawValue: the address in bytes.
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  /// For addresses in tests.
  public init(integerLiteral value: UInt64) { rawValue = value }
}

extension GuestAddress {
  /// The address `count` bytes further on; the range must have been checked to be in the task's half.
  func advanced(by count: Int) -> GuestAddress { GuestAddress(rawValue + UInt64(count)) }

  var page: PageNumber { PageNumber(containing: rawValue) }
  var offsetInPage: Int { Int(rawValue & 4095) }
}

/// An index of a slab, typed by the slab's contents.
protocol SlabIndex: Hashable, Sendable, BitwiseCopyable {
  var rawValue: UInt32 { get }
  init(_ rawValue: UInt32)
}

/// A container's index in the server's table.
struct ContainerSlot: SlabIndex, ExpressibleByIntegerLiteral {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
  init(integerLiteral value: UInt32) { rawValue = value }
}

/// An endpoint's index in the server's table.
struct EndpointSlot: SlabIndex, ExpressibleByIntegerLiteral {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
  init(integerLiteral value: UInt32) { rawValue = value }
}

/// A loaded program's index in the server's table.
public struct ImageNumber: SlabIndex, Hashable, Sendable, BitwiseCopyable {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
}
