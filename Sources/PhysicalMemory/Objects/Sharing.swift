// Sharing of containers: weak capabilities, their revocation, and locks (R20, R21).
//
// The life of a lock:
//  1. held by a task with a weak capability, until a deadline. The owner's calls on the container return PM_EBUSY, its
//     leaves are gone, and its faults wait.
//  2. ended: unlocked by its holder, expired, or its holder dead. The owner continues; nothing was lost.

internal import CGuestABI
internal import GuestMemory

/// A lock that excludes the owner of a container. `deadline` is in nanoseconds, like `start`.
struct ContainerLock {
  let holder: TaskSlot
  /// Neighbours in the list of containers locked by the holder.
  fileprivate var previous: ContainerSlot?
  fileprivate(set) var next: ContainerSlot?
  /// Nanoseconds of the machine's clock.
  let start: UInt64
  let deadline: UInt64

  init(holder: TaskSlot, start: UInt64, deadline: UInt64) {
    self.holder = holder
    self.start = start
    self.deadline = deadline
  }
}

extension ServerState {
  // MARK: Weak capabilities

  /// Makes a weak capability for the holder that `remote` names: any task, a certain task, or an endpoint's owner.
  /// - Throws: as `ownedContainer`, as `shareHolder`, `.noMemory` when the handle table is full.
  mutating func share(_ task: TaskSlot, _ handle: Handle, remote: Handle) throws(CallFailure) -> Handle {
    let slot = try ownedContainer(task, handle)
    return try insertWeak(task, slot, try shareHolder(task, remote))
  }

  /// Makes a weak capability for a holder; nil: for any task.
  /// - Throws: `.noMemory` when the handle table is full.
  mutating func insertWeak(_ task: TaskSlot, _ slot: ContainerSlot, _ holder: TaskID?) throws(CallFailure) -> Handle {
    let reference = ContainerReference(slot: slot, generation: containers.generation(at: slot))
    let target = HandleTarget.weak(reference, epoch: containers[slot].epoch, holder: holder)
    guard let weak = tasks[task].handles.insert(target) else { throw .noMemory }
    return weak
  }

  /// Ends a call that creates a container with frames: shares it if `weakResult` is not 0, and stores the handles. The
  /// copies may have made a result's page read-only since the check; then the weak capability is removed again.
  /// - Throws: as `share`, `.fault` when a result is not writable any more.
  mutating func giveContainer(
    _ task: TaskSlot, _ handle: Handle, remote: Handle, result: GuestAddress, weakResult: GuestAddress
  ) throws(CallFailure) {
    guard weakResult != 0 else { return try store(handle, task, result) }
    let weak = try share(task, handle, remote: remote)
    do throws(CallFailure) {
      try store(weak, task, weakResult)
      try store(handle, task, result)
    } catch {
      tasks[task].handles.remove(weak)
      throw error
    }
  }

  /// - Returns: the only task that may use the capability; nil: any.
  /// - Throws: `.invalid` for a handle that names no task or endpoint, `.canceled` when the endpoint is gone.
  func shareHolder(_ task: TaskSlot, _ remote: Handle) throws(CallFailure) -> TaskID? {
    if remote == .none { return nil }
    switch tasks[task].handles[remote] {
    case .task: return tasks[task].id
    case .peer(_, let id): return id
    case .endpoint(let reference, _):
      guard isLive(reference) else { throw .canceled }
      return tasks[endpoints[reference.slot].owner].id
    default: throw .invalid
    }
  }

