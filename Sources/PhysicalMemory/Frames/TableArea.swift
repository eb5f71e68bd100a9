// The area for page tables: the pool's last frames. A table cannot be moved, as a content can; kept together, tables
// leave the rest of the pool to be cleared wherever adjacent frames are asked for.
//
// It is as large as the reserve for tables (`TableReserve`). Tables beyond it are anywhere, and a content takes one of
// its frames when no other is free: how many frames anybody may have does not depend on where they lie.

internal import GuestMemory

struct TableArea: Sendable {
  let frames: Range<Int>
  /// Frames of the area that were given back.
  let spare: FrameList
  /// From here on the area's frames were never taken.
  fileprivate var next: Int

  init(frames: Range<Int>, spare: FrameList) {
    self.frames = frames
    self.spare = spare
    next = frames.lowerBound
  }

  /// Free frames that no record says anything of.
  var untouched: Range<Int> { next..<frames.upperBound }
}

extension FramePool {
  /// Free frames of the area.
  var spareCount: Int { records.count(of: tableArea.spare) + tableArea.untouched.count }

  /// A frame of the area, nil if it is used up. If it is not known to be zero, the caller must clear it.
  mutating func takeSpareFrame() -> (frame: FrameNumber, isZero: Bool)? {
    if let frame = records.popFirst(of: tableArea.spare) {
      let flags = records[frame].flags
      records[frame] = FrameRecord(state: .inUse, flags: flags)
      return (frame, !flags.contains(.dirty))
    }
    guard let index = tableArea.untouched.first else { return nil }
    tableArea.next += 1
    records.storage[index] = FrameRecord(state: .inUse)
    return (FrameNumber(UInt32(index)), true)
  }

  mutating func giveSpare(_ frame: FrameNumber) {
    records[frame] = FrameRecord(state: .spare, flags: .dirty)
    records.push(frame, onto: tableArea.spare)
  }
}
