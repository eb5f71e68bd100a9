// pm_release_data (R24): drops references to shared contents.

struct ReleaseData: ServerCall {
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
    var plan = try caller.step { (state) throws(CallFailure) in
      let plan = try state.planDataRelease(caller.task, container, ids)
      state.beginChanging(plan.container, for: caller.task)
      return plan
    }
    try caller.steps { $0.continueDataRelease(&plan) }
  }
}

/// Ids about to drop the contents they share, in bounded steps. The owner waits in the call, so the container stays.
struct DataReleasePlan {
  let container: ContainerSlot
  let ids: [FrameID]
  fileprivate var done = 0
}

extension ServerState {
  /// Checks that all ids are in use.
  /// - Throws: as `ownedContainer`, `.invalid` for no ids, `.noEntry` for an id not in use.
  mutating func planDataRelease(
    _ task: TaskSlot, _ handle: Handle, _ ids: [FrameID]
  ) throws(CallFailure) -> DataReleasePlan {
    guard !ids.isEmpty else { throw .invalid }
    let slot = try ownedContainer(task, handle)
    guard ids.allSatisfy({ containers[slot].frames[$0].isUsed }) else { throw .noEntry }
    return DataReleasePlan(container: slot, ids: ids)
  }

  /// One step: each id drops a content that it shares, and becomes empty. An id that is the only sharer keeps its
  /// content, since a write to it would copy nothing. False: done.
  mutating func continueDataRelease(_ plan: inout DataReleasePlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    while plan.done < plan.ids.count {
      if isStepOver { return true }
      let id = plan.ids[plan.done]
      step.count(Work.look)
      if let number = containers[plan.container].frames[id].content, contents[number].sharers > 1 {
        guard dropContent(number, shownBy: ContainerFrame(container: plan.container, id: id)) else { return true }
        containers[plan.container].frames.set(id, .empty)
      }
      plan.done += 1
    }
    return false
  }
}
