// pm_release_pages (R31): releases frames. They can be recovered until they are reused.

struct ReleasePages: ServerCall {
  let container: Handle
  let frames: GuestAddress
  let count: UInt32

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    frames = arguments.words.1.asAddress
    count = arguments.words.2.asCount
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let ids = try caller.loadArray(frames, count)
    var plan = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      let plan = try state.planRelease(caller.task, container, ids)
      state.beginChanging(plan.container.slot, for: caller.task)
      return plan
    }
    try caller.steps { $0.continueRelease(&plan) }
    if let error = plan.error { throw error }
  }
}

/// Frames being released, in bounded steps.
struct ReleasePlan {
  let container: ContainerReference
  let ids: [FrameID]
  /// The error, if nothing is released.
  fileprivate(set) var error: CallFailure?
  fileprivate var looked = 0
  fileprivate var done = 0
}

extension ServerState {
  /// Begins a release of frames.
  /// - Throws: as `ownedContainer`.
  mutating func planRelease(_ task: TaskSlot, _ handle: Handle, _ ids: [FrameID]) throws(CallFailure) -> ReleasePlan {
    let slot = try ownedContainer(task, handle)
    return ReleasePlan(container: reference(slot), ids: ids)
  }

  /// One step: checks all ids, then releases them; the checks stay valid. False: done. Either all are released and
  /// uncharged, or none, because an id is not in use (PM_ENOENT) or pinned (PM_EBUSY).
  mutating func continueRelease(_ plan: inout ReleasePlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    // References displaced by the allowance may have been released in this very step.
    grace.beganIdle = false
    let slot = plan.container.slot
    while plan.looked < plan.ids.count {
      if isStepOver { return true }
      let id = plan.ids[plan.looked]
      plan.error = containers[slot].frames[id].isUsed ? isPinned(slot, id) ? .busy : plan.error : .noEntry
      if plan.error == .noEntry { plan.looked = plan.ids.count } else { plan.looked += 1 }
      step.count(Work.look)
    }
    var released = 0
    defer { uncharge(containers[slot].owner, released) }
    while plan.error == nil, plan.done < plan.ids.count {
      if isStepOver { return true }
      let id = plan.ids[plan.done]
      // An id named twice is released once.
      if containers[slot].frames[id].isUsed {
        guard release(ContainerFrame(container: slot, id: id)) else { return true }
        released += 1
      }
      plan.done += 1
      step.count(Work.look)
    }
    return false
  }
}
