// One entry of an x86-64 page table.
// Source: Intel SDM volume 3, 4.5 "4-level paging".

public import GuestMemory

@frozen
public struct PageTableEntry: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  public var rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  public static let present: UInt64 = 1 << 0
  public static let writable: UInt64 = 1 << 1
  public static let user: UInt64 = 1 << 2
  public static let accessed: UInt64 = 1 << 5
  public static let dirty: UInt64 = 1 << 6
  public static let pageSize: UInt64 = 1 << 7
  /// In a non-present directory entry, ignored by the processor: the region is detached, its leaf table aside.
  static let detached: UInt64 = 1 << 9
  /// In a leaf, ignored by the processor: a fault found the leaf correct. Any change of the leaf clears it.
  static let suspected: UInt64 = 1 << 10
  public static let noExecute: UInt64 = 1 << 63
  public static let addressMask: UInt64 = 0x000f_ffff_ffff_f000

  public static var empty: PageTableEntry { PageTableEntry(rawValue: 0) }

  /// A leaf. The accessed bit is preset, and in a writable leaf the dirty bit: only then KVM's shadow pager fills
  /// neighbours at once, and no hardware walk has to set them.
  @inlinable
  public init(leaf frame: FrameNumber, isWritable: Bool, isExecutable: Bool, isUser: Bool = true) {
    rawValue = frame.address | Self.present | Self.accessed
    if isUser { rawValue |= Self.user }
    if isWritable { rawValue |= Self.writable | Self.dirty }
    if !isExecutable { rawValue |= Self.noExecute }
  }

  /// A directory entry: it permits everything, and the leaf decides.
  @inlinable
  public init(table frame: FrameNumber) {
    rawValue = frame.address | Self.present | Self.writable | Self.user | Self.accessed
  }

  /// A leaf in a page directory, for the 512 frames from a multiple of 512 on. `leaf` is that of the first frame.
  init(superpage leaf: PageTableEntry) { rawValue = leaf.rawValue | Self.pageSize }

  @inlinable public var isPresent: Bool { rawValue & Self.present != 0 }
  @inlinable public var isWritable: Bool { rawValue & Self.writable != 0 }
  @inlinable public var isExecutable: Bool { rawValue & Self.noExecute == 0 }
  /// For a directory entry: it is a leaf of 2 MiB.
  @inlinable public var isSuperpage: Bool { rawValue & (Self.present | Self.pageSize) == Self.present | Self.pageSize }
  /// For a directory entry: it has a leaf table.
  @inline(__always) var hasTable: Bool { rawValue & (Self.present | Self.detached) != 0 }
  @inlinable public var isUser: Bool { rawValue & Self.user != 0 }
  @inlinable public var frame: FrameNumber {
    FrameNumber(UInt32(truncatingIfNeeded: (rawValue & Self.addressMask) >> 12))
  }
}
