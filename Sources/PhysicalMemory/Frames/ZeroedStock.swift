// Prezeroing: a stock of frames known to be zero, so that a fault need not zero one.
//
// A background thread takes a batch under the lock (`takeForZeroing`), zeroes it without the lock, and returns it under
// the lock (`giveZeroed`). The thread decides the size of the stock from `stockedCount`.

public import GuestMemory

/// Frames on their way into the stock. Must be passed to `giveZeroed` exactly once.
public struct ZeroingBatch: Sendable {
  /// All frames of the batch.
  public fileprivate(set) var runs: [FrameRun] = []
  /// The frames to zero; the others are zero already.
  public fileprivate(set) var dirtyRuns: [FrameRun] = []
  /// The size of the batch in frames.
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

  /// Takes one frame for a content that must begin as zero; nil when none is free. Prefers the stock. If `isZero` is
  /// false, the caller must zero it.
  public mutating func takeZeroedFrame() -> (frame: FrameNumber, isZero: Bool)? {
    let taken = records.popFirst(of: stock) ?? runs.take(order: 0, in: &records) ?? records.popFirst(of: loose)
    guard let frame = taken else { return nil }
    let flags = records[frame].flags
    records[frame] = FrameRecord(state: .inUse, flags: flags)
    return (frame, !flags.contains(.dirty))
  }

  /// Fills `frames` with frames for contents that must begin as zero, adjacent as far as possible. The caller must zero
  /// those that are dirty (`isDirty`). For the pages around a fault: a few hundred at most.
  /// - Returns: the number of frames taken.
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

  /// Takes up to `most` frames for the prezeroing thread; none if the free runs and the loose list are empty. They are
  /// not free until they are returned. Allocates the batch's arrays, since it is off the fault path.
  public mutating func takeForZeroing(most: Int) -> ZeroingBatch {
    precondition(most > 0, "an empty batch")
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

  /// Puts the frames of a batch, all zero now, into the stock. Frames of a run are taken in ascending order.
  public mutating func giveZeroed(_ batch: ZeroingBatch) {
    zeroingCount -= batch.count
    for run in batch.runs.reversed() {
      for offset in (0..<run.count).reversed() {
        let frame = run.start.advanced(by: offset)
        precondition(records[frame].state == .zeroing, "frame to stock was not being zeroed")
        records[frame] = FrameRecord(state: .stocked)
        records.push(frame, onto: stock)
      }
    }
  }
}

extension ServerState {
  /// Takes a few frames at a time: holds the lock no longer than for a small copy.
  mutating func zeroAhead(target: Int) -> [FrameRun] {
    let missing = target - pool.stockedCount
    guard missing > 0 else {
      hasAskedForZeroedFrames = false
      return []
    }
    // When nothing is left to zero, the thread is not woken again until frames come back.
    let batch = pool.takeForZeroing(most: min(missing, 16))
    for run in batch.dirtyRuns { memory.zero(run) }
    pool.giveZeroed(batch)
    return batch.runs
  }
}
