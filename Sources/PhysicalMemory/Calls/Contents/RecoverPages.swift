// pm_recover_pages (R31): recovers released frames, all or none.

struct RecoverPages: ServerCall {
  let container: Handle
  let frames: GuestAddress
  let count: UInt32
  /// Where to store the id an error is about; 0: do not store it.
  let frameError: GuestAddress

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    frames = arguments.words.1.asAddress
    count = arguments.words.2.asCount
    frameError = arguments.words.3.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    var ids = try caller.loadArray(frames, count)
    // An id named twice is recovered and charged once. Deduplicate without the lock: the list may be long.
    var known: Set<FrameID> = []
    ids.removeAll { !known.insert($0).inserted }
    var plan = try caller.step { (state) throws(CallFailure) in
      let plan = try state.planRecovery(caller.task, container, ids, frameError: frameError)
      state.beginChanging(plan.container.slot, for: caller.task)
      return plan
    }
    try caller.steps({ $0.continueRecovery(&plan) }) { state in
      state.abandon(plan)
      return false
    }
    guard let error = plan.error else { return }
    try caller.store(plan.errorID, at: frameError)
    throw error
  }
}

/// Released frames being recovered, in bounded steps.
struct RecoveryPlan {
  let container: ContainerReference
  /// Without repeats.
  let ids: [FrameID]
  /// The error and its id, if nothing is recovered.
  fileprivate(set) var error: CallFailure?
  fileprivate(set) var errorID: FrameID?
  fileprivate var looked = 0
  fileprivate var isCharged = false
  fileprivate var done = 0
  fileprivate var isUndoing = false
}

extension ServerState {
  /// Begins a recovery of released frames.
  /// - Throws: as `ownedContainer`, `.fault` when `frameError` is not writable.
  mutating func planRecovery(
    _ task: TaskSlot, _ handle: Handle, _ ids: [FrameID], frameError: GuestAddress
  ) throws(CallFailure) -> RecoveryPlan {
    let slot = try ownedContainer(task, handle)
    if frameError != 0 { try checkWritable(task, frameError, 4) }
    return RecoveryPlan(container: reference(slot), ids: ids)
  }

  /// One step. False: done. Either all are recovered, or none, and `error` is PM_ENOEXIST for an expired id, PM_EEXIST
  /// for an id in use, or PM_ENOMEM where neither the guarantee nor free frames suffice.
  mutating func continueRecovery(_ plan: inout RecoveryPlan) -> Bool {
    beginStep()
    while !isRecovered(&plan) {
      if isStepOver { return true }
    }
    return false
  }

  /// Handles one id, or the transition from checking to recovering. True: done.
  private mutating func isRecovered(_ plan: inout RecoveryPlan) -> Bool {
    let slot = plan.container.slot
    step.count(Work.look)
    if plan.isUndoing { return isUndone(&plan) }
    if plan.looked < plan.ids.count {
      let id = plan.ids[plan.looked]
      plan.looked += 1
      let word = containers[slot].frames[id]
      guard !word.isReleased else { return false }
      (plan.error, plan.errorID) = (word.isUsed ? .exists : .contentGone, id)
      return true
    }
    guard plan.isCharged else { return !chargeRecovery(&plan) }
    guard plan.done < plan.ids.count else { return true }
    let id = plan.ids[plan.done]
    if containers[slot].frames[id] == .releasedEmpty {
      containers[slot].frames.set(id, .empty)
      containers[slot].promised -= 1
      plan.done += 1
      return false
    }
    guard let number = containers[slot].frames[id].softReference else {
      // It has expired since the check.
      (plan.error, plan.errorID) = (.contentGone, id)
      uncharge(containers[slot].owner, plan.ids.count - plan.done)
      containers[slot].promised -= plan.ids.count - plan.done
      plan.isUndoing = true
      return false
    }
    let content = softReferences[number].contentNumber
    softReferences.remove(number, &contents[content])
    softReferences.update(contents[content])
    containers[slot].frames.set(id, VirtualFrameWord(content))
    containers[slot].promised -= 1
    plan.done += 1
    step.count(Work.reference)
    return false
  }

  private mutating func chargeRecovery(_ plan: inout RecoveryPlan) -> Bool {
    let owner = containers[plan.container.slot].owner
    returnSetAside(owner)
    let headroom = headroom(owner, extra: true)
    do throws(CallFailure) {
      guard headroom >= plan.ids.count else { throw .noMemory }
      try charge(owner, plan.ids.count)
    } catch {
      plan.error = error
      if headroom < plan.ids.count { plan.errorID = plan.ids[headroom] }
      return false
    }
    containers[plan.container.slot].promised += plan.ids.count
    plan.isCharged = true
    return true
  }

  /// Releases recovered ids again. True: done.
  private mutating func isUndone(_ plan: inout RecoveryPlan) -> Bool {
    guard plan.done > 0 else { return true }
    defer { finishRevocations() }
    guard release(ContainerFrame(container: plan.container.slot, id: plan.ids[plan.done - 1])) else { return false }
    plan.done -= 1
    uncharge(containers[plan.container.slot].owner, 1)
    return false
  }

  /// Gives up the call: recovered ids stay recovered, and the owner, which is about to end, is uncharged for the rest.
  mutating func abandon(_ plan: RecoveryPlan) {
    let slot = plan.container.slot
    guard plan.isCharged, !plan.isUndoing else { return }
    let rest = plan.ids.count - plan.done
    containers[slot].promised -= rest
    uncharge(containers[slot].owner, rest)
  }
}
