// What a task names things by, and what the server does. Each is a type of its own, so that a source cannot be taken for a
// destination, nor a container's place for one of its frames.

internal import GuestMemory

/// A task's name for a container, an endpoint or a right: an entry of its own handle table.
public struct Handle: Hashable, Sendable, BitwiseCopyable, ExpressibleByIntegerLiteral {
  public let rawValue: UInt32

  public init(_ rawValue: UInt32) { self.rawValue = rawValue }
  public init(integerLiteral value: UInt32) { rawValue = value }
}

/// The number of a virtual frame in its container.
public struct FrameID: Hashable, Strideable, Sendable, BitwiseCopyable, ExpressibleByIntegerLiteral {
  public let rawValue: UInt32

  public init(_ rawValue: UInt32) { self.rawValue = rawValue }
  public init(integerLiteral value: UInt32) { rawValue = value }

  @inline(__always)
  public static func < (left: FrameID, right: FrameID) -> Bool { left.rawValue < right.rawValue }
  @inline(__always)
  public func advanced(by count: Int) -> FrameID { FrameID(UInt32(Int(rawValue) + count)) }
  public func distance(to other: FrameID) -> Int { Int(other.rawValue) - Int(rawValue) }
}

extension FrameID {
  init(position: UInt64) { rawValue = UInt32(position) }

  /// Where it is among all ids. Ranges have positions for bounds, since their ends may lie past the last id.
  var position: UInt64 { UInt64(rawValue) }
}

/// A byte of a task's address space, as the task said it: nothing has been checked yet.
public struct GuestAddress: Hashable, Sendable, BitwiseCopyable, ExpressibleByIntegerLiteral {
  public let rawValue: UInt64

  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public init(integerLiteral value: UInt64) { rawValue = value }
}

extension GuestAddress {
  /// The byte that many further on, of bytes that were checked to be in the task's half.
  func advanced(by count: Int) -> GuestAddress { GuestAddress(rawValue + UInt64(count)) }

  var page: PageNumber { PageNumber(containing: rawValue) }
  var offsetInPage: Int { Int(rawValue & 4095) }
}

/// An index of a slab, which says what the slab holds.
protocol SlabIndex: Hashable, Sendable, BitwiseCopyable {
  var rawValue: UInt32 { get }
  init(_ rawValue: UInt32)
}

/// A container's place in the server's table.
struct ContainerSlot: SlabIndex, ExpressibleByIntegerLiteral {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
  init(integerLiteral value: UInt32) { rawValue = value }
}

/// An endpoint's place in the server's table.
struct EndpointSlot: SlabIndex, ExpressibleByIntegerLiteral {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
  init(integerLiteral value: UInt32) { rawValue = value }
}

/// A loaded program.
public struct ImageNumber: SlabIndex, Hashable, Sendable, BitwiseCopyable {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
}
