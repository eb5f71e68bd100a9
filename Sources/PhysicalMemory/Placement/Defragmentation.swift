// Defragmentation: compacts contents so that the frames between them become long free runs (R25).
//
// A pass has two halves:
//  1. Scarce zones: movable contents below 16 MiB, then those below 4 GiB, move to free frames of a higher zone.
//  2. Blocks of 512 frames: two scanners approach each other. From below, each block that is neither full nor empty and
//     holds only movable contents is emptied; from above, each partly used block is filled with them. Full blocks stay
//     as they are, so that packed blocks and superpages are left alone.
// A pass runs in steps, each with the lock held; each step examines the frames anew, whatever changed in between.

internal import GuestMemory

/// The progress of a pass. Positions are in frames.
public struct DefragmentationPass: Sendable {
  /// Frames moved so far.
  public private(set) var moved = 0
  fileprivate enum Stage { case begin, zones, blocks, done }
  fileprivate var stage = Stage.begin
  fileprivate var low = 0
  fileprivate var high = 0
  /// The unit that is emptied or filled, in frames.
  fileprivate let blockFrames: Int

  /// A pass that has not begun.
  public init() { self.init(blockFrames: 512) }

  /// For tests in small pools.
  package init(blockFrames: Int) { self.blockFrames = blockFrames }

  fileprivate mutating func count(_ frames: Int) { moved += frames }
}

/// The fragmentation of free memory.
public struct Fragmentation: Sendable, Equatable {
  /// The number of free runs by zone, from the lowest, and by order: element n counts the runs of 2^n frames. Loose,
  /// stocked and table frames are in no run.
  public let freeRuns: [[Int]]

  init(freeRuns: [[Int]]) { self.freeRuns = freeRuns }

  /// Frames in all free runs.
  public var freeCount: Int { frames(from: 0) }

  private func frames(from order: Int) -> Int {
    freeRuns.reduce(0) { sum, runs in
      sum + runs.indices.dropFirst(order).reduce(0) { $0 + runs[$1] << $1 }
    }
  }

  /// The unusable free space index: the share of the free frames, 0 to 1, in runs that are too short for a request of
  /// 2^order adjacent frames (M. Gorman, "Understanding the Linux Virtual Memory Manager").
  /// - Parameter order: the binary logarithm of the requested frames.
  public func unusable(order: Int) -> Double {
    let free = freeCount
    return free == 0 ? 0 : Double(free - frames(from: order)) / Double(free)
  }
}

/// The contents of a block of frames.
private struct BlockCensus {
  var free = 0
  var movable = 0
  var fixed = 0
  /// Waiting for a grace period.
  var waiting = 0

  var isPartlyUsed: Bool { free > 0 && movable + fixed > 0 }
  var isWorthEmptying: Bool { free + waiting > 0 && movable > 0 && fixed == 0 }
}

extension ServerState {
  /// Blocks examined in one step, which takes about 100 µs.
  private static let blocksInOneStep = 64

  var fragmentation: Fragmentation {
    Fragmentation(freeRuns: FrameZone.allCases.map { pool.freeRuns(zone: $0) })
  }

  /// One step. False: the pass is over.
  mutating func continueDefragmentation(_ pass: inout DefragmentationPass) -> Bool {
    defer { finishRevocations() }
    switch pass.stage {
    case .begin:
      guard expirePins() else { return true }
      // The zeroed stock is scattered between the contents; refilling takes frames from the ends of runs.
      pool.drainStock()
      pass.stage = .zones
      pass.low = 1
    case .zones: clearZones(&pass)
    case .blocks: packBlocks(&pass)
    case .done: return false
    }
    return true
  }

  // MARK: Scarce zones

  private mutating func clearZones(_ pass: inout DefragmentationPass) {
    let highest = FrameZone(of: FrameNumber(UInt32(pool.runs.end - 1)))
    let end = min(pool.runs.end, Int(highest.start.rawValue))
    var left = Self.blocksInOneStep * pass.blockFrames
    var moves: [FrameMove] = []
    var leaves = 0
    while pass.low < end, left > 0, moves.count < Self.movedInOneStep, leaves < Self.leavesInOneMove {
      let frame = FrameNumber(UInt32(pass.low))
      left -= 1
      pass.low += 1
      guard isMovable(frame) else { continue }
      guard let destination = pool.takeFrame() else {
        pass.low = end
        break
      }
      guard FrameZone(of: destination).rawValue > FrameZone(of: frame).rawValue else {
        // No higher zone has a free frame.
        pool.give(destination)
        pass.low = max(pass.low, Int(FrameZone(of: destination).start.rawValue))
        break
      }
      moves.append(FrameMove(source: frame, destination: destination))
      leaves += reverseMap.count(pool.records[frame].link)
    }
    moveAndGive(moves, &pass)
    guard pass.low >= end else { return }
    pass.stage = .blocks
    pass.low = end / pass.blockFrames * pass.blockFrames
    pass.high = (pool.runs.end - 1) / pass.blockFrames * pass.blockFrames
  }

  // MARK: Blocks

  private mutating func packBlocks(_ pass: inout DefragmentationPass) {
    var left = Self.blocksInOneStep
    var source = census(pass.low, pass.blockFrames)
    while left > 0, pass.low < pass.high, !source.isWorthEmptying {
      pass.low += pass.blockFrames
      source = census(pass.low, pass.blockFrames)
      left -= 1
    }
    var destination = census(pass.high, pass.blockFrames)
    while left > 0, pass.low < pass.high, !destination.isPartlyUsed {
      pass.high -= pass.blockFrames
      destination = census(pass.high, pass.blockFrames)
      left -= 1
    }
    guard pass.low < pass.high else {
      pass.stage = .done
      pool.drainStock()
      return
    }
    guard left > 0 else { return }
    let count = min(Self.movedInOneStep, source.movable, destination.free)
    let sources = stepOfMoves(frames(in: pass.low..<pass.low + pass.blockFrames, count) { isMovable($0) })
    let destinations = frames(in: pass.high..<pass.high + pass.blockFrames, sources.count) { canBeTaken($0) }
    for frame in destinations {
      pool.takeFree(FrameRun(start: frame, count: 1))
      pool.records[frame].state = .inUse
    }
    moveAndGive(zip(sources, destinations).map { FrameMove(source: $0, destination: $1) }, &pass)
  }

  private func census(_ start: Int, _ length: Int) -> BlockCensus {
    var census = BlockCensus()
    for index in start..<min(start + length, pool.runs.end) {
      let frame = FrameNumber(UInt32(index))
      if canBeTaken(frame) {
        census.free += 1
      } else if isMovable(frame) {
        census.movable += 1
      } else if pool.records[frame].state == .waiting {
        census.waiting += 1
      } else {
        census.fixed += 1
      }
    }
    return census
  }

  /// The first frames of a block that satisfy a condition.
  private func frames(in block: Range<Int>, _ count: Int, _ isWanted: (FrameNumber) -> Bool) -> [FrameNumber] {
    var found: [FrameNumber] = []
    found.reserveCapacity(count)
    for index in block.clamped(to: 0..<pool.runs.end) where found.count < count {
      let frame = FrameNumber(UInt32(index))
      if isWanted(frame) { found.append(frame) }
    }
    return found
  }

  private mutating func moveAndGive(_ moves: [FrameMove], _ pass: inout DefragmentationPass) {
    guard !moves.isEmpty else { return }
    moveAndGive(moves)
    pass.count(moves.count)
  }
}
