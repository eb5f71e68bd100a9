// Pins: frames that stay in place, with their data, while a device works on them (R22).
//
// The life of a pin:
//  1. held: the frame is resident, nobody else's content, and neither moved nor taken. Not even its owner gives it up.
//  2. ended, with a transfer under way: no other transfer begins, and the frame stays as in 1 (see Transfers.swift).
//  3. gone: unpinned by the task that pinned it, its time up, or that task dead, and no transfer under way.

internal import CGuestABI
internal import GuestMemory

struct Pin: Equatable, BitwiseCopyable {
  /// The server: the task that pinned it has ended.
  var task: TaskSlot
  /// Nanoseconds of the machine's clock.
  let deadline: UInt64
  /// It is there only because of a transfer under way.
  var isEnded = false

  /// Whether the task's devices may work on the frame now.
  @inline(__always)
  func isGood(for task: TaskSlot, _ now: UInt64) -> Bool { self.task == task && !isEnded && deadline > now }
}

/// What the server knows of a pinned frame by its number. All bits zero is no pin: the time of one is never 0.
struct PinnedFrame: BitwiseCopyable {
  let place: ContainerFrame
  var pin: Pin
  /// Under way in the frame.
  var transfers: UInt32 = 0

  static var none: PinnedFrame {
    PinnedFrame(place: ContainerFrame(container: 0, id: 0), pin: Pin(task: TaskSlot(0), deadline: 0))
  }
  var isPinned: Bool { pin.deadline > 0 }
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
    guard let number = containers[slot].frames[id].content else { preconditionFailure("a pin without a frame") }
    let frame = contents[number].frame
    if let pin {
      let transfers = pinned[frame].transfers
      pinned[frame] = PinnedFrame(place: ContainerFrame(container: slot, id: id), pin: pin, transfers: transfers)
      pool.records[frame].flags.insert(.pinned)
    } else {
      pinned[frame] = .none
      pool.records[frame].flags.remove(.pinned)
    }
  }

  /// Ends a pin, now or with the last transfer that is under way in its frame.
  mutating func endPin(_ slot: UInt32, _ id: UInt32) {
    guard var pin = containers[slot].pins[id], let number = containers[slot].frames[id].content else { return }
    if pinned[contents[number].frame].transfers == 0 { return setPin(slot, id, nil) }
    pin.isEnded = true
    setPin(slot, id, pin)
  }

  /// Ends pins of the task; PM_ENOENT where there is none, PM_EPERM where it is another task's. All or none.
  mutating func unpin(_ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange) throws(ServerError) {
    guard range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let slot = try container(task, handle).slot
    expirePins(slot)
    for offset in 0..<UInt32(range.count) {
      guard let pin = containers[slot].pins[range.start + offset], !pin.isEnded else { throw .noEntry }
      guard pin.task == task else { throw .notPermitted }
    }
    for offset in 0..<UInt32(range.count) { endPin(slot, range.start + offset) }
    operations.wake(containers[slot].owner)
  }

  mutating func unpinAll(_ slot: UInt32, by task: TaskSlot) {
    let ids = containers[slot].pins.filter { $0.value.task == task }.map(\.key)
    for id in ids {
      endPin(slot, id)
      guard var pin = containers[slot].pins[id] else { continue }
      // The next task in the slot has no part in it.
      pin.task = .server
      setPin(slot, id, pin)
    }
    if !ids.isEmpty { operations.wake(containers[slot].owner) }
  }

  /// Forgets pins whose time is up.
  mutating func expirePins(_ slot: UInt32) {
    guard !containers[slot].pins.isEmpty else { return }
    let now = operations.now
    let ids = containers[slot].pins.filter { $0.value.deadline <= now && !$0.value.isEnded }.map(\.key)
    for id in ids { endPin(slot, id) }
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
