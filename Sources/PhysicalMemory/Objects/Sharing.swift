// Sharing a container: weak capabilities, their revocation, and locks (R20, R21).
//
// The life of a lock:
//  1. held: by a task with a weak capability, until a deadline. The owner's calls on the container answer PM_EBUSY, its
//     leaves are gone, and its accesses wait.
//  2. ended: unlocked by its holder, its time up, or its holder dead. The owner goes on; nothing was lost.

internal import CGuestABI
internal import GuestMemory

struct ContainerLock {
  let holder: TaskSlot
  /// Other containers that the holder has locked.
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

  /// A weak capability for the holder that `remote` names: nobody in particular, a task, or an endpoint's owner.
  mutating func share(_ task: TaskSlot, _ handle: Handle, remote: Handle) throws(CallFailure) -> Handle {
    let slot = try ownedContainer(task, handle)
    return try insertWeak(task, slot, try shareHolder(task, remote))
  }

  mutating func insertWeak(_ task: TaskSlot, _ slot: ContainerSlot, _ holder: TaskID?) throws(CallFailure) -> Handle {
    let reference = ContainerReference(slot: slot, generation: containers.generation(at: slot))
    let target = HandleTarget.weak(reference, epoch: containers[slot].epoch, holder: holder)
    guard let weak = tasks[task].handles.insert(target) else { throw .noMemory }
    return weak
  }

  /// The end of a call that makes a container with frames: shares it if `weakResult` is not 0, and stores the handles.
  /// The copies may have made a result's page read-only since it was checked: then no weak capability is left either.
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

  /// Cancels every share at once.
  /// - Returns: the container, if others may still see it: `cutOff` is to follow.
  mutating func revokeShares(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerReference? {
    let slot = try ownedContainer(task, handle)
    guard heldByOthers(slot) == nil else { throw .busy }
    // The same number comes again after four billion revocations; 0 is the owner's.
    containers[slot].epoch = containers[slot].epoch == .max ? 1 : containers[slot].epoch + 1
    defer { containers[slot].hasSharedMappings = false }
    return containers[slot].hasSharedMappings ? reference(slot) : nil
  }

  /// Whose leaves of a container go.
  enum CutOff {
    /// The owner's, however it mapped them: the container has been locked.
    case owner
    /// Those of mappings made through weak capabilities: the shares have been cancelled.
    case shares
  }

  /// One step of emptying leaves of a container, from id `start` on.
  /// - Returns: where to go on; nil at the container's end.
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

  /// Locks out the owner from now on; its leaves go with `cutOff`. The holder may extend its lock, but not beyond the
  /// longest time from its beginning.
  mutating func lock(
    _ task: TaskSlot, _ handle: Handle, microseconds: UInt64
  ) throws(CallFailure) -> ContainerReference {
    guard microseconds > 0, microseconds <= PM_LOCK_MAXIMUM_US else { throw .invalid }
    let access = try container(task, handle)
    guard !access.isOwner else { throw .notPermitted }
    let current = currentLock(access.slot)
    if let current, current.holder != task { throw .busy }
    // A call under way would go on behind the lock.
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

  /// Until when others keep a container from its owner, by a lock or by pins: look again then.
  mutating func heldByOthers(_ slot: ContainerSlot) -> UInt64? {
    let lock = currentLock(slot)?.deadline
    guard let pins = pinnedByOthers(slot) else { return lock }
    return max(lock ?? 0, pins)
  }

  /// One step of ending the locks of a task that ends. False: there are more.
  mutating func endLocks(of task: TaskSlot) -> Bool {
    var left = Self.endedInOneStep
    while let slot = tasks[task].firstLocked {
      guard left > 0 else { return false }
      endLock(slot)
      left -= 1
    }
    return true
  }

  /// The container is still the same, dying or not.
  func isCurrent(_ reference: ContainerReference) -> Bool {
    containers.contains(reference.slot) && containers.generation(at: reference.slot) == reference.generation
  }
}
