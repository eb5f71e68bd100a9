// Frames by their physical address (R19): below a limit, aligned, adjacent, at a fixed place. What else is there is
// moved away, unless it must stay.
//
// A placed allocation is done in four stages; each goes in bounded steps:
//  1. check and charge: as any allocation (Allocation.swift). Nobody else can have the frames' number from here on.
//  2. find: a window of free frames, or else one that holds nothing but movable contents (PlacementSearch.swift).
//  3. clear: frame by frame, the window's frames are taken out of use; movable contents go elsewhere. What turns up
//     meanwhile and must stay is an obstacle: the frames go back, in steps too, and the search goes on behind it.
//  4. install: the ids let go of what they name and get the frames, which stay theirs as long as the content lives.
// Until stage 4 the task sees nothing of it, and a failure changes nothing.

internal import CGuestABI
internal import GuestMemory

/// Where frames shall be. Counts and addresses are in frames.
struct Placement: Equatable {
  /// All frames lie below this.
  let end: Int
  /// A power of two: the first frame of a run, or each frame alone, is a multiple of it.
  let alignment: Int
  /// A run does not go across a multiple of this power of two.
  let boundary: Int?
  let fixed: Int?
  /// Adjacent frames.
  let isRun: Bool

  /// From `struct pm_placement`, in bytes there.
  /// - Throws: `.invalid` for what can never hold in a pool of so many frames.
  init(
    below: UInt64, alignment: UInt64, boundary: UInt64, fixed: UInt64, contiguous: UInt32, count: Int, frameCount: Int
  ) throws(CallFailure) {
    guard alignment & (alignment &- 1) == 0, boundary & (boundary &- 1) == 0, contiguous <= 1, fixed & 4095 == 0 else {
      throw .invalid
    }
    end = below == 0 ? frameCount : Int(min(below >> 12, UInt64(frameCount)))
    let alignmentFrames = max(1, alignment >> 12)
    guard alignmentFrames < UInt64(frameCount) else { throw .invalid }
    self.alignment = Int(alignmentFrames)
    self.isRun = contiguous == 1 || fixed != 0
    self.boundary = boundary == 0 || !isRun ? nil : Int(min(boundary >> 12, 1 << 40))
    self.fixed = fixed == 0 ? nil : Int(min(fixed >> 12, UInt64(frameCount)))
    guard boundary == 0 || boundary >= 4096 else { throw .invalid }
    if let boundary = self.boundary, boundary < count { throw .invalid }
    guard count > 0, canHold(count) else { throw .invalid }
  }

  private func canHold(_ count: Int) -> Bool {
    if let fixed {
      return fixed % alignment == 0 && count <= end - min(fixed, end) && start(from: fixed, count: count) == fixed
    }
    // Frame 0 is nobody's.
    return isRun ? start(from: 1, count: count) != nil : (end - 1) / alignment >= count
  }

  /// The first place at `index` or after it where so many frames could begin.
  func start(from index: Int, count: Int) -> Int? {
    var start = (max(index, fixed ?? 0) + alignment - 1) & ~(alignment - 1)
    if let boundary, start / boundary != (start + count - 1) / boundary {
      let next = (start / boundary + 1) * boundary
      start = (next + alignment - 1) & ~(alignment - 1)
      if start / boundary != (start + count - 1) / boundary { return nil }
    }
    return start + count <= end && start == fixed ?? start ? start : nil
  }

  /// Whether one frame by itself is where it shall be.
  func permits(_ frame: FrameNumber) -> Bool {
    Int(frame.rawValue) < end && Int(frame.rawValue) & (alignment - 1) == 0
  }
}

/// What was in the way of a placement.
public struct Obstacle: Equatable, Sendable {
  public enum Kind: UInt32, Sendable {
    case none = 0
    /// Of the machine itself.
    case reserved
    case pageTable
    case pinned
    /// Placed before.
    case placed
    /// About to be another task's placed frame.
    case busy
  }

  /// In bytes.
  public let address: UInt64
  public let kind: Kind

  public init(address: UInt64, kind: Kind) {
    self.address = address
    self.kind = kind
  }
}

