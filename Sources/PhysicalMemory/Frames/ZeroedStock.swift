// Zeroing ahead: a stock of frames known to be zero, so that a fault need not wait for one to be cleared.
//
// A background thread takes a batch under the lock (`takeForZeroing`), clears it without the lock, and gives it back
// under the lock (`giveZeroed`). How large the stock is kept is the thread's affair: it looks at `stockedCount`.

public import GuestMemory

/// Frames on their way into the stock. Must be given back with `giveZeroed`, once.
public struct ZeroingBatch: Sendable {
  /// All frames of the batch.
  public fileprivate(set) var runs: [FrameRun] = []
  /// Those that must be cleared; the others are zero already.
  public fileprivate(set) var dirtyRuns: [FrameRun] = []
  /// In frames.
  public fileprivate(set) var count = 0

  fileprivate mutating func append(_ run: FrameRun, _ table: borrowing FrameTable) {
    runs.append(run)
    count += run.count
    for frame in Int(run.start.rawValue)..<Int(run.start.rawValue) + run.count where table.storage[frame].isDirty {
      if let last = dirtyRuns.last, Int(last.end.rawValue) == frame {
        dirtyRuns[dirtyRuns.count - 1] = FrameRun(start: last.start, count: last.count + 1)
      } else {
        dirtyRuns.append(FrameRun(start: FrameNumber(UInt32(frame)), count: 1))
      }
    }
  }
}

extension FramePool {
  /// Frames in the stock.
  public var stockedCount: Int { records.count(of: stock) }

  /// One frame for a content that must begin as zero, or nil if none is free: from the stock if it has one. If it was
  /// not known to be zero, the caller must clear it.
  public mutating func takeZeroedFrame() -> (frame: FrameNumber, isZero: Bool)? {
    let taken = records.popFirst(of: stock) ?? runs.take(order: 0, in: &records) ?? records.popFirst(of: loose)
    guard let frame = taken else { return nil }
    let flags = records[frame].flags
    records[frame] = FrameRecord(state: .inUse, flags: flags)
    return (frame, !flags.contains(.dirty))
  }

  /// Fills `frames` with frames for contents that must begin as zero, adjacent as far as possible, and returns how
  /// many there were. The caller must clear those that `isDirty`. For the pages around a fault: a few hundred at most.
  public mutating func takeZeroedFrames(into frames: inout MutableSpan<FrameNumber>) -> Int {
    var filled = 0
    while filled < frames.count, let frame = records.popFirst(of: stock) {
      records[frame] = FrameRecord(state: .inUse, flags: records[frame].flags)
      frames[filled] = frame
      filled += 1
    }
    while filled < frames.count {
      let order = floorLog2(frames.count - filled)
      guard let (start, taken) = runs.takeUpTo(order: order, in: &records) else { break }
      let run = FrameRun(start: start, count: 1 << taken)
      records.setState(of: run, to: .inUse)
      for offset in 0..<run.count { frames[filled + offset] = start.advanced(by: offset) }
      filled += run.count
    }
    while filled < frames.count, let frame = takeFrame() {
      frames[filled] = frame
      filled += 1
    }
    return filled
  }

  /// Up to `most` frames for the zeroing thread, none if the free runs and the loose list are empty. Until they are
  /// back they are not free. Allocates the batch's arrays, being off the fault path.
  public mutating func takeForZeroing(most: Int) -> ZeroingBatch {
    precondition(most > 0, "a batch of no frames")
    var batch = ZeroingBatch()
    mergeLoose()
    while batch.count < most {
      guard let (start, order) = runs.takeUpTo(order: floorLog2(most - batch.count), in: &records) else { break }
      let run = FrameRun(start: start, count: 1 << order)
      records.setState(of: run, to: .zeroing)
      batch.append(run, records)
    }
    zeroingCount += batch.count
    return batch
  }

  /// Puts the frames of a batch, all zero now, into the stock. The frames of a run come out of it in ascending order.
  public mutating func giveZeroed(_ batch: ZeroingBatch) {
    zeroingCount -= batch.count
    for run in batch.runs.reversed() {
      for offset in (0..<run.count).reversed() {
        let frame = run.start.advanced(by: offset)
        precondition(records[frame].state == .zeroing, "stocking a frame that was not being zeroed")
        records[frame] = FrameRecord(state: .stocked)
        records.push(frame, onto: stock)
      }
    }
  }
}

extension ServerState {
  /// A few at a time: the lock is not held longer than for a small copy.
  mutating func zeroAhead(target: Int) -> [FrameRun] {
    let missing = target - pool.stockedCount
    guard missing > 0 else {
      hasAskedForZeroedFrames = false
      return []
    }
    // With nothing left to clear, nobody asks again until frames come back.
    let batch = pool.takeForZeroing(most: min(missing, 16))
    for run in batch.dirtyRuns { memory.zero(run) }
    pool.giveZeroed(batch)
    return batch.runs
  }
}
