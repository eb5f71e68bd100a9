// Moving contents from frame to frame, whoever sees them (R17, R25). Nothing is lost and no write comes in between:
//
//      empty the leaves ──▶ zap the frames, settle writes ──▶ copy ──▶ the contents name their new frames ──▶ fill the leaves in again
//
// All of it is one step with the lock held; an access meanwhile faults, and finds its leaf again. A content keeps its
// number, its virtual frames and its place in every list: only its frame changes.

internal import GuestMemory

/// A content's frame, and one that was taken for it.
struct FrameMove {
  let source: FrameNumber
  let destination: FrameNumber
}

extension ServerState {
  /// Contents moved in one step: about 100 µs.
  static let movedInOneStep = 64
  /// Leaves after which a step moves no further content: some have thousands.
  static let leavesInOneMove = 512

  /// Holds a content that may be anywhere.
  func isMovable(_ frame: FrameNumber) -> Bool {
    let record = pool.records[frame]
    return record.state == .inUse && record.flags.isDisjoint(with: [.pinned, .placed])
  }

  /// The first of some contents that are to be moved, as many as one step does.
  func stepOfMoves(_ frames: [FrameNumber]) -> ArraySlice<FrameNumber> {
    var leaves = 0
    let end = frames.firstIndex { frame in
      defer { leaves += reverseMap.count(pool.records[frame].link) }
      return leaves >= Self.leavesInOneMove
    }
    return frames[..<(end ?? frames.count)].prefix(Self.movedInOneStep)
  }

  /// Moves contents, a step's worth at most. The frames they leave belong to the caller: out of use,
  /// mapped by nobody, and not to be used before a grace period has passed.
  mutating func move(_ moves: [FrameMove]) {
    let leaves = takeLeaves(moves)
    revocations.mustSettle = true
    finishRevocations()
    for move in moves {
      memory.copy(from: move.source, to: move.destination)
      let record = pool.records[move.source]
      contents.setFrame(ContentNumber(record.owner), move.destination)
      pool.records[move.destination].owner = record.owner
      // The places stay as they are.
      pool.records[move.destination].link = record.link
      pool.records[move.destination].flags.insert(.dirty)
      pool.records[move.source] = FrameRecord(state: .quarantined, flags: .dirty)
    }
    for leaf in leaves {
      batch.removeAll()
      batch.append(moves[leaf.move].destination)
      spaces.map(
        leaf.place.slot, leaf.place.page, frames: batch.frames.span.extracting(first: 1), rights: leaf.rights)
    }
    statistics.framesMoved += UInt64(moves.count)
  }

  /// The same, and the frames they leave go to the pool.
  mutating func moveAndGive(_ moves: [FrameMove]) {
    move(moves)
    for move in moves { Revocations.append(move.source, to: &revocations.unused, mayRepeat: false) }
  }

  /// Empties every leaf of the frames that are to be left, and has the frames zapped.
  private mutating func takeLeaves(_ moves: [FrameMove]) -> [(place: MappedPlace, rights: MappingFlags, move: Int)] {
    var leaves: [(place: MappedPlace, rights: MappingFlags, move: Int)] = []
    leaves.reserveCapacity(moves.count)
    for (index, move) in moves.enumerated() {
      // Those of a frame with very many do not come back by themselves.
      while !thinOut(move.source, .moved) {}
      let first = leaves.count
      reverseMap.forEach(in: pool.records[move.source].link) { leaves.append(($0, [], index)) }
      for position in first..<leaves.count {
        let place = leaves[position].place
        guard let leaf = spaces.mappedPage(place.slot, place.page), leaf.frame == move.source else {
          preconditionFailure("the reverse map names a leaf of another frame")
        }
        leaves[position].rights = leaf.rights
        _ = spaces.unmap(place.slot, place.page, .moved)
        noteEmptied(place.slot)
      }
      if leaves.count > first { Revocations.append(move.source, to: &revocations.zaps, mayRepeat: true) }
    }
    return leaves
  }

  /// For measurements: moves the contents of the next frames from `position` on elsewhere, a step's worth.
  /// - Returns: how many; nil: there are no more, or nowhere to move them.
  mutating func moveNextFrames(_ position: inout Int) -> Int? {
    var sources: [FrameNumber] = []
    while position < pool.runs.end, sources.count < Self.movedInOneStep {
      let frame = FrameNumber(UInt32(position))
      if isMovable(frame) { sources.append(frame) }
      position += 1
    }
    guard !sources.isEmpty, let run = pool.takeRun(count: sources.count) else { return nil }
    moveAndGive(sources.enumerated().map { FrameMove(source: $1, destination: run.start.advanced(by: $0)) })
    finishRevocations()
    return sources.count
  }

  /// For tests: moves some content.
  /// - Parameter random: any number; the search for a content begins there.
  /// - Returns: false when none was found nearby, or there was no frame for it.
  mutating func moveSomeFrame(_ random: UInt64) -> Bool {
    var index = Int(random % UInt64(pool.count))
    for _ in 0..<4096 {
      let frame = FrameNumber(UInt32(index))
      if isMovable(frame) {
        guard let destination = pool.takeFrame() else { return false }
        move([FrameMove(source: frame, destination: destination)])
        pool.give(frame)
        return true
      }
      index = index + 1 == pool.count ? 0 : index + 1
    }
    return false
  }

  /// Any free frame for a content that must leave its own; if need be, that of a released content.
  mutating func takeDestination() -> FrameNumber? {
    if let frame = takeMovableFrame() { return frame }
    releaseClosedSpaces()
    return takeMovableFrame() ?? pool.takeSpareFrame()?.frame
  }

  private mutating func takeMovableFrame() -> FrameNumber? {
    var taken = pool.takeFrame()
    while taken == nil, mayExpire, expireOldest() { taken = pool.takeFrame() }
    return taken
  }
}
