// Containers: name spaces of virtual frames, owned by one task, which is charged for every frame in them (R6, R15).
//
// The life of a container:
//  1. live: its owner holds a handle; frames are allocated, mapped, deallocated.
//  2. dying: destroyed, or its owner ended. No handle and no mapping finds it any more; its frames go back in
//     bounded steps.
//  3. gone: the slot is free, and its generation has moved on, so that mappings of the old one find nothing.

internal import GuestMemory

struct Container: ~Copyable {
  let owner: TaskSlot
  /// The owner's handle.
  var handle: Handle = 0
  var isDying = false
  var frames = VirtualFrameTable()
  /// Which weak capabilities are good: those of the same epoch. Begins at 1; 0 stands for the owner.
  var epoch: UInt32 = 1
  /// Somebody mapped it through a weak capability since the last revocation.
  var hasSharedMappings = false
  var lock: ContainerLock?
  /// Pins that keep it from its owner: those of other tasks, and those that a transfer outlasts.
  var pinsOfOthers = 0
  var pinsUnderWay: PinsUnderWay?
  /// Calls under way that change what ids name, step by step: no frame is pinned meanwhile.
  var changes = 0
  /// Frames charged for ids that an allocation under way has not come to yet.
  var promised = 0

  init(owner: TaskSlot) { self.owner = owner }
}

/// What a handle lets a task do with a container.
struct ContainerAccess {
  let slot: ContainerSlot
  /// 0 for the owner, else the epoch of the weak capability.
  let epoch: UInt32
  var isOwner: Bool { epoch == 0 }
}

/// A contiguous range of frame ids, checked not to pass the end of the id space.
struct FrameIDRange {
  let start: FrameID
  let count: Int
  var positions: Range<UInt64> { start.position..<start.position + UInt64(count) }

  /// PM_EINVAL for none at all, or past 2^32.
  init(start: FrameID, count: UInt32) throws(CallFailure) {
    guard count > 0, start.position + UInt64(count) <= 1 << 32 else { throw .invalid }
    self.start = start
    self.count = Int(count)
  }
}

extension ServerState {
  /// The container a handle names for its owner, who may do everything, but not while it is locked.
  mutating func ownedContainer(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerSlot {
    let access = try container(task, handle)
    guard access.isOwner else { throw .notPermitted }
    return access.slot
  }

  /// The container a handle names, for its owner or through a weak capability (R20).
  mutating func container(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> ContainerAccess {
    switch tasks[task].handles[handle] {
    case .container(let reference):
      guard isLive(reference) else { throw .invalid }
      guard currentLock(reference.slot) == nil else { throw .busy }
      return ContainerAccess(slot: reference.slot, epoch: 0)
    case .weak(let reference, let epoch, let holder):
      guard isLive(reference), containers[reference.slot].epoch == epoch else { throw .canceled }
      guard holder == nil || holder == tasks[task].id else { throw .notPermitted }
      // The owner is locked out whatever it holds.
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

  mutating func makeContainer(owner: TaskSlot) throws(CallFailure) -> ContainerReference {
    guard let slot = containers.insert(Container(owner: owner)) else { throw .noMemory }
    return ContainerReference(slot: slot, generation: containers.generation(at: slot))
  }

  mutating func createContainer(_ task: TaskSlot) throws(CallFailure) -> Handle {
    let reference = try makeContainer(owner: task)
    guard let handle = tasks[task].handles.insert(.container(reference)) else {
      _ = containers.remove(at: reference.slot)
      throw .noMemory
    }
    containers[reference.slot].handle = handle
    return handle
  }

  /// Takes the container from its owner at once; its frames go with `continueDestroying`.
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
  /// The lock in force; one whose time is up is forgotten here.
  mutating func currentLock(_ slot: ContainerSlot) -> ContainerLock? {
    guard let lock = containers[slot].lock else { return nil }
    if events.now < lock.deadline { return lock }
    removeLock(slot)
    return nil
  }
}
