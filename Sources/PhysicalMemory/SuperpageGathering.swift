// Regions whose contents lie scattered are gathered: moved into a block of 512 adjacent frames, in order, so that they can be
// mapped as a superpage.
//
// The life of a gathering:
//  1. found: all 512 contents of a region are resident, nobody else's, and movable; a block of the stock was taken for them, out
//     of use until its frames are filled.
//  2. under way: a few contents a step, the lock released in between. Tasks go on reading and writing.
//  3. done: the frames are in order, and the region can be promoted. Or
//     given up: one of them went, was shared or pinned meanwhile, or somebody needs the block's frames, which nobody is
//     charged for. What was moved stays where it is; the rest goes back.

public import GuestMemory

/// Where the search for regions goes on.
public struct GatheringCursor: Sendable {
  fileprivate var slot: UInt32 = 0
  fileprivate var page = PageNumber(0)

  public init() {}

  fileprivate init(slot: UInt32) { self.slot = slot }
}

/// A region on its way into a block. There is one at a time.
struct Gathering {
  let task: TaskSlot
  /// The region's first page.
  let page: PageNumber
  fileprivate let block: FrameRun
  fileprivate var done = 0

  /// Of the block, out of use.
  var left: Int { block.count - done }
}

/// What became of a step of a gathering.
public enum GatheringProgress: Equatable, Sendable {
  case more
  /// The region that begins with this page of the task can be promoted.
  case done(TaskSlot, PageNumber)
  case failed
}

extension ServerState {
  private static let pages = PoolMemory.framesPerBlock
  /// Regions looked at in one step.
  private static let regionsInOneStep = 16
  /// Quarantined for it; no task has this number.
  private static let gatherer: UInt32 = .max

  /// Looks for a region to be gathered, a few at a time.
  /// - Returns: `.done`: one whose frames are in order already; `.failed`: all were looked at; nil: there is more to look
  ///   at.
  mutating func beginGathering(_ cursor: inout GatheringCursor) -> GatheringProgress? {
    giveUpGathering()
    for _ in 0..<Self.regionsInOneStep {
      guard let slot = tasks.occupied(from: cursor.slot) else { return .failed }
      if slot != cursor.slot { cursor = GatheringCursor(slot: slot) }
      guard let index = tasks[slot].mappings.lowerBound(cursor.page) else {
        cursor = GatheringCursor(slot: slot + 1)
        continue
      }
      let mapping = tasks[slot].mappings[index]
      let first = max(mapping.start, cursor.page)
      let start = PageNumber((first.rawValue + UInt64(Self.pages - 1)) & ~UInt64(Self.pages - 1))
      guard start.rawValue + UInt64(Self.pages) <= mapping.end.rawValue else {
        cursor.page = mapping.end
        continue
      }
      cursor.page = start.advanced(by: Self.pages)
      guard promotableMapping(TaskSlot(slot), start) != nil else { continue }
      if orderedBlock(mapping, start) != nil { return .done(TaskSlot(slot), start) }
      guard canBeGathered(mapping, start), let block = takeBlockForGathering() else { continue }
      gathering = Gathering(task: TaskSlot(slot), page: start, block: block)
      return .more
    }
    return nil
  }

  /// Most regions are not all there: the end is the likeliest to lack.
  private func canBeGathered(_ mapping: Mapping, _ start: PageNumber) -> Bool {
    (0..<Self.pages).reversed().allSatisfy { source(mapping, start, $0) != nil }
  }

  /// The frame of a region's page, if its content may be moved and is nobody else's.
  private func source(_ mapping: Mapping, _ start: PageNumber, _ index: Int) -> FrameNumber? {
    let id = mapping.frame(at: start.advanced(by: index))
    guard let number = containers[mapping.container.slot].frames[id].content, contents[number].sharers == 1,
      isMovable(contents[number].frame)
    else { return nil }
    return contents[number].frame
  }

  /// One of the stock, with a huge page of the host behind it: of pages that were written lately the host makes none.
  private mutating func takeBlockForGathering() -> FrameRun? {
    guard let block = takeBlock() else { return nil }
    for offset in 0..<block.count { quarantine(block.start.advanced(by: offset), for: Self.gatherer) }
    return block
  }

  /// One step.
  mutating func continueGathering() -> GatheringProgress {
    defer { finishRevocations() }
    guard var gathering, let sources = nextSources(gathering) else {
      giveUpGathering()
      return .failed
    }
    var moves: [FrameMove] = []
    for source in stepOfMoves(sources) {
      let destination = gathering.block.start.advanced(by: gathering.done)
      pool.records[destination] = FrameRecord(state: .inUse, flags: .dirty)
      moves.append(FrameMove(source: source, destination: destination))
      gathering.done += 1
    }
    moveAndGive(moves)
    guard gathering.left == 0 else {
      self.gathering = gathering
      return .more
    }
    self.gathering = nil
    statistics.superpagesGathered += 1
    return .done(gathering.task, gathering.page)
  }

  /// The frames that come next, if all of the region may still be gathered.
  private mutating func nextSources(_ gathering: Gathering) -> [FrameNumber]? {
    guard let mapping = promotableMapping(gathering.task, gathering.page) else { return nil }
    var sources: [FrameNumber] = []
    for index in gathering.done..<min(gathering.done + Self.movedInOneStep, Self.pages) {
      guard let frame = source(mapping, gathering.page, index) else { return nil }
      sources.append(frame)
    }
    return sources
  }

  /// Puts the block's frames to use again. Whoever is short of frames does, and a placement: they are charged for theirs.
  mutating func giveUpGathering() {
    guard let gathering else { return }
    for offset in gathering.done..<Self.pages { releaseQuarantined(gathering.block.start.advanced(by: offset)) }
    self.gathering = nil
  }
}

extension PhysicalMemoryServer {
  /// Looks for the next region from `cursor` on that could be a superpage, at a few with the lock held, again and again.
  /// - Returns: `.more`: it is to be gathered, and `continueGathering` follows until it is done or has failed; `.done`: its
  ///   frames are in order already; `.failed`: there is none.
  public func beginGathering(_ cursor: inout GatheringCursor) -> GatheringProgress {
    while true {
      if let progress = withState({ $0.beginGathering(&cursor) }) { return progress }
    }
  }

  /// Moves a step's worth of contents.
  public func continueGathering() -> GatheringProgress { withState { $0.continueGathering() } }
}
