// Numbers of frames: 4,096 bytes of guest-physical memory, counted from the start of the pool.

/// A physical frame, by its index in the pool. Frame 0 is never handed out, so 0 means no frame.
@frozen
public struct FrameNumber: Hashable, Comparable, Sendable, BitwiseCopyable {
  public let rawValue: UInt32

  @inlinable
  public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  /// No frame.
  @inlinable
  public static var none: FrameNumber { FrameNumber(0) }

  @inlinable
  public var isNone: Bool { rawValue == 0 }

  /// The guest-physical address of the frame's first byte.
  @inlinable
  public var address: UInt64 { UInt64(rawValue) << 12 }

  /// The frame `count` frames after this one. Traps if the number overflows.
  @inlinable
  public func advanced(by count: Int) -> FrameNumber { FrameNumber(UInt32(Int(rawValue) + count)) }

  @inlinable
  public static func < (left: FrameNumber, right: FrameNumber) -> Bool { left.rawValue < right.rawValue }
}

/// Adjacent frames: `count` of them from `start` on.
@frozen
public struct FrameRun: Hashable, Sendable, BitwiseCopyable {
  public var start: FrameNumber
  /// In frames.
  public var count: Int

  @inlinable
  public init(start: FrameNumber, count: Int) {
    self.start = start
    self.count = count
  }

  /// The frame after the last.
  @inlinable
  public var end: FrameNumber { start.advanced(by: count) }
}