  /// Revokes all shares at once.
  /// - Returns: the container, if other tasks may still have leaves of it: `cutOff` follows.
  /// - Throws: as `ownedContainer`, `.busy` while another task holds it locked or pinned.
  mutating func revokeShares(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerReference? {
    let slot = try ownedContainer(task, handle)
    guard heldByOthers(slot) == nil else { throw .busy }
    // The number repeats after four billion revocations; 0 is the owner's.
    containers[slot].epoch = containers[slot].epoch == .max ? 1 : containers[slot].epoch + 1
    defer { containers[slot].hasSharedMappings = false }
    return containers[slot].hasSharedMappings ? reference(slot) : nil
  }

  /// Whose leaves of a container are removed.
  enum CutOff {
    /// All leaves of the owner: the container was locked.
    case owner
    /// Leaves of mappings made through weak capabilities: the shares were revoked.
    case shares
  }

  /// One step of removing leaves of a container, from id `start` on.
  /// - Returns: the id to continue from; nil at the container's end.
  mutating func cutOff(_ reference: ContainerReference, _ meant: CutOff, from start: UInt64) -> UInt64? {
    // A short lock may be over by now, and the container destroyed.
    guard isCurrent(reference) else { return nil }
    beginStep()
    defer { finishRevocations() }
    let slot = reference.slot
    var next = start
    while next < 1 << 32, let id = containers[slot].frames.firstUsed(from: FrameID(position: next)) {
      step.count(Work.look)
      if let number = containers[slot].frames[id].content {
        let shown = ContainerFrame(container: slot, id: id)
        let filter: PlaceFilter =
          switch meant {
          case .owner: .showing(shown, to: containers[slot].owner)
          case .shares: .weak(shown)
          }
        guard removeLeaves(of: contents[number].frame, filter, showing: shown, .withdrawn) else { return id.position }
      }
      next = id.position + 1
      if isStepOver { return next }
    }
    return nil
  }

  // MARK: Locks

  /// Locks out the owner; `cutOff` removes its leaves. The holder may extend its lock, up to the maximum time from the
  /// beginning.
  /// - Throws: as `container`, `.invalid` for a bad time, `.notPermitted` for the owner, `.busy` while another task
  ///   holds the lock or a call of the owner is under way, `.canceled` when the owner is ending.
  mutating func lock(
    _ task: TaskSlot, _ handle: Handle, microseconds: UInt64
  ) throws(CallFailure) -> ContainerReference {
    guard microseconds > 0, microseconds <= PM_LOCK_MAXIMUM_US else { throw .invalid }
    let access = try container(task, handle)
    guard !access.isOwner else { throw .notPermitted }
    let current = currentLock(access.slot)
    if let current, current.holder != task { throw .busy }
    // A call under way would continue despite the lock.
    guard current != nil || containers[access.slot].changes == 0 else { throw .busy }
    let owner = containers[access.slot].owner
    guard owner != task else { throw .notPermitted }
    guard !tasks[owner].isEnding else { throw .canceled }
    let now = events.now
    let start = current?.start ?? now
    let deadline = min(now + microseconds * 1000, start + PM_LOCK_MAXIMUM_US * 1000)
    setLock(access.slot, ContainerLock(holder: task, start: start, deadline: deadline))
    return reference(access.slot)
  }

  private mutating func setLock(_ slot: ContainerSlot, _ lock: ContainerLock) {
    removeLock(slot)
    let next = tasks[lock.holder].firstLocked
    var lock = lock
    lock.next = next
    containers[slot].lock = lock
    if let next { containers[next].lock?.previous = slot }
    tasks[lock.holder].firstLocked = slot
  }

  mutating func removeLock(_ slot: ContainerSlot) {
    guard let lock = containers[slot].lock else { return }
    containers[slot].lock = nil
    if let next = lock.next { containers[next].lock?.previous = lock.previous }
    if let previous = lock.previous {
      containers[previous].lock?.next = lock.next
    } else {
      tasks[lock.holder].firstLocked = lock.next
    }
  }

  /// Ends the task's lock.
  /// - Throws: as `container`, `.notPermitted` when the task does not hold the lock.
  mutating func unlock(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) {
    let access = try container(task, handle)
    guard let lock = currentLock(access.slot), lock.holder == task else { throw .notPermitted }
    endLock(access.slot)
  }

  private mutating func endLock(_ slot: ContainerSlot) {
    removeLock(slot)
    events.wake(containers[slot].owner)
  }

  func reference(_ slot: ContainerSlot) -> ContainerReference {
    ContainerReference(slot: slot, generation: containers.generation(at: slot))
  }

  // MARK: Ends

  /// How long locks or pins keep a container from its owner: the time (nanoseconds) to check again; nil: none do.
  mutating func heldByOthers(_ slot: ContainerSlot) -> UInt64? {
    let lock = currentLock(slot)?.deadline
    guard let pins = pinnedByOthers(slot) else { return lock }
    return max(lock ?? 0, pins)
  }

  /// One step of ending the locks of an ending task. False: more are left.
  mutating func endLocks(of task: TaskSlot) -> Bool {
    var left = Self.endedInOneStep
    while let slot = tasks[task].firstLocked {
      guard left > 0 else { return false }
      endLock(slot)
      left -= 1
    }
    return true
  }

  /// Whether the container is still the same, dying or not.
  func isCurrent(_ reference: ContainerReference) -> Bool {
    containers.contains(reference.slot) && containers.generation(at: reference.slot) == reference.generation
  }
}
