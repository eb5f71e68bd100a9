// pm_container_deallocate (R16, R18): makes ids unused and uncharges their owner.

struct ContainerDeallocate: ServerCall {
  let container: Handle
  let start: FrameID
  /// In: how many frames to deallocate. Out, also after an error: how many were deallocated.
  let count: GuestAddress
  let flags: DeallocationFlags

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asAddress
    flags = DeallocationFlags(rawValue: arguments.words.3.asFlags)
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let plan = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      let wanted = try state.loadCount(task, count)
      guard flags.isSubset(of: .all) else { throw .invalid }
      let plan = try state.planDeallocation(task, container, FrameIDRange(start: start, count: wanted), flags)
      // Store it now: the result may be in one of the frames. Nothing below can fail.
      try state.store(UInt32(plan.result.count), task, count)
      state.containers[plan.container].changes += 1
      return plan
    }
    // Only the owner deallocates, and it waits here, so the plan stays valid.
    var next = UInt64(start.rawValue)
    let end = next + UInt64(plan.ids)
    try caller.steps { state in
      guard next < end, let id = state.releaseFrames(plan.container, next..<end) else {
        state.containers[plan.container].changes -= 1
        return false
      }
      next = id
      return true
    } undo: { state in
      state.containers[plan.container].changes -= 1
      return false
    }
    if let error = plan.result.error { throw .error(error) }
  }
}
