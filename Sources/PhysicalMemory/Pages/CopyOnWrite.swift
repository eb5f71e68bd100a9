// Copy-on-write: what happens when a logical copy is written (R24, R26).

internal import GuestMemory

extension ServerState {
  /// Makes the content that `shown` names private to it, so that it can be written.
  ///
  /// With other sharers, copies the data to a new frame and clears the leaves of `shown`; the other sharers keep
  /// theirs. The last sharer keeps the frame.
  mutating func makePrivate(_ shown: ContainerFrame) throws(CallFailure) {
    guard let number = containers[shown.container].frames[shown.id].content else { return }
    guard contents[number].sharers > 1 else { return }
    // Take a frame of the stock although it need not be zero: stocked frames are populated, so the fault is cheaper.
    let taken = takeContentFrame()
    // Taking the frame may have expired the soft references of other sharers.
    let content = contents[number]
    guard content.sharers > 1 else {
      if let taken { pool.give(FrameRun(start: taken, count: 1)) }
      return
    }
    guard let copy = taken else { throw .noMemory }
    separate(shown, from: number, into: copy)
    statistics.copiesOnWrite += 1
  }

  /// Gives one of several sharers a copy in a frame of its own.
  mutating func separate(_ shown: ContainerFrame, from number: ContentNumber, into copy: FrameNumber) {
    let source = contents[number].frame
    guard let fresh = contents.insert(frame: copy) else { preconditionFailure("more contents than frames") }
    // All leaves of a shared content are read-only, so the data cannot change during the copy.
    memory.copy(from: source, to: copy)
    pool.records[copy].owner = fresh.rawValue
    removeLeaves(of: source, .showing(shown), showing: shown, atOnce: true)
    finishRevocations()
    letGo(of: number)
    containers[shown.container].frames.set(shown.id, VirtualFrameWord(fresh))
  }
}
