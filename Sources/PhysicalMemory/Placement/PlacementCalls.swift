// The public face of placement and defragmentation. See PhysicalMemoryServer.

internal import CGuestABI
internal import GuestMemory

extension PhysicalMemoryServer {
  /// As `allocate`, with frames where `placement`, a `struct pm_placement`, says (R19): all of them or none.
  public func allocatePlaced(
    _ task: TaskSlot, _ handle: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32, placement: UInt64
  ) throws(ServerError) {
    // A pin whose time is up is in nobody's way.
    var (allocation, plan) = try withCurrentPins { (state) throws(ServerError) in
      try state.planPlaced(
        task, Handle(handle), start: FrameID(start), countAddress: GuestAddress(countAddress), flags: flags,
        placement: GuestAddress(placement))
    }
    var progress = PlacementPlan.Progress.more
    var isStopped = false
    while progress == .more, !isStopped {
      plan.isWaiting = false
      isStopped = !steps(of: task) { state in
        progress = state.continuePlacement(&plan)
        return progress == .more && !plan.isWaiting
      }
      if plan.isWaiting { waitForGracePeriod() }
    }
    guard !isStopped, progress == .done else {
      while withState({ $0.abandon(&plan) }) {}
      withState { state in
        state.abandon(allocation)
        try? state.store(UInt32(0), task, GuestAddress(countAddress))
      }
      throw isStopped ? .stopped : .noMemory
    }
    if plan.hasMoved { waitForGracePeriod() }
    guard steps(of: task, { $0.installPlaced(&plan, &allocation) }) else {
      while withState({ $0.abandon(&plan) }) {}
      withState { $0.abandon(allocation) }
      throw .stopped
    }
    // The result may have been in one of the frames that were dropped.
    if flags & UInt32(PM_ALLOC_SQUASH) != 0 {
      withState { state in try? state.store(UInt32(plan.count), task, GuestAddress(countAddress)) }
    }
    if let error = allocation.result.error { throw error }
  }

  /// What was in the way of the task's last placement that was refused; `.none` where it was nothing in particular.
  public func placementObstacle(_ task: TaskSlot) -> Obstacle {
    withState { $0.tasks[task].obstacle ?? Obstacle(address: 0, kind: .none) }
  }

  // MARK: Defragmentation

  public var fragmentation: Fragmentation { withState { $0.fragmentation } }

  /// One step of a pass. False: it is over.
  public func continueDefragmentation(_ pass: inout DefragmentationPass) -> Bool {
    withState { $0.continueDefragmentation(&pass) }
  }

  /// A whole pass, for who holds control; stores how many frames were moved.
  public func defragment(_ task: TaskSlot, _ handle: UInt32, result: UInt64) throws(ServerError) {
    try withState { (state) throws(ServerError) in
      try state.checkControl(task, Handle(handle))
      try state.checkWritable(task, GuestAddress(result), 4)
    }
    var pass = DefragmentationPass()
    guard steps(of: task, { $0.continueDefragmentation(&pass) }) else { throw .stopped }
    try withState { (state) throws(ServerError) in
      try state.store(UInt32(truncatingIfNeeded: pass.moved), task, GuestAddress(result))
    }
  }

  /// For measurements: moves a step's worth of the contents from `position` on elsewhere; nil: that was all.
  public func moveNextFrames(_ position: inout Int) -> Int? { withState { $0.moveNextFrames(&position) } }

  /// For tests: moves some content to another frame, as the server may at any time.
  public func moveSomeFrame(_ random: UInt64) -> Bool { withState { $0.moveSomeFrame(random) } }
}

extension ServerState {
  /// Checks everything and charges the frames.
  fileprivate mutating func planPlaced(
    _ task: TaskSlot, _ handle: Handle, start: FrameID, countAddress: GuestAddress, flags: UInt32,
    placement: GuestAddress
  ) throws(ServerError) -> (AllocationPlan, PlacementPlan) {
    let flags = AllocationFlags(rawValue: flags)
    let count = try loadCount(task, countAddress)
    guard flags.isSubset(of: .all), count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let range = try FrameIDRange(start: start, count: count)
    let wanted = try loadPlacement(task, placement, count: range.count)
    tasks[task].obstacle = nil
    // Others shall find room for theirs as well.
    guard placedFrames + range.count <= ledger.allocatable / 4 * 3 else {
      try store(UInt32(0), task, countAddress)
      throw .noMemory
    }
    let allocation = try planAllocation(task, handle, range, flags, placed: true)
    let done = allocation.result.count
    // It could be written a moment ago: it can be written now.
    try store(UInt32(done), task, countAddress)
    if done == 0, let error = allocation.result.error {
      containers[allocation.container].changes -= 1
      throw error
    }
    containers[allocation.container].changes += 1
    return (allocation, planPlacement(task, allocation, wanted))
  }

  private mutating func loadPlacement(_ task: TaskSlot, _ address: GuestAddress, count: Int) throws(ServerError)
    -> Placement
  {
    var bytes = [UInt8](repeating: 0, count: MemoryLayout<pm_placement>.size)
    try readMemory(task, address, into: &bytes)
    func word(_ offset: Int, _ size: Int) -> UInt64 {
      (0..<size).reversed().reduce(0) { $0 << 8 | UInt64(bytes[offset + $1]) }
    }
    guard word(36, 4) == 0 else { throw .invalid }
    return try Placement(
      below: word(0, 8), alignment: word(8, 8), boundary: word(16, 8), fixed: word(24, 8),
      contiguous: UInt32(word(32, 4)), count: count, frameCount: pool.count)
  }
}
