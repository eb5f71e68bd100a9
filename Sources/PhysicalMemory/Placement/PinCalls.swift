// pm_container_pin and pm_container_unpin (R22): all of the frames or none, in bounded steps.
//
// The life of a call that pins:
//  1. look: no id is another task's. From here on all of them count as pinned (`pinsUnderWay`): nobody frees, copies or
//     pins one, or takes the container away, so that what was looked at stays true.
//  2. pin: as many pins as are missing have been set aside; each id gets a frame of its own, which stays in place.
//  3. tell: the addresses are stored where the task wants them.
//  4. undo, if 1 to 3 failed: new pins end, others have their old time again.
// A device may work on a frame from its pin on.
//
// A call that unpins looks at all ids first. What it saw stays true, but for pins whose time comes meanwhile.

internal import CGuestABI
internal import GuestMemory

struct PinPlan {
  let task: TaskSlot
  let container: ContainerReference
  let range: FrameIDRange
  /// Where the addresses go.
  let physical: GuestAddress
  let deadline: UInt64
  /// Why nothing is pinned after all.
  private(set) var error: CallFailure?

  fileprivate enum Stage { case look, pin, tell, undo, over }
  fileprivate var stage = Stage.look
  /// Ids that a stage has done, from the first on.
  fileprivate var looked = 0
  fileprivate var pinned = 0
  fileprivate var told = 0
  /// Ids that have no pin yet, as far as was looked.
  fileprivate var missing = 0
  /// Pins set aside and not made yet.
  fileprivate var setAside = 0
  /// Pins that the task had before, in order.
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
  /// Addresses stored at once.
  private static let toldAtOnce = 64

  // MARK: Pinning

  /// Checks what one look can tell. Pinned frames may be at most half of what tasks can have.
  mutating func planPin(
    _ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange, microseconds: UInt64, physical: GuestAddress
  ) throws(CallFailure) -> PinPlan {
    guard microseconds > 0, microseconds <= PM_LOCK_MAXIMUM_US, range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let slot = try container(task, handle).slot
    guard containers[slot].frames.run(from: range.start, limit: range.count, inUse: true) == range.count else {
      throw .noEntry
    }
    // A frame on its way out must not be pinned, nor one whose owner is ending and waits for pins to end.
    guard containers[slot].changes == 0 else { throw .busy }
    guard !tasks[containers[slot].owner].isEnding else { throw .canceled }
    containers[slot].changes += 1
    containers[slot].pinsUnderWay = PinsUnderWay(task: task, ids: range.positions)
    return PinPlan(
      task: task, container: reference(slot), range: range, physical: physical,
      deadline: events.now + microseconds * 1000)
  }

  /// One step. False: the call is over, and `error` says how it came out.
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

  /// - Returns: how much work that was; so do the others.
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

  /// A pin of those set aside; more are needed only where one that was counted has ended meanwhile.
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

  /// Whoever sees a shared content through the id is to see the id's own. False: there are more leaves.
  private mutating func removeOldLeaves(_ shown: ContainerFrame) -> Bool {
    guard let number = containers[shown.container].frames[shown.id].content, contents[number].sharers > 1 else {
      return true
    }
    return removeLeaves(of: contents[number].frame, .showing(shown), showing: shown, .copied)
  }

  /// Resident, and nobody else's: a device that writes the frame must not write a logical copy.
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
    containers[slot].changes -= 1
    containers[slot].pinsUnderWay = nil
    pinsSetAside -= plan.setAside
    plan.stage = .over
    let owner = containers[slot].owner
    if tasks[owner].isEnding { events.wake(owner) }
  }

  /// The call is given up where it is: pins that were made stay.
  mutating func abandon(_ plan: inout PinPlan) { finish(&plan) }

  /// Ends the task's own pin of what an id names, if it has one.
  private mutating func endPin(_ shown: ContainerFrame, of task: TaskSlot) {
    guard let number = containers[shown.container].frames[shown.id].content else { return }
    let frame = contents[number].frame
    if pins[frame].isPinned, pins[frame].pin.task == task, !pins[frame].pin.isEnded { endPin(frame) }
  }

  // MARK: Unpinning

  mutating func planUnpin(_ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange) throws(CallFailure) -> UnpinPlan {
    guard range.count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    return UnpinPlan(task: task, container: reference(try container(task, handle).slot), range: range)
  }

  /// One step. False: the call is over, and `error` says how it came out.
  mutating func continueUnpin(_ plan: inout UnpinPlan) -> Bool {
    // Once the time of all is up the container may be gone.
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
