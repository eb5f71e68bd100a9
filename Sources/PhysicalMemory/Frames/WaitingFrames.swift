// Frames that were given back while somebody may still look at them. They are nobody's and count as free, and nothing
// takes them, clears them, or gives their memory to the host before they have waited (GracePeriod.swift says how long).

internal import GuestMemory

/// The lists of frames of the two grace periods.
struct WaitingFrames: BitwiseCopyable {
  /// What is given back now waits here.
  fileprivate(set) var open: FrameList
  fileprivate(set) var ending: FrameList

  init(firstHead: UInt32) {
    open = FrameList(head: firstHead)
    ending = FrameList(head: firstHead + 1)
  }
}

extension FramePool {
  var waitingCount: Int { records.count(of: waiting.open) + endingCount }
  /// Those of the period that is ending.
  var endingCount: Int { records.count(of: waiting.ending) }

  mutating func wait(_ frame: FrameNumber, flags: FrameFlags) {
    records[frame] = FrameRecord(state: .waiting, flags: flags)
    records.push(frame, onto: waiting.open)
  }

  /// Frames that are given back from here on are of another period.
  mutating func endPeriod() { swap(&waiting.open, &waiting.ending) }

  /// Frees frames that have waited, at most `most`.
  mutating func giveEnded(most: Int) {
    var left = most
    while left > 0, let frame = records.popFirst(of: waiting.ending) {
      giveNow(frame)
      left -= 1
    }
  }
}
