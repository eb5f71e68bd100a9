// Pins: frames that stay in place, with their data, while a device works on them (R22).
//
// The life of a pin:
//  1. held: the frame is resident, nobody else's content, and neither moved nor taken. Not even its owner gives it up.
//  2. ended, with a transfer under way: no other transfer begins, and the frame stays as in 1 (see Transfers.swift).
//  3. gone: unpinned by the task that pinned it, its time up, or that task dead, and no transfer under way.
//
// A pin whose time is up is ended by whoever asks next, before anything that depends on pins (`expirePins`). There may be
// half a pool of them: that goes in steps, as pinning does (PinCalls.swift).

internal import GuestMemory

/// Ids of a container that a call under way is pinning: they count as pinned already.
struct PinsUnderWay {
  let task: TaskSlot
  let ids: Range<UInt64>
}

extension ServerState {
  /// Pins, or locks.
  static let endedInOneStep = 512

  // MARK: What is pinned

  /// The pin of the frame that an id names.
  func pin(_ slot: ContainerSlot, _ id: FrameID) -> Pin? {
    guard let number = containers[slot].frames[id].content else { return nil }
    let frame = contents[number].frame
    return pool.records[frame].flags.contains(.pinned) ? pins[frame].pin : nil
  }

  func isPinned(_ slot: ContainerSlot, _ id: FrameID) -> Bool {
    containers[slot].pinsUnderWay?.ids.contains(id.position) ?? false || pin(slot, id) != nil
  }

  /// Whether any id is pinned, of whatever container.
  func hasPins(_ slot: ContainerSlot) -> Bool {
    containers[slot].frames.pinnedCount > 0 || containers[slot].pinsUnderWay != nil
  }

  /// The lowest id in a range that is pinned. Takes a step a leaf of the container's table, and one an id of two of them.
  func firstPinned(_ slot: ContainerSlot, _ ids: Range<UInt64>) -> FrameID? {
    guard hasPins(slot) else { return nil }
    var end = ids.upperBound
    if let underWay = containers[slot].pinsUnderWay?.ids, underWay.overlaps(ids) {
      end = max(underWay.lowerBound, ids.lowerBound)
    }
    var next = ids.lowerBound
    while let id = containers[slot].frames.firstNearPinned(next..<end) {
      if pin(slot, id) != nil { return id }
      next = id.position + 1
    }
    return end < ids.upperBound ? FrameID(position: end) : nil
  }

  // MARK: Changes

  /// `before`: whether the pin counts as one that keeps the container from its owner.
  private func isOfOthers(_ pin: Pin, _ slot: ContainerSlot) -> Bool {
    pin.isEnded || pin.task != containers[slot].owner
  }

  /// Pins the frame that an id names, or changes its pin.
  mutating func setPin(_ shown: ContainerFrame, _ pin: Pin) {
    guard let number = containers[shown.container].frames[shown.id].content else {
      preconditionFailure("a pin without a frame")
    }
    let frame = contents[number].frame
    let before = pins[frame]
    if before.isPinned {
      if isOfOthers(before.pin, shown.container) { containers[shown.container].pinsOfOthers -= 1 }
    } else {
      pool.records[frame].flags.insert(.pinned)
      containers[shown.container].frames.countPin(shown.id, 1)
    }
    pins.set(frame, shown, pin)
    if isOfOthers(pin, shown.container) { containers[shown.container].pinsOfOthers += 1 }
  }

  /// Ends the pin of a frame, now or with the last transfer that is under way in it.
  mutating func endPin(_ frame: FrameNumber) {
    let pinned = pins[frame]
    guard pinned.isPinned else { return }
    guard pinned.transfers == 0 else {
      var pin = pinned.pin
      pin.isEnded = true
      return setPin(pinned.place, pin)
    }
    if isOfOthers(pinned.pin, pinned.place.container) { containers[pinned.place.container].pinsOfOthers -= 1 }
    pins.remove(frame)
    pool.records[frame].flags.remove(.pinned)
    containers[pinned.place.container].frames.countPin(pinned.place.id, -1)
  }

  /// One step of ending pins whose time is up. False: there are more.
  mutating func expirePins() -> Bool {
    guard pins.count > 0 else { return true }
    let now = events.now
    var left = Self.endedInOneStep
    while let frame = pins.firstDue(now) {
      guard left > 0 else { return false }
      endPin(frame)
      left -= 1
    }
    return true
  }

  /// One step of ending all pins of a task that ends; owners who wait for that are woken. False: there are more.
  mutating func endPins(of task: TaskSlot) -> Bool {
    var left = Self.endedInOneStep
    var woken: TaskSlot?
    while let frame = pins.first(of: task) {
      guard left > 0 else { return false }
      left -= 1
      let place = pins[frame].place
      let owner = containers[place.container].owner
      endPin(frame)
      if pins[frame].isPinned {
        // The next task in the slot has no part in it.
        var pin = pins[frame].pin
        pin.task = .server
        setPin(place, pin)
      }
      if owner != woken { events.wake(owner) }
      woken = owner
    }
    return true
  }

  /// Until when others keep a container from its owner by pins: look again then. Of many pins some are looked at only; and
  /// nobody knows when a transfer is over, or a call.
  func pinnedByOthers(_ slot: ContainerSlot) -> UInt64? {
    let soon = events.now + Self.transferPatience
    let owner = containers[slot].owner
    let isBeingPinned = containers[slot].pinsUnderWay.map { $0.task != owner } ?? false
    guard containers[slot].pinsOfOthers > 0 else { return isBeingPinned ? soon : nil }
    var deadline: UInt64?
    var next: UInt64 = 0
    var left = Self.endedInOneStep
    while left > 0, let id = containers[slot].frames.firstNearPinned(next..<(1 << 32)) {
      left -= 1
      next = id.position + 1
      guard let pin = pin(slot, id), isOfOthers(pin, slot) else { continue }
      deadline = max(deadline ?? 0, pin.isEnded ? soon : pin.deadline)
    }
    return deadline ?? soon
  }
}
