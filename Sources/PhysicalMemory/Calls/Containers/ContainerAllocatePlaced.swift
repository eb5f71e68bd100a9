// pm_container_allocate_placed (R19): as pm_container_allocate, with physical frames that satisfy a placement: all or
// none.

internal import CGuestABI

struct ContainerAllocatePlaced: ServerCall {
  let container: Handle
  let start: FrameID
  let count: GuestAddress
  let flags: AllocationFlags
  /// A `struct pm_placement`.
  let placement: GuestAddress

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asAddress
    flags = AllocationFlags(rawValue: arguments.words.3.asFlags)
    placement = arguments.words.4.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    // Expired pins must not block the placement.
    var (allocation, plan) = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      try self.plan(&state, task)
    }
    func giveUp(_ state: inout ServerState) -> Bool {
      if state.abandon(&plan) { return true }
      state.abandon(allocation)
      return false
    }
    var progress = PlacementPlan.Progress.more
    while progress == .more {
      plan.isWaiting = false
      try caller.steps(
        { state in
          progress = state.continuePlacement(&plan)
          return progress == .more && !plan.isWaiting
        }, undo: giveUp)
      if plan.isWaiting { caller.server.waitForGracePeriod() }
    }
    guard progress == .done else {
      while caller.step({ giveUp(&$0) }) {}
      caller.step { try? $0.store(UInt32(0), task, count) }
      throw .noMemory
    }
    if plan.hasMoved { caller.server.waitForGracePeriod() }
    try caller.steps({ $0.installPlaced(&plan, &allocation) }, undo: giveUp)
    // The squash may have dropped the frame that holds the result: store it again.
    if flags.contains(.squash) { caller.step { try? $0.store(UInt32(plan.count), task, count) } }
    if let error = allocation.result.error { throw .error(error) }
  }

  /// Checks everything and charges the frames.
  private func plan(
    _ state: inout ServerState, _ task: TaskSlot
  ) throws(CallFailure) -> (AllocationPlan, PlacementPlan) {
    let wanted = try state.loadCount(task, count)
    guard flags.isSubset(of: .all), wanted <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let range = try FrameIDRange(start: start, count: wanted)
    let constraints = try loadPlacement(&state, task, count: range.count)
    state.tasks[task].obstacle = nil
    // Leave a quarter of the frames for other placements.
    guard state.placedFrames + range.count <= state.ledger.allocatable / 4 * 3 else {
      try state.store(UInt32(0), task, count)
      throw .noMemory
    }
    let allocation = try state.planAllocation(task, container, range, flags, placed: true)
    let done = allocation.result.count
    // It was writable when checked, and still is.
    try state.store(UInt32(done), task, count)
    if done == 0, let error = allocation.result.error { throw .error(error) }
    state.beginChanging(allocation.container, for: task)
    return (allocation, state.planPlacement(task, allocation, constraints))
  }

  private func loadPlacement(
    _ state: inout ServerState, _ task: TaskSlot, count: Int
  ) throws(CallFailure) -> Placement {
    var bytes = [UInt8](repeating: 0, count: MemoryLayout<pm_placement>.size)
    try state.readMemory(task, placement, into: &bytes)
    func word(_ offset: Int, _ size: Int) -> UInt64 {
      (0..<size).reversed().reduce(0) { $0 << 8 | UInt64(bytes[offset + $1]) }
    }
    guard word(36, 4) == 0 else { throw .invalid }
    return try Placement(
      below: word(0, 8), alignment: word(8, 8), boundary: word(16, 8), fixed: word(24, 8),
      contiguous: UInt32(word(32, 4)), count: count, frameCount: state.pool.count)
  }
}
