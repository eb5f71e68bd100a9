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
      try state.planRelease(caller.task, container, ids)
    }
    try caller.steps({ $0.continueRelease(&plan) }) { state in
      state.containers[plan.container.slot].changes -= 1
      return false
    }
    if let error = plan.error { throw error }
  }
}
