// Pins: frames that stay in place, with their data, while a device works on them (R22).
//
// The life of a pin:
//  1. held: the frame is resident, nobody else's content, and neither moved nor taken. Not even its owner gives it up.
//  2. ended: unpinned by the task that pinned it, its time up, or that task dead.

internal import CGuestABI
internal import GuestMemory

struct Pin {
  let task: TaskSlot
  /// Nanoseconds of the machine's clock.
  let deadline: UInt64
}

extension ServerState {
  /// Pins frames and gives their physical addresses. Pinned frames may be at most half of what tasks can have.
  mutating func pin(
    _ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange, microseconds: UInt64
  ) throws(ServerError) -> [UInt64] {
    guard microseconds > 0, microseconds <= PM_LOCK_MAXIMUM_US, range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let slot = try container(task, handle).slot
    guard containers[slot].frames.run(from: range.start, limit: range.count, inUse: true) == range.count else {
      throw .noEntry
    }
    // A frame on its way out must not be pinned, nor one whose owner is ending and waits for pins to end.
    guard containers[slot].changes == 0 else { throw .busy }
    guard !tasks[containers[slot].owner.rawValue].isEnding else { throw .canceled }
    expirePins(slot)
    for offset in 0..<UInt32(range.count) {
      if let pin = containers[slot].pins[range.start + offset], pin.task != task { throw .busy }
    }
    let more = (0..<UInt32(range.count)).count { containers[slot].pins[range.start + $0] == nil }
    if pinnedFrames + more > ledger.allocatable / 2 { expireAllPins() }
    guard pinnedFrames + more <= ledger.allocatable / 2 else { throw .noMemory }
    var addresses: [UInt64] = []
    addresses.reserveCapacity(range.count)
    for offset in 0..<UInt32(range.count) {
      addresses.append(try makePinnable(ContainerFrame(container: slot, id: range.start + offset)).address)
    }
    let deadline = operations.now + microseconds * 1000
    for offset in 0..<UInt32(range.count) { setPin(slot, range.start + offset, Pin(task: task, deadline: deadline)) }
    tasks[task.rawValue].held.insert(reference(slot))
    return addresses
  }

  /// Resident, and nobody else's: a device that writes the frame must not write a logical copy.
  private mutating func makePinnable(_ shown: ContainerFrame) throws(ServerError) -> FrameNumber {
    try makePrivate(shown)
    if let number = containers[shown.container].frames[shown.id].content { return contents[number].frame }
    guard let frame = makeResident(shown.container, shown.id) else { throw .noMemory }
    return frame
  }

  private mutating func setPin(_ slot: UInt32, _ id: UInt32, _ pin: Pin?) {
    let before = containers[slot].pins.count
    containers[slot].pins[id] = pin
    pinnedFrames += containers[slot].pins.count - before
    guard let number = containers[slot].frames[id].content else { return }
    if pin == nil {
      pool.records[contents[number].frame].flags.remove(.pinned)
    } else {
      pool.records[contents[number].frame].flags.insert(.pinned)
    }
  }

  /// Ends pins of the task; PM_ENOENT where there is none, PM_EPERM where it is another task's. All or none.
  mutating func unpin(_ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange) throws(ServerError) {
    guard range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let slot = try container(task, handle).slot
    expirePins(slot)
    for offset in 0..<UInt32(range.count) {
      guard let pin = containers[slot].pins[range.start + offset] else { throw .noEntry }
      guard pin.task == task else { throw .notPermitted }
    }
    for offset in 0..<UInt32(range.count) { setPin(slot, range.start + offset, nil) }
    operations.wake(containers[slot].owner)
  }

  mutating func unpinAll(_ slot: UInt32, by task: TaskSlot) {
    let ids = containers[slot].pins.filter { $0.value.task == task }.map(\.key)
    for id in ids { setPin(slot, id, nil) }
    if !ids.isEmpty { operations.wake(containers[slot].owner) }
  }

  /// Forgets pins whose time is up.
  mutating func expirePins(_ slot: UInt32) {
    guard !containers[slot].pins.isEmpty else { return }
    let now = operations.now
    let ids = containers[slot].pins.filter { $0.value.deadline <= now }.map(\.key)
    for id in ids { setPin(slot, id, nil) }
  }

  /// The same wherever there may be pins.
  mutating func expireAllPins() {
    var held: [ContainerReference] = []
    tasks.forEachIndex { held += tasks[$0].held }
    for reference in held where isCurrent(reference) { expirePins(reference.slot) }
  }

  /// The lowest id in a range that is pinned.
  mutating func firstPinned(_ slot: UInt32, _ ids: Range<UInt64>) -> UInt32? {
    guard !containers[slot].pins.isEmpty else { return nil }
    expirePins(slot)
    return containers[slot].pins.keys.filter { ids.contains(UInt64($0)) }.min()
  }
}
