// pm_container_unpin (R22): ends pins.

struct ContainerUnpin: ServerCall {
  let container: Handle
  let start: FrameID
  let count: UInt32

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asCount
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let range = try FrameIDRange(start: start, count: count)
    var hasMore = false
    var plan = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      var plan = try state.planUnpin(caller.task, container, range)
      hasMore = state.continueUnpin(&plan)
      return plan
    }
    if hasMore { try caller.steps { $0.continueUnpin(&plan) } }
    if let error = plan.error { throw error }
  }
}
