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
      try state.planDataRelease(caller.task, container, ids)
    }
    try caller.steps({ $0.continueDataRelease(&plan) }) { state in
      state.containers[plan.container].changes -= 1
      return false
    }
  }
}
