// Moves contents between frames while tasks use them (R17, R25). No data is lost, and no write slips in:
//
//      clear the leaves ──▶ zap the frames, settle writes ──▶ copy ──▶ the contents name their new frames ──▶ fill in
//      the leaves again
//
// This is one step with the lock held; an access meanwhile faults and then finds its leaf again. A content keeps its
// number, its virtual frames and its position in every list: only its frame changes.

internal import GuestMemory

/// A content's frame, and the frame taken for it.
struct FrameMove {
  let source: FrameNumber
  let destination: FrameNumber
}

extension ServerState {
  /// Contents moved in one step, which takes about 100 µs.
  static let movedInOneStep = 64
  /// A step moves no further content after this many leaves: some contents have thousands.
  static let leavesInOneMove = 512

  /// Whether the frame holds a content that may be moved.
  func isMovable(_ frame: FrameNumber) -> Bool {
    let record = pool.records[frame]
    return record.state == .inUse && record.flags.isDisjoint(with: [.pinned, .placed])
  }

  /// As many of the frames, from the first, as one step moves.
  func stepOfMoves(_ frames: [FrameNumber]) -> ArraySlice<FrameNumber> {
    var leaves = 0
    let end = frames.firstIndex { frame in
      defer { leaves += reverseMap.count(pool.records[frame].link) }
      return leaves >= Self.leavesInOneMove
    }
    return frames[..<(end ?? frames.count)].prefix(Self.movedInOneStep)
  }

  /// Moves contents, at most a step's worth. The caller owns the vacated frames: unused, unmapped, and not to be reused
  /// before a grace period has passed.
  mutating func move(_ moves: [FrameMove]) {
    let leaves = takeLeaves(moves)
    revocations.mustSettle = true
    finishRevocations()
    for move in moves {
      memory.copy(from: move.source, to: move.destination)
      let record = pool.records[move.source]
      contents.setFrame(ContentNumber(record.owner), move.destination)
      pool.records[move.destination].owner = record.owner
      // The reverse map's places do not change.
      pool.records[move.destination].link = record.link
      pool.records[move.destination].flags.insert(.dirty)
      pool.records[move.source] = FrameRecord(state: .isolated, flags: .dirty)
    }
    for leaf in leaves {
      batch.removeAll()
      batch.append(moves[leaf.move].destination)
      spaces.map(
        leaf.place.slot, leaf.place.page, frames: batch.frames.span.extracting(first: 1), rights: leaf.rights)
    }
    statistics.framesMoved += UInt64(moves.count)
  }

  /// Moves contents and gives the vacated frames to the pool.
  mutating func moveAndGive(_ moves: [FrameMove]) {
    move(moves)
    for move in moves { Revocations.append(move.source, to: &revocations.unused, mayRepeat: false) }
  }

  /// Clears every leaf of the source frames and zaps the frames.
  private mutating func takeLeaves(_ moves: [FrameMove]) -> [(place: MappedPlace, rights: MappingFlags, move: Int)] {
    var leaves: [(place: MappedPlace, rights: MappingFlags, move: Int)] = []
    leaves.reserveCapacity(moves.count)
    for (index, move) in moves.enumerated() {
      // Frames with very many leaves lose most of them for good: faults fill them in again.
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

  /// For measurements: moves the contents of the next frames from `position` on, a step's worth.
  /// - Returns: the number moved; nil: no frames are left, or there is no destination.
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

  /// For tests: moves a random content.
  /// - Parameter random: any number; the search for a content begins there.
  /// - Returns: false when none was found nearby, or there was no free frame.
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

  /// Takes any free frame for a content that must move; if necessary, that of a released content.
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
