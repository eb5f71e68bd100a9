// Gathering (the compaction of one region): moves its scattered contents into a block of 512 adjacent frames, in order,
// so that the region can be mapped by a superpage.
//
// The life of a gathering:
//  1. found: all 512 contents of a region are resident, private and movable, and the stock has a free block. The block
//     stays allocatable: no task is charged for frames that are out of use here, so any request may take them.
//  2. under way: moves a few contents a step and releases the lock in between; tasks keep reading and writing. Goes
//     from the block's end downwards, so that the rest of the block is the end of a long free run, which allocations
//     use last.
//  3. done: the frames are in order, and the region can be promoted. Or
//     given up: a content was freed, shared or pinned meanwhile, or a frame of the block was allocated. Moved contents
//     stay where they are.

public import GuestMemory

/// The position of a search for regions.
public struct GatheringCursor: Sendable {
  fileprivate var slot = TaskSlot(0)
  fileprivate var page = PageNumber(0)

  /// The beginning of a search.
  public init() {}

  fileprivate init(slot: TaskSlot) { self.slot = slot }
}

/// A region that may become a superpage.
public enum SuperpageCandidate: Sendable {
  /// The frames of the region at this page of the task are in order: promote it.
  case ordered(TaskSlot, PageNumber)
  /// They are not: call `continueGathering` until it is done or has failed.
  case scattered(Gathering)
}

/// A region whose contents are being moved into a block.
public struct Gathering: Sendable {
  /// The task that maps the region.
  public let task: TaskSlot
  /// The region's first page.
  public let page: PageNumber
  package let block: FrameRun
  /// The number of contents still to be moved: the first ones of the region.
  package fileprivate(set) var left = PoolMemory.framesPerBlock

  /// The result of a step.
  public enum Progress: Sendable { case more, done, failed }
}

extension ServerState {
  private static let pages = PoolMemory.framesPerBlock
  /// Regions checked in one step.
  private static let regionsInOneStep = 16

  /// Searches a few regions for a candidate.
  /// - Returns: `isOver`: the search is complete.
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
      // Take a block of the stock, which the host backs with a huge page: the host makes none of recently written
      // pages.
      guard canBeGathered(mapping, start), let block = popBlock() else { continue }
      return (.scattered(Gathering(task: slot, page: start, block: block)), false)
    }
    return (nil, false)
  }

  /// Checks the region's last page first: it is the one most often missing.
  private func canBeGathered(_ mapping: Mapping, _ start: PageNumber) -> Bool {
    (0..<Self.pages).reversed().allSatisfy { source(mapping, start, $0) != nil }
  }

  /// The frame of a region's page, if its content is private and movable.
  private func source(_ mapping: Mapping, _ start: PageNumber, _ index: Int) -> FrameNumber? {
    let id = mapping.frame(at: start.advanced(by: index))
    guard let number = containers[mapping.container.slot].frames[id].content, contents[number].sharers == 1,
      isMovable(contents[number].frame)
    else { return nil }
    return contents[number].frame
  }

  /// Moves a few contents.
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
  /// Searches for the next region that could become a superpage, from `cursor` on, a few regions for each hold of the
  /// lock.
  /// - Returns: nil when there is none.
  public func findCandidate(_ cursor: inout GatheringCursor) -> SuperpageCandidate? {
    while true {
      let (found, isOver) = withState { $0.findCandidate(&cursor) }
      if found != nil || isOver { return found }
    }
  }

  /// Moves a few contents of a gathering.
  public func continueGathering(_ gathering: inout Gathering) -> Gathering.Progress {
    withState { $0.continueGathering(&gathering) }
  }
}
