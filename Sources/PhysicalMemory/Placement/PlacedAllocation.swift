// Placed allocations (R19): frames below an address limit, aligned, adjacent, or at a fixed address. Movable contents
// in the way are moved.
//
// A placed allocation has four stages, each in bounded steps:
//  1. check and charge: as any allocation (Allocation.swift). From now on the number of frames is reserved.
//  2. find: a window of free frames, otherwise one with movable contents only (PlacementSearch.swift).
//  3. clear: isolates the window's frames one by one and moves movable contents away. An unmovable frame that turns up
//     meanwhile is an obstacle: the frames are given back, in steps too, and the search continues behind it.
//  4. install: the ids drop their old contents and get the frames, which stay in place for the content's lifetime.
// The task sees no effect before stage 4, and a failure changes nothing.

internal import CGuestABI
internal import GuestMemory

/// A placed allocation under way. All frames in `frames` are isolated, and `window` may contain more isolated ones.
struct PlacementPlan {
  let task: TaskSlot
  let placement: Placement
  let container: ContainerSlot
  let start: FrameID
  let count: Int
  /// Frames taken so far; in a run, from the first on.
  var frames: [FrameNumber] = []
  /// The chosen window of a run.
  var window: FrameRun?
  /// The window was one free run: the search has not got there yet.
  fileprivate var isFreeWindow = false
  /// The rest of a window that was given up, which may contain isolated frames of the task.
  private(set) var abandoned: FrameRun?
  var search: PlacementSearch
  /// The last unmovable frame encountered.
  var obstacle: Obstacle?
  /// A suitable frame waits for a grace period: nothing can be done before that.
  var isWaiting = false
  /// Moves vacated frames, which are not usable before a grace period either.
  private(set) var hasMoved = false
  /// Page tables kept for ended tasks were freed for it; whether there were any.
  fileprivate var hasReleasedSpaces = false
  fileprivate var hasFreedTables = false
  fileprivate var installed = 0

  /// The result of a step.
  enum Progress { case more, done, failed }

  fileprivate mutating func noteMoves() { hasMoved = true }

  /// Schedules the window's frames to be given back.
  fileprivate mutating func abandonWindow() {
    abandoned = window
    window = nil
    frames.removeAll()
  }

  /// The next frames of an abandoned window to examine.
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
  /// Frames taken or given back in one step if no content is moved.
  private static let takenInOneStep = 4096

  /// Begins a placed allocation that is checked and charged.
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

  /// Called when the search found nothing: frees the tables of ended tasks, which may be in the way, and searches
  /// again.
  private mutating func searchAgain(_ plan: inout PlacementPlan, _ obstacle: Obstacle?) -> PlacementPlan.Progress {
    plan.obstacle = obstacle ?? plan.obstacle
    guard !plan.hasReleasedSpaces else { return .failed }
    let tablesBefore = tables.used
    releaseClosedSpaces()
    guard tables.used == tablesBefore else {
      // More may be left: the finished search comes here again.
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
    // With this alignment a run cannot cross a boundary that is at least as long.
    let alignment = placement.boundary == nil ? placement.alignment : max(placement.alignment, 1 << ceilingLog2(count))
    return pool.findEasyRun(
      RunRequest(count: count, alignment: alignment, end: min(placement.end, pool.runs.end)))
  }

  /// Isolates the next frames of the window.
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
      } else if !isIsolated(frame, plan.task) {
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
    // Without a single destination frame there is no progress: everything is in use.
    if looked == 1, plan.frames.count < plan.count, destinations.isEmpty, moves.isEmpty { return .failed }
    return plan.frames.count == plan.count ? .done : .more
  }

  private mutating func move(_ moves: [FrameMove], for plan: inout PlacementPlan) {
    guard !moves.isEmpty else { return }
    move(moves)
    plan.noteMoves()
    for move in moves { pool.records[move.source].owner = plan.task.rawValue }
  }

  /// Takes destinations for the contents that one step moves out of the window. Takes them first, since that may expire
  /// released contents, also in the window. A free frame inside the window is kept for it.
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
      isolate(frame, for: plan.task.rawValue)
      // A released content in the window may have expired: one fewer to move.
      if statistics.framesExpired != expired { needed = movesInOneStep(plan, window) }
    }
    return frames
  }

  /// The number of contents that the next step moves out of the window.
  private func movesInOneStep(_ plan: borrowing PlacementPlan, _ window: FrameRun) -> Int {
    var count = 0
    for offset in plan.frames.count..<min(plan.count, plan.frames.count + Self.takenInOneStep)
    where count < Self.movedInOneStep {
      if isMovable(window.start.advanced(by: offset)) { count += 1 }
    }
    return count
  }

  /// The number of free frames from `frame` on, up to a limit.
  private func freeCount(from frame: FrameNumber, most: Int) -> Int {
    var count = 1
    while count < most, canBeTaken(frame.advanced(by: count)) { count += 1 }
    return count
  }

  /// One step of giving back the frames of an abandoned window. False: there are none.
  private mutating func giveBackAbandoned(_ plan: inout PlacementPlan) -> Bool {
    guard let run = plan.nextAbandoned(most: Self.takenInOneStep) else { return false }
    for offset in 0..<run.count where isIsolated(run.start.advanced(by: offset), plan.task) {
      releaseIsolated(run.start.advanced(by: offset))
    }
    return true
  }

  // MARK: Single frames

  /// Takes free frames that satisfy the constraints; when there are no more, moves contents away.
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

  /// Moves one content away. False: there is no destination.
  private mutating func clearSingle(_ frame: FrameNumber, _ plan: inout PlacementPlan) -> Bool {
    guard let destination = takeDestination() else { return false }
    if plan.placement.permits(destination), Int(destination.rawValue) < pool.runs.end {
      take(destination, for: &plan)
    } else if isMovable(frame) {
      move([FrameMove(source: frame, destination: destination)])
      plan.noteMoves()
      take(frame, for: &plan)
    } else {
      // The released content expired to provide the destination: the search now finds the frame free.
      pool.give(destination)
    }
    return true
  }

  private mutating func take(_ frame: FrameNumber, for plan: inout PlacementPlan) {
    isolate(frame, for: plan.task.rawValue)
    plan.frames.append(frame)
  }

  // MARK: Isolated frames

  /// One step of giving back everything that is not installed, since the allocation is given up. False: done.
  mutating func abandon(_ plan: inout PlacementPlan) -> Bool {
    plan.frames.removeFirst(plan.installed)
    plan.installed = 0
    if plan.window != nil { plan.abandonWindow() }
    if giveBackAbandoned(&plan) { return true }
    for frame in plan.frames.suffix(Self.takenInOneStep) { releaseIsolated(frame) }
    plan.frames.removeLast(min(plan.frames.count, Self.takenInOneStep))
    guard plan.frames.isEmpty else { return true }
    tasks[plan.task].obstacle = plan.obstacle
    statistics.placementsRefused += 1
    return false
  }

  // MARK: Installing

  /// Drops the contents of the next ids and gives them their frames; cannot fail. The task never sees an id without its
  /// frame, which a fault would replace by another. False: done.
  mutating func installPlaced(_ plan: inout PlacementPlan, _ allocation: inout AllocationPlan) -> Bool {
    guard continueAllocation(&allocation, most: Self.installedInOneStep) else {
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

  /// Ends the placement constraint of a content, which may move from now on.
  mutating func giveUpPlace(_ number: ContentNumber) {
    let frame = contents[number].frame
    guard pool.records[frame].flags.contains(.placed) else { return }
    pool.records[frame].flags.remove(.placed)
    placedFrames -= 1
  }
}
