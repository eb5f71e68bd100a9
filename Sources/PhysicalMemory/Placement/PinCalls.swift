// pm_container_pin and pm_container_unpin (R22): all of the frames or none, in bounded steps.
//
// The life of a call that pins:
//  1. look: no id is pinned by another task. From now on all of them count as pinned (`pinsUnderWay`): they cannot be
//     freed, copied or pinned, nor the container destroyed, so the check stays valid.
//  2. pin: as many pins as are missing are set aside; each id gets a private frame, which stays in place.
//  3. tell: the addresses are stored in the task's memory.
//  4. undo, if 1 to 3 failed: new pins end, and extended pins get their old deadline again.
// A device may access a frame as soon as it is pinned.
//
// A call that unpins checks all ids first. The check stays valid, except for pins that expire meanwhile.

internal import CGuestABI
internal import GuestMemory

/// A call that pins, under way. `deadline` is in nanoseconds.
struct PinPlan {
  let task: TaskSlot
  let container: ContainerReference
  let range: FrameIDRange
  /// Where to store the addresses.
  let physical: GuestAddress
  let deadline: UInt64
  /// The error, if nothing is pinned.
  private(set) var error: CallFailure?

  fileprivate enum Stage { case look, pin, tell, undo, over }
  fileprivate var stage = Stage.look
  /// The number of ids that each stage has done.
  fileprivate var looked = 0
  fileprivate var pinned = 0
  fileprivate var told = 0
  /// Ids without a pin, among those checked.
  fileprivate var missing = 0
  /// Pins set aside and not made yet.
  fileprivate var setAside = 0
  /// Pins that the task held before, in order of ids.
  fileprivate var former: [(offset: Int, pin: Pin)] = []

  var isOver: Bool { stage == .over }

  fileprivate mutating func fail(_ error: CallFailure) {
    self.error = error
    stage = .undo
  }

  fileprivate func place(_ offset: Int) -> ContainerFrame {
    ContainerFrame(container: container.slot, id: range.start.advanced(by: offset))
  }
}

/// A call that unpins, under way.
struct UnpinPlan {
  let task: TaskSlot
  let container: ContainerReference
  let range: FrameIDRange
  private(set) var error: CallFailure?
  fileprivate var looked = 0
  fileprivate var ended = 0

  fileprivate mutating func fail(_ error: CallFailure) { self.error = error }
}

extension ServerState {
  private static let workOfPin = 8
  private static let workOfFrame = 64
  /// Addresses stored at a time.
  private static let toldAtOnce = 64

  // MARK: Pinning

  /// Checks everything that takes constant time. At most half of the allocatable frames may be pinned.
  /// - Throws: as `container`, `.invalid` for a bad time or too many frames, `.noEntry` for an id not in use, `.busy`
  ///   while another call changes the container, `.canceled` when the owner is ending.
  mutating func planPin(
    _ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange, microseconds: UInt64, physical: GuestAddress
  ) throws(CallFailure) -> PinPlan {
    guard microseconds > 0, microseconds <= PM_LOCK_MAXIMUM_US, range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let slot = try container(task, handle).slot
    guard containers[slot].frames.run(from: range.start, limit: range.count, inUse: true) == range.count else {
      throw .noEntry
    }
    // A frame being freed must not be pinned, nor one whose owner is ending and waits for pins to end.
    guard containers[slot].changes == 0 else { throw .busy }
    guard !tasks[containers[slot].owner].isEnding else { throw .canceled }
    containers[slot].pinsUnderWay = PinsUnderWay(task: task, ids: range.positions)
    return PinPlan(
      task: task, container: reference(slot), range: range, physical: physical,
      deadline: events.now + microseconds * 1000)
  }

  /// One step. False: the call is over, and `error` is its result.
  mutating func continuePin(_ plan: inout PinPlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    while true {
      switch plan.stage {
      case .look: step.count(look(&plan))
      case .pin: step.count(pinNext(&plan))
      case .tell: step.count(tellNext(&plan))
      case .undo: step.count(undoNext(&plan))
      case .over: return false
      }
      if isStepOver || !mayTakeAnother { return plan.stage != .over }
    }
  }

  /// - Returns: the work done, as for the other stages.
  private mutating func look(_ plan: inout PinPlan) -> Int {
    guard plan.looked < plan.range.count else {
      setPinsAside(&plan)
      return 1
    }
    let place = plan.place(plan.looked)
    plan.looked += 1
    if let pin = pin(place.container, place.id) {
      if pin.task != plan.task { plan.fail(.busy) }
    } else {
      plan.missing += 1
    }
    return 1
  }

  private mutating func setPinsAside(_ plan: inout PinPlan) {
    guard pins.count + pinsSetAside + plan.missing <= ledger.allocatable / 2 else { return plan.fail(.noMemory) }
    plan.setAside = plan.missing
    pinsSetAside += plan.missing
    plan.stage = .pin
  }

