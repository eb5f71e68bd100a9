// The area for page tables: the pool's last frames. Tables are unmovable; grouping them leaves the rest of the pool
// free for compaction.
//
// Its size is the reserve for tables (`TableReserve`). Further tables may be anywhere, and contents use the area when
// no other frame is free: the placement of frames never limits how many a task may have.

internal import GuestMemory

/// The free frames of the area for page tables.
struct TableArea: Sendable {
  let frames: Range<Int>
  /// Freed frames of the area.
  let spare: FrameList
  /// Frames of the area from here on were never taken.
  fileprivate var next: Int

  init(frames: Range<Int>, spare: FrameList) {
    self.frames = frames
    self.spare = spare
    next = frames.lowerBound
  }

  /// Free frames without a touched record.
  var untouched: Range<Int> { next..<frames.upperBound }
}

extension FramePool {
  /// Free frames of the area.
  var spareCount: Int { records.count(of: tableArea.spare) + tableArea.untouched.count }

  /// Takes a frame of the area; nil if it is used up. If it is not known to be zero, the caller must zero it.
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