/// A placed allocation under way. Every frame in `frames` is out of use, and in `window` there may be more of the task's.
struct PlacementPlan {
  let task: TaskSlot
  let placement: Placement
  let container: ContainerSlot
  let start: FrameID
  let count: Int
  /// Taken so far; of a run, from its first frame on.
  var frames: [FrameNumber] = []
  /// Of a run: where it shall be.
  var window: FrameRun?
  /// It was one free run: the search has not come that far.
  fileprivate var isFreeWindow = false
  /// What is left of a window that was given up: frames in there may still be the task's.
  private(set) var abandoned: FrameRun?
  var search: PlacementSearch
  /// What was met last that cannot go away.
  var obstacle: Obstacle?
  /// A frame waits that could be had: nothing can be done before a grace period has passed.
  var isWaiting = false
  /// Frames were left by moves: they are not to be used before that either.
  private(set) var hasMoved = false
  /// The page tables kept for tasks that have ended were given up for it; some there were.
  fileprivate var hasReleasedSpaces = false
  fileprivate var hasFreedTables = false
  fileprivate var installed = 0

  /// What became of a step.
  enum Progress { case more, done, failed }

  fileprivate mutating func noteMoves() { hasMoved = true }

  /// The window's frames are to go back.
  fileprivate mutating func abandonWindow() {
    abandoned = window
    window = nil
    frames.removeAll()
  }

  /// The next frames to look at of a window that was given up.
  fileprivate mutating func nextAbandoned(most: Int) -> FrameRun? {
    guard let run = abandoned else { return nil }
    let count = min(run.count, most)
    let rest = FrameRun(start: run.start.advanced(by: count), count: run.count - count)
    abandoned = rest.count > 0 ? rest : nil
    return FrameRun(start: run.start, count: count)
  }
}

extension ServerState {
  private static let installedInOneStep = 256
  /// Frames taken, or given back, in one step where nothing is to be moved.
  private static let takenInOneStep = 4096

  mutating func planPlacement(
    _ task: TaskSlot, _ allocation: AllocationPlan, _ placement: Placement
  ) -> PlacementPlan {
    let count = allocation.rest.count
    return PlacementPlan(
      task: task, placement: placement, container: allocation.container,
      start: FrameID(UInt32(truncatingIfNeeded: allocation.rest.lowerBound)), count: count,
      search: PlacementSearch(placement, count: count))
  }

  /// One step of finding and clearing.
  mutating func continuePlacement(_ plan: inout PlacementPlan) -> PlacementPlan.Progress {
    defer { finishRevocations() }
    if giveBackAbandoned(&plan) { return .more }
    if plan.frames.count == plan.count { return .done }
    guard plan.placement.isRun else { return takeSingles(&plan) }
    if plan.window == nil { return findWindow(&plan) }
    return clearWindow(&plan)
  }

  // MARK: Runs

  private mutating func findWindow(_ plan: inout PlacementPlan) -> PlacementPlan.Progress {
    if plan.search.begin(), plan.placement.fixed == nil, let run = findFreeRun(plan.placement, plan.count) {
      plan.window = run
      plan.isFreeWindow = true
      return clearWindow(&plan)
    }
    switch plan.search.step(plan.placement, self) {
    case .found(let window): plan.window = window
    case .searching: break
    case .nothing(let obstacle): return searchAgain(&plan, obstacle)
    }
    return .more
  }

  /// Nothing was found. Tables kept for tasks that have ended need not be in the way.
  private mutating func searchAgain(_ plan: inout PlacementPlan, _ obstacle: Obstacle?) -> PlacementPlan.Progress {
    plan.obstacle = obstacle ?? plan.obstacle
    guard !plan.hasReleasedSpaces else { return .failed }
    let tablesBefore = tables.used
    releaseClosedSpaces()
    guard tables.used == tablesBefore else {
      // There may be more of them: the search, which is over, comes here again.
      plan.hasFreedTables = true
      return .more
    }
    plan.hasReleasedSpaces = true
    guard plan.hasFreedTables else { return .failed }
    plan.search = PlacementSearch(plan.placement, count: plan.count)
    plan.obstacle = nil
    return .more
  }

  private func findFreeRun(_ placement: Placement, _ count: Int) -> FrameRun? {
    // So aligned, a run does not cross a boundary that is not shorter.
    let alignment = placement.boundary == nil ? placement.alignment : max(placement.alignment, 1 << ceilingLog2(count))
    return pool.findEasyRun(
      RunRequest(count: count, alignment: alignment, end: min(placement.end, pool.runs.end)))
  }

