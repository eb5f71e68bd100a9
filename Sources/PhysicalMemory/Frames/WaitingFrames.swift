// Freed frames that a vCPU may still access. They have no owner and count as free, but are not taken, zeroed, or given
// back to the host before a grace period has passed (GracePeriod.swift).

internal import GuestMemory

/// The lists of the two grace periods' frames.
struct WaitingFrames: BitwiseCopyable {
  /// Frames freed now wait here.
  fileprivate(set) var open: FrameList
  fileprivate(set) var ending: FrameList

  init(firstHead: UInt32) {
    open = FrameList(head: firstHead)
    ending = FrameList(head: firstHead + 1)
  }
}

extension FramePool {
  var waitingCount: Int { records.count(of: waiting.open) + endingCount }
  /// Waiting frames of the period that is ending.
  var endingCount: Int { records.count(of: waiting.ending) }

  mutating func wait(_ frame: FrameNumber, flags: FrameFlags) {
    records[frame] = FrameRecord(state: .waiting, flags: flags)
    records.push(frame, onto: waiting.open)
  }

  /// Frames freed from now on belong to a new period.
  mutating func endPeriod() { swap(&waiting.open, &waiting.ending) }

  /// Frees waited frames of the ended period, at most `most`.
  mutating func giveEnded(most: Int) {
    var left = most
    while left > 0, let frame = records.popFirst(of: waiting.ending) {
      giveNow(frame)
      left -= 1
    }
  }
}
