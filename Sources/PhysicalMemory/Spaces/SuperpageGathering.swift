// Regions whose contents lie scattered are gathered: moved into a block of 512 adjacent frames, in order, so that they can be
// mapped as a superpage.
//
// The life of a gathering:
//  1. found: all 512 contents of a region are resident, nobody else's, and movable, and a block of the stock is free. It stays
//     among the free frames: whoever is in need takes them, since nobody is charged for what is out of use here.
//  2. under way: a few contents a step, the lock released in between. Tasks go on reading and writing. It goes from the
//     block's end downwards, so that what is left of the block is the end of a long free run, where others come last.
//  3. done: the frames are in order, and the region can be promoted. Or
//     given up: a content went, was shared or pinned meanwhile, or others took a frame of the block. What was moved stays
//     where it is.

public import GuestMemory

/// Where the search for regions goes on.
public struct GatheringCursor: Sendable {
  fileprivate var slot = TaskSlot(0)
  fileprivate var page = PageNumber(0)

  public init() {}

  fileprivate init(slot: TaskSlot) { self.slot = slot }
}

/// What may become a superpage.
public enum SuperpageCandidate: Sendable {
  /// The frames of the region that begins with this page of the task are in order.
  case ordered(TaskSlot, PageNumber)
  /// They are not: `continueGathering` follows until that is done or has failed.
  case scattered(Gathering)
}

/// A region on its way into a block.
public struct Gathering: Sendable {
  public let task: TaskSlot
  /// The region's first page.
  public let page: PageNumber
  package let block: FrameRun
  /// Contents that are still to be moved: the region's first.
  package fileprivate(set) var left = PoolMemory.framesPerBlock

  /// What became of a step.
  public enum Progress: Sendable { case more, done, failed }
}

extension ServerState {
  private static let pages = PoolMemory.framesPerBlock
  /// Regions looked at in one step.
  private static let regionsInOneStep = 16

  /// Looks for a region that could be a superpage, a few at a time.
  /// - Returns: `isOver`: all were looked at.
  mutating func findCandidate(_ cursor: inout GatheringCursor) -> (found: SuperpageCandidate?, isOver: Bool) {
    for _ in 0..<Self.regionsInOneStep {
      guard let slot = tasks.occupied(from: cursor.slot) else { return (nil, true) }
      if slot != cursor.slot { cursor = GatheringCursor(slot: slot) }
      guard let index = tasks[slot].mappings.lowerBound(cursor.page) else {
        cursor = GatheringCursor(slot: TaskSlot(slot.rawValue + 1))
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
      guard promotableMapping(slot, start) != nil else { continue }
      if orderedBlock(mapping, start) != nil { return (.ordered(slot, start), false) }
      // Of the stock, since the host has a huge page behind it: of pages that were written lately it makes none.
      guard canBeGathered(mapping, start), let block = popBlock() else { continue }
      return (.scattered(Gathering(task: slot, page: start, block: block)), false)
    }
    return (nil, false)
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

  /// One step.
  mutating func continueGathering(_ gathering: inout Gathering) -> Gathering.Progress {
    defer { finishRevocations() }
    guard let mapping = promotableMapping(gathering.task, gathering.page) else { return .failed }
    var sources: [FrameNumber] = []
    for index in (max(0, gathering.left - Self.movedInOneStep)..<gathering.left).reversed() {
      guard let frame = source(mapping, gathering.page, index) else { return .failed }
      sources.append(frame)
    }
    let moved = stepOfMoves(sources)
    let rest = gathering.left - moved.count
    let start = gathering.block.start
    guard pool.takeFixed(FrameRun(start: start.advanced(by: rest), count: moved.count)) else { return .failed }
    var moves: [FrameMove] = []
    for source in moved {
      gathering.left -= 1
      let destination = start.advanced(by: gathering.left)
      pool.records[destination] = FrameRecord(state: .inUse, flags: .dirty)
      moves.append(FrameMove(source: source, destination: destination))
    }
    moveAndGive(moves)
    guard gathering.left == 0 else { return .more }
    statistics.superpagesGathered += 1
    return .done
  }
}

extension PhysicalMemoryServer {
  /// The next region from `cursor` on that could be a superpage, and is none.
  /// - Returns: nil: there is none. Looks at a few regions with the lock held, again and again.
  public func findCandidate(_ cursor: inout GatheringCursor) -> SuperpageCandidate? {
    while true {
      let (found, isOver) = withState { $0.findCandidate(&cursor) }
      if found != nil || isOver { return found }
    }
  }

  /// Moves a step's worth of contents.
  public func continueGathering(_ gathering: inout Gathering) -> Gathering.Progress {
    withState { $0.continueGathering(&gathering) }
  }
}
