// Containers: name spaces of virtual frames, each owned by one task, which is charged for all its frames (R6, R15).
//
// The life of a container:
//  1. live: its owner holds a handle; frames are allocated, mapped, deallocated.
//  2. dying: destroyed, or its owner ended. No handle or mapping finds it any more; its frames are freed in bounded
//     steps.
//  3. gone: the slot is free, and its generation has changed, so that stale mappings find nothing.

internal import GuestMemory

struct Container: ~Copyable {
  let owner: TaskSlot
  /// The owner's handle.
  var handle: Handle = 0
  var isDying = false
  var frames = VirtualFrameTable()
  /// Weak capabilities of this epoch are valid. Begins at 1; 0 stands for the owner.
  var epoch: UInt32 = 1
  /// Mapped through a weak capability since the last revocation.
  var hasSharedMappings = false
  var lock: ContainerLock?
  /// Pins that keep the owner from freeing it: those of other tasks, and ended ones with a transfer under way.
  var pinsOfOthers = 0
  var pinsUnderWay: PinsUnderWay?
  /// Calls under way that change ids step by step: no frame may be pinned meanwhile.
  var changes = 0
  /// Frames charged for ids that a call under way has not reached yet.
  var promised = 0

  init(owner: TaskSlot) { self.owner = owner }
}

/// What a handle permits a task to do with a container.
struct ContainerAccess {
  let slot: ContainerSlot
  /// 0 for the owner, otherwise the epoch of the weak capability.
  let epoch: UInt32
  var isOwner: Bool { epoch == 0 }
}

/// A contiguous range of ids, checked not to exceed the id space.
struct FrameIDRange {
  let start: FrameID
  let count: Int
  var positions: Range<UInt64> { start.position..<start.position + UInt64(count) }

  /// - Throws: `.invalid` for an empty range, or one past 2^32.
  init(start: FrameID, count: UInt32) throws(CallFailure) {
    guard count > 0, start.position + UInt64(count) <= 1 << 32 else { throw .invalid }
    self.start = start
    self.count = Int(count)
  }
}

extension ServerState {
  /// The container that an owner's handle names.
  /// - Throws: `.notPermitted` for a weak capability; otherwise as `container`.
  mutating func ownedContainer(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerSlot {
    let access = try container(task, handle)
    guard access.isOwner else { throw .notPermitted }
    return access.slot
  }

  /// The container that a handle names, for its owner or through a weak capability (R20).
  /// - Throws: `.invalid` when it names no container, `.canceled` when the share was revoked, `.notPermitted` when the
  ///   capability is for another task, `.busy` when the container is locked against the task.
  mutating func container(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerAccess {
    switch tasks[task].handles[handle] {
    case .container(let reference):
      guard isLive(reference) else { throw .invalid }
      guard currentLock(reference.slot) == nil else { throw .busy }
      return ContainerAccess(slot: reference.slot, epoch: 0)
    case .weak(let reference, let epoch, let holder):
      guard isLive(reference), containers[reference.slot].epoch == epoch else { throw .canceled }
      guard holder == nil || holder == tasks[task].id else { throw .notPermitted }
      // A lock excludes the owner through any of its handles.
      guard containers[reference.slot].owner != task || currentLock(reference.slot) == nil else { throw .busy }
      return ContainerAccess(slot: reference.slot, epoch: epoch)
    default: throw .invalid
    }
  }

  @inline(__always)
  func isLive(_ reference: ContainerReference) -> Bool {
    containers.contains(reference.slot) && containers.generation(at: reference.slot) == reference.generation
      && !containers[reference.slot].isDying
  }

  /// Makes an empty container without a handle.
  /// - Throws: `.noMemory` when the table is full.
  mutating func makeContainer(owner: TaskSlot) throws(CallFailure) -> ContainerReference {
    guard let slot = containers.insert(Container(owner: owner)) else { throw .noMemory }
    return ContainerReference(slot: slot, generation: containers.generation(at: slot))
  }

  /// Makes an empty container and its owner's handle.
  /// - Throws: `.noMemory` when a table is full.
  mutating func createContainer(_ task: TaskSlot) throws(CallFailure) -> Handle {
    let reference = try makeContainer(owner: task)
    guard let handle = tasks[task].handles.insert(.container(reference)) else {
      _ = containers.remove(at: reference.slot)
      throw .noMemory
    }
    containers[reference.slot].handle = handle
    return handle
  }

  /// Takes the container from its owner at once; `continueDestroying` frees its frames.
  /// - Throws: as `ownedContainer`, `.notPermitted` for the initial container, `.busy` when a frame is pinned.
  mutating func beginDestroying(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerSlot {
    let slot = try ownedContainer(task, handle)
    guard slot != tasks[task].initialContainer.slot else { throw .notPermitted }
    guard firstPinned(slot, 0..<(1 << 32)) == nil else { throw .busy }
    tasks[task].handles.remove(handle)
    containers[slot].isDying = true
    return slot
  }

  /// One step. True: no frame is left, and the container is gone.
  mutating func continueDestroying(_ slot: ContainerSlot) -> Bool {
    guard releaseFrames(slot, 0..<(1 << 32)) == nil else { return false }
    removeLock(slot)
    _ = containers.remove(at: slot)
    return true
  }
}

extension ServerState {
  /// The lock in force. An expired lock is removed here.
  mutating func currentLock(_ slot: ContainerSlot) -> ContainerLock? {
    guard let lock = containers[slot].lock else { return nil }
    if events.now < lock.deadline { return lock }
    removeLock(slot)
    return nil
  }
}

// MARK: Calls under way

extension ServerState {
  /// A task's call begins to change what ids of the container name: until `endChanges`, none of its frames is pinned,
  /// and it is not locked. In the step that checks the call.
  mutating func beginChanging(_ slot: ContainerSlot, for task: TaskSlot) {
    containers[slot].changes += 1
    tasks[task].changing.append(reference(slot))
  }

  /// The task's call is over, however it came out.
  mutating func endChanges(of task: TaskSlot) {
    for container in tasks[task].changing where isCurrent(container) { containers[container.slot].changes -= 1 }
    tasks[task].changing.removeAll(keepingCapacity: true)
  }
}