  /// Takes the window's next frames out of use.
  private mutating func clearWindow(_ plan: inout PlacementPlan) -> PlacementPlan.Progress {
    guard let window = plan.window else { return .failed }
    var destinations = takeDestinations(&plan, window)
    defer { for frame in destinations { pool.give(frame) } }
    var moves: [FrameMove] = []
    var leaves = 0
    var looked = 0
    while plan.frames.count < plan.count, looked < Self.takenInOneStep, leaves < Self.leavesInOneMove {
      looked += 1
      let frame = window.start.advanced(by: plan.frames.count)
      if canBeTaken(frame) {
        let count = freeCount(from: frame, most: min(plan.count - plan.frames.count, Self.takenInOneStep - looked + 1))
        pool.takeFree(FrameRun(start: frame, count: count))
        for offset in 0..<count { take(frame.advanced(by: offset), for: &plan) }
        looked += count - 1
        continue
      } else if isMovable(frame) {
        guard let destination = destinations.popLast() else { break }
        moves.append(FrameMove(source: frame, destination: destination))
        leaves += reverseMap.count(pool.records[frame].link)
      } else if pool.records[frame].state == .waiting {
        plan.isWaiting = true
        break
      } else if !isQuarantined(frame, plan.task) {
        move(moves, for: &plan)
        plan.obstacle = obstacle(at: frame)
        plan.abandonWindow()
        if !plan.isFreeWindow { plan.search.goOn(behind: frame) }
        plan.isFreeWindow = false
        return .more
      }
      plan.frames.append(frame)
    }
    move(moves, for: &plan)
    if plan.isWaiting { return .more }
    // Without a single frame to move anything to, there is no going on: everything is in use.
    if looked == 1, plan.frames.count < plan.count, destinations.isEmpty, moves.isEmpty { return .failed }
    return plan.frames.count == plan.count ? .done : .more
  }

  private mutating func move(_ moves: [FrameMove], for plan: inout PlacementPlan) {
    guard !moves.isEmpty else { return }
    move(moves)
    plan.noteMoves()
    for move in moves { pool.records[move.source].owner = plan.task.rawValue }
  }

  /// Frames for as many contents as one step moves out of the window. They come first: having them may cost released
  /// contents, which may be in the window. A free frame of the window stays with it.
  private mutating func takeDestinations(_ plan: inout PlacementPlan, _ window: FrameRun) -> [FrameNumber] {
    var needed = movesInOneStep(plan, window)
    var frames: [FrameNumber] = []
    while frames.count < needed {
      let expired = statistics.framesExpired
      guard let frame = takeDestination() else { break }
      guard frame >= window.start, frame < window.end else {
        frames.append(frame)
        continue
      }
      quarantine(frame, for: plan.task.rawValue)
      // It may have been a released content's: then that is one less to be moved.
      if statistics.framesExpired != expired { needed = movesInOneStep(plan, window) }
    }
    return frames
  }

  /// How many contents the next step has to move out of the window.
  private func movesInOneStep(_ plan: borrowing PlacementPlan, _ window: FrameRun) -> Int {
    var count = 0
    for offset in plan.frames.count..<min(plan.count, plan.frames.count + Self.takenInOneStep)
    where count < Self.movedInOneStep {
      if isMovable(window.start.advanced(by: offset)) { count += 1 }
    }
    return count
  }

  /// How many frames from a free one on are free, up to a limit.
  private func freeCount(from frame: FrameNumber, most: Int) -> Int {
    var count = 1
    while count < most, canBeTaken(frame.advanced(by: count)) { count += 1 }
    return count
  }

  /// One step of giving back what was taken for a window that was given up. False: there is none.
  private mutating func giveBackAbandoned(_ plan: inout PlacementPlan) -> Bool {
    guard let run = plan.nextAbandoned(most: Self.takenInOneStep) else { return false }
    for offset in 0..<run.count where isQuarantined(run.start.advanced(by: offset), plan.task) {
      releaseQuarantined(run.start.advanced(by: offset))
    }
    return true
  }

  // MARK: Single frames

  /// Takes free frames that are where they shall be; when there are no more, contents make room.
  private mutating func takeSingles(_ plan: inout PlacementPlan) -> PlacementPlan.Progress {
    let most = min(plan.count, plan.frames.count + Self.movedInOneStep)
    while plan.frames.count < most {
      switch plan.search.nextSingle(plan.placement, self, for: plan.task) {
      case .searching: return .more
      case .nothing(let obstacle): return searchAgain(&plan, obstacle)
      case .found(let window):
        if canBeTaken(window.start) {
          pool.takeFree(window)
          take(window.start, for: &plan)
        } else if pool.records[window.start].state == .waiting {
          plan.isWaiting = true
          return .more
        } else if !clearSingle(window.start, &plan) {
          return .failed
        }
      }
    }
    return plan.frames.count == plan.count ? .done : .more
  }

