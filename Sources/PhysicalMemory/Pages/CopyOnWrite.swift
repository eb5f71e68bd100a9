// Logical copies: several virtual frames naming one content, and the moment when one of them is written (R24, R26).

internal import GuestMemory

extension ServerState {
  /// Makes the content that `shown` names its own, so that it may be written.
  ///
  /// With other sharers the data is copied to a new frame; leaves through which tasks see `shown` are emptied, those
  /// of the other sharers stay. The last sharer keeps the frame as it is.
  mutating func makePrivate(_ shown: ContainerFrame) throws(CallFailure) {
    guard let number = containers[shown.container].frames[shown.id].content else { return }
    guard contents[number].sharers > 1 else { return }
    // One of the stock, although it need not be zero: those are populated, and the fault does not pay for that.
    let taken = takeContentFrame()
    // Taking it may have cost the other sharers their released content.
    let content = contents[number]
    guard content.sharers > 1 else {
      if let taken { pool.give(FrameRun(start: taken, count: 1)) }
      return
    }
    guard let copy = taken else { throw .noMemory }
    separate(shown, from: number, into: copy)
    statistics.copiesOnWrite += 1
  }

  /// One of several sharers gets a copy in a frame of its own.
  mutating func separate(_ shown: ContainerFrame, from number: ContentNumber, into copy: FrameNumber) {
    let source = contents[number].frame
    guard let fresh = contents.insert(frame: copy) else { preconditionFailure("more contents than frames") }
    // Everyone's mapping of a shared content is read-only, so the data cannot change under the copy.
    memory.copy(from: source, to: copy)
    pool.records[copy].owner = fresh.rawValue
    removeLeaves(of: source, .showing(shown), showing: shown, atOnce: true)
    finishRevocations()
    letGo(of: number)
    containers[shown.container].frames.set(shown.id, VirtualFrameWord(fresh))
  }
}
