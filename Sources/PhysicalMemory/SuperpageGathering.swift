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
  /// - Returns: nil: there is more to look at; false: all were looked at, or there is no block.
  mutating func beginGathering(_ cursor: inout GatheringCursor) -> Bool? {
    giveUpGathering()
    for _ in 0..<Self.regionsInOneStep {
      guard let slot = tasks.occupied(from: cursor.slot) else { return false }
      if slot != cursor.slot { cursor = GatheringCursor(slot: slot) }
      guard let index = tasks[slot].mappings.lowerBound(cursor.page) else {
        cursor = GatheringCursor(slot: slot + 1)
        continue
      }
      let mapping = tasks[slot].mappings[index]
      let first = max(mapping.start, cursor.page)
      let start = PageNumber(first.rawValue + UInt64(Self.pages - 1) & ~UInt64(Self.pages - 1))
      guard start.rawValue + UInt64(Self.pages) <= mapping.end.rawValue else {
        cursor.page = mapping.end
        continue
      }
      cursor.page = start.advanced(by: Self.pages)
      guard isScattered(TaskSlot(slot), start) else { continue }
      // Without a block there is no use in looking on.
      guard let block = takeBlockForGathering() else { return false }
      gathering = Gathering(task: TaskSlot(slot), page: start, block: block)
      return true
    }
    return nil
  }

  private mutating func isScattered(_ task: TaskSlot, _ start: PageNumber) -> Bool {
    guard tasks[task.rawValue].faultAround == .automatic, let mapping = promotableMapping(task, start) else {
      return false
    }
    // Most regions are not all there: the end is the likeliest to lack.
    guard source(mapping, start, Self.pages - 1) != nil, let first = source(mapping, start, 0) else { return false }
    var isInOrder = first.rawValue % UInt32(Self.pages) == 0
    for index in 1..<Self.pages {
      guard let frame = source(mapping, start, index) else { return false }
      if frame != first.advanced(by: index) { isInOrder = false }
    }
    return !isInOrder
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
  /// Looks for the next region from `cursor` on that is to be gathered; `continueGathering` follows until it is done or has
  /// failed.
  /// - Returns: false: there is none. Looks at a few regions with the lock held, again and again.
  public func beginGathering(_ cursor: inout GatheringCursor) -> Bool {
    while true {
      if let hasBegun = withState({ $0.beginGathering(&cursor) }) { return hasBegun }
    }
  }

  /// Moves a step's worth of contents.
  public func continueGathering() -> GatheringProgress { withState { $0.continueGathering() } }
}