  private mutating func pinNext(_ plan: inout PinPlan) -> Int {
    guard plan.pinned < plan.range.count else {
      plan.stage = .tell
      return 1
    }
    let place = plan.place(plan.pinned)
    let work = isReady(place) ? Self.workOfPin : Self.workOfFrame
    guard removeOldLeaves(place) else { return work }
    do throws(CallFailure) {
      try makePinnable(place)
      if let pin = pin(place.container, place.id) {
        plan.former.append((plan.pinned, pin))
      } else {
        try takePin(&plan)
      }
    } catch {
      plan.fail(error)
      return work
    }
    setPin(place, Pin(task: plan.task, deadline: plan.deadline))
    plan.pinned += 1
    return work
  }

  /// Takes one of the pins set aside. More are needed only where a counted pin has expired meanwhile.
  private mutating func takePin(_ plan: inout PinPlan) throws(CallFailure) {
    if plan.setAside > 0 {
      plan.setAside -= 1
      pinsSetAside -= 1
    } else {
      guard pins.count + pinsSetAside < ledger.allocatable / 2 else { throw .noMemory }
    }
  }

  private func isReady(_ shown: ContainerFrame) -> Bool {
    containers[shown.container].frames[shown.id].content.map { contents[$0].sharers == 1 } ?? false
  }

  /// Clears leaves of a shared content, so that tasks that map the id see its private one. False: more are left.
  private mutating func removeOldLeaves(_ shown: ContainerFrame) -> Bool {
    guard let number = containers[shown.container].frames[shown.id].content, contents[number].sharers > 1 else {
      return true
    }
    return removeLeaves(of: contents[number].frame, .showing(shown), showing: shown, .copied)
  }

  /// Makes the content resident and private: a device must not write to a logical copy.
  private mutating func makePinnable(_ shown: ContainerFrame) throws(CallFailure) {
    try makePrivate(shown)
    guard containers[shown.container].frames[shown.id].content == nil else { return }
    guard makeResident(shown.container, shown.id) != nil else { throw .noMemory }
  }

  private mutating func tellNext(_ plan: inout PinPlan) -> Int {
    guard plan.told < plan.range.count else {
      finish(&plan)
      return 1
    }
    var bytes: [UInt8] = []
    let end = min(plan.range.count, plan.told + Self.toldAtOnce)
    for offset in plan.told..<end {
      let place = plan.place(offset)
      let address = containers[place.container].frames[place.id].content.map { contents[$0].frame.address } ?? 0
      for index in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: address >> UInt64(8 * index))) }
    }
    do throws(CallFailure) {
      try writeMemory(plan.task, plan.physical.advanced(by: 8 * plan.told), bytes.span)
      plan.told = end
    } catch {
      plan.fail(error)
    }
    return Self.workOfPin * Self.toldAtOnce
  }

  private mutating func undoNext(_ plan: inout PinPlan) -> Int {
    guard plan.pinned > 0 else {
      finish(&plan)
      return 1
    }
    plan.pinned -= 1
    let place = plan.place(plan.pinned)
    let former = plan.former.last?.offset == plan.pinned ? plan.former.removeLast().pin : nil
    if let former, !former.isEnded {
      setPin(place, former)
    } else {
      endPin(place, of: plan.task)
    }
    return Self.workOfPin
  }

  private mutating func finish(_ plan: inout PinPlan) {
    let slot = plan.container.slot
    containers[slot].pinsUnderWay = nil
    pinsSetAside -= plan.setAside
    plan.stage = .over
    let owner = containers[slot].owner
    if tasks[owner].isEnding { events.wake(owner) }
  }

  /// Gives up the call. The pins made so far stay.
  mutating func abandon(_ plan: inout PinPlan) { finish(&plan) }

  /// Ends the task's own pin of an id, if any.
  private mutating func endPin(_ shown: ContainerFrame, of task: TaskSlot) {
    guard let number = containers[shown.container].frames[shown.id].content else { return }
    let frame = contents[number].frame
    if pins[frame].isPinned, pins[frame].pin.task == task, !pins[frame].pin.isEnded { endPin(frame) }
  }

  // MARK: Unpinning

  /// Begins a call that unpins.
  /// - Throws: as `container`, `.invalid` for too many frames.
  mutating func planUnpin(_ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange) throws(CallFailure) -> UnpinPlan {
    guard range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    return UnpinPlan(task: task, container: reference(try container(task, handle).slot), range: range)
  }

  /// One step. False: the call is over, and `error` is its result.
  mutating func continueUnpin(_ plan: inout UnpinPlan) -> Bool {
    // Once all pins have expired the container may be gone.
    guard isCurrent(plan.container) else { return false }
    let slot = plan.container.slot
    beginStep()
    while plan.looked < plan.range.count {
      if isStepOver { return true }
      guard let pin = pin(slot, plan.range.start.advanced(by: plan.looked)), !pin.isEnded else {
        plan.fail(.noEntry)
        return false
      }
      guard pin.task == plan.task else {
        plan.fail(.notPermitted)
        return false
      }
      plan.looked += 1
      step.count(Work.look)
    }
    while plan.ended < plan.range.count {
      if isStepOver { return true }
      endPin(ContainerFrame(container: slot, id: plan.range.start.advanced(by: plan.ended)), of: plan.task)
      plan.ended += 1
      step.count(Self.workOfPin)
    }
    events.wake(containers[slot].owner)
    return false
  }
}
