// Addresses in a task's address space.

/// A virtual page: virtual address divided by 4,096.
@frozen
public struct PageNumber: Hashable, Comparable, Sendable, BitwiseCopyable {
  public let rawValue: UInt64

  @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  /// The page that holds a byte.
  @inlinable public init(containing address: UInt64) { rawValue = address >> 12 }

  /// The virtual address of the page's first byte.
  @inlinable public var address: UInt64 { rawValue << 12 }

  @inlinable public func advanced(by count: Int) -> PageNumber {
    PageNumber(rawValue &+ UInt64(bitPattern: Int64(count)))
  }
  @inlinable public func distance(to other: PageNumber) -> Int { Int(other.rawValue) - Int(rawValue) }

  @inlinable public static func < (left: PageNumber, right: PageNumber) -> Bool { left.rawValue < right.rawValue }
}
