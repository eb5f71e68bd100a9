// The 32-bit word of an id: what the id names.

/// What an id names: nothing, an empty frame, a content, or, when released, a soft reference, which everything except
/// recovery treats as nothing.
struct VirtualFrameWord: Equatable, BitwiseCopyable {
  let rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }
  @inline(__always) init(_ content: ContentNumber) { rawValue = content.rawValue }
  init(_ reference: SoftReferenceNumber) { rawValue = Self.released | reference.rawValue }

  /// Words from here on name soft references. Content numbers are smaller.
  private static let released: UInt32 = 1 << 31

  /// The id is not in use.
  static var unused: VirtualFrameWord { VirtualFrameWord(rawValue: 0) }
  /// Allocated and never touched: reads as zero, has no frame.
  static var empty: VirtualFrameWord { VirtualFrameWord(rawValue: 1) }
  /// Released and never touched: recoverable without a soft reference.
  static var releasedEmpty: VirtualFrameWord { VirtualFrameWord(rawValue: released) }

  @inline(__always) var isUsed: Bool { Self.isUsed(rawValue) }
  @inline(__always) var content: ContentNumber? { Self.isContent(rawValue) ? ContentNumber(rawValue) : nil }
  var softReference: SoftReferenceNumber? {
    rawValue > Self.released ? SoftReferenceNumber(rawValue & ~Self.released) : nil
  }
  var isReleased: Bool { Self.isReleased(rawValue) }

  @inline(__always) static func isUsed(_ word: UInt32) -> Bool { word &- 1 < released - 1 }
  @inline(__always) static func isContent(_ word: UInt32) -> Bool {
    word &- ContentTable.firstNumber < released - ContentTable.firstNumber
  }
  @inline(__always) static func isReleased(_ word: UInt32) -> Bool { word >= released }
}