  /// Moves one content away. False: there is nowhere to move it.
  private mutating func clearSingle(_ frame: FrameNumber, _ plan: inout PlacementPlan) -> Bool {
    guard let destination = takeDestination() else { return false }
    if plan.placement.permits(destination), Int(destination.rawValue) < pool.runs.end {
      take(destination, for: &plan)
    } else if isMovable(frame) {
      move([FrameMove(source: frame, destination: destination)])
      plan.noteMoves()
      take(frame, for: &plan)
    } else {
      // It was a released content's, and went for the destination: the search finds the frame free.
      pool.give(destination)
    }
    return true
  }

  private mutating func take(_ frame: FrameNumber, for plan: inout PlacementPlan) {
    quarantine(frame, for: plan.task.rawValue)
    plan.frames.append(frame)
  }

  // MARK: Frames out of use

  /// `owner`: the slot of the task whose placement takes it.
  mutating func quarantine(_ frame: FrameNumber, for owner: UInt32) {
    let flags = pool.records[frame].flags
    pool.records[frame] = FrameRecord(state: .quarantined, flags: flags)
    pool.records[frame].owner = owner
  }

  func isQuarantined(_ frame: FrameNumber, _ task: TaskSlot) -> Bool {
    pool.records[frame].state == .quarantined && pool.records[frame].owner == task.rawValue
  }

  /// Gives a frame back that was out of use.
  mutating func releaseQuarantined(_ frame: FrameNumber) {
    pool.give(FrameRun(start: frame, count: 1), contentIsZero: !pool.records[frame].isDirty)
  }

  func obstacle(at frame: FrameNumber) -> Obstacle {
    let record = pool.records[frame]
    var kind: Obstacle.Kind
    switch record.state {
    case .table, .spare, .interior: kind = .pageTable
    case .inUse: kind = record.flags.contains(.pinned) ? .pinned : .placed
    case .quarantined: kind = .busy
    default: kind = .reserved
    }
    // A content may be there when nothing else is free, and is not placed there.
    if kind == .placed, pool.tableArea.frames.contains(Int(frame.rawValue)) { kind = .pageTable }
    return Obstacle(address: frame.address, kind: kind)
  }

  /// One step of giving everything back that is not installed: the rest of the allocation is not to be. False: nothing
  /// is left.
  mutating func abandon(_ plan: inout PlacementPlan) -> Bool {
    plan.frames.removeFirst(plan.installed)
    plan.installed = 0
    if plan.window != nil { plan.abandonWindow() }
    if giveBackAbandoned(&plan) { return true }
    for frame in plan.frames.suffix(Self.takenInOneStep) { releaseQuarantined(frame) }
    plan.frames.removeLast(min(plan.frames.count, Self.takenInOneStep))
    guard plan.frames.isEmpty else { return true }
    tasks[plan.task].obstacle = plan.obstacle
    containers[plan.container].changes -= 1
    statistics.placementsRefused += 1
    return false
  }

  // MARK: Installing

  /// Lets go of what the next ids name, and gives them their frames; cannot fail. Nobody sees one without its frame, and
  /// gets it another one. False: all have theirs.
  mutating func installPlaced(_ plan: inout PlacementPlan, _ allocation: inout AllocationPlan) -> Bool {
    guard continueAllocation(&allocation, most: Self.installedInOneStep) else {
      containers[plan.container].changes -= 1
      statistics.placements += 1
      return false
    }
    while plan.start.position + UInt64(plan.installed) < allocation.rest.lowerBound {
      install(plan.frames[plan.installed], plan.container, plan.start.advanced(by: plan.installed))
      plan.installed += 1
    }
    return true
  }

  private mutating func install(_ frame: FrameNumber, _ container: ContainerSlot, _ id: FrameID) {
    if pool.records[frame].isDirty { memory.zero(FrameRun(start: frame, count: 1)) }
    guard let number = contents.insert(frame: frame) else { preconditionFailure("more contents than frames") }
    pool.records[frame].state = .inUse
    pool.records[frame].owner = number.rawValue
    pool.records[frame].flags.insert(.placed)
    containers[container].frames.set(id, VirtualFrameWord(number))
    placedFrames += 1
  }

  /// The content may be anywhere from here on.
  mutating func giveUpPlace(_ number: ContentNumber) {
    let frame = contents[number].frame
    guard pool.records[frame].flags.contains(.placed) else { return }
    pool.records[frame].flags.remove(.placed)
    placedFrames -= 1
  }

}
