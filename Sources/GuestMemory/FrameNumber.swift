// Names for places in guest-physical memory.

/// A physical frame of the machine: guest-physical address divided by 4,096. Frame 0 is never handed out.
@frozen
public struct FrameNumber: Hashable, Comparable, Sendable, BitwiseCopyable {
  public let rawValue: UInt32

  @inlinable public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var none: FrameNumber { FrameNumber(0) }
  @inlinable public var isNone: Bool { rawValue == 0 }

  /// The guest-physical address of the frame's first byte.
  @inlinable public var address: UInt64 { UInt64(rawValue) << 12 }

  @inlinable public func advanced(by count: Int) -> FrameNumber {
    FrameNumber(UInt32(truncatingIfNeeded: Int(rawValue) + count))
  }

  @inlinable public static func < (left: FrameNumber, right: FrameNumber) -> Bool { left.rawValue < right.rawValue }
}

/// Adjacent frames.
@frozen
public struct FrameRun: Hashable, Sendable, BitwiseCopyable {
  public let start: FrameNumber
  /// In frames.
  public let count: Int

  @inlinable
  public init(start: FrameNumber, count: Int) {
    self.start = start
    self.count = count
  }

  /// The first frame behind the run.
  @inlinable public var end: FrameNumber { start.advanced(by: count) }
}
