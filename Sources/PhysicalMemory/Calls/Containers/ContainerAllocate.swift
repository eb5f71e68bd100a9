// pm_container_allocate (R16, R18): allocates ids as empty frames. Takes no physical frame.

internal import CGuestABI

struct ContainerAllocate: ServerCall {
  let container: Handle
  let start: FrameID
  /// In: how many frames to allocate. Out, also after an error: how many were allocated.
  let count: GuestAddress
  let flags: AllocationFlags

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asAddress
    flags = AllocationFlags(rawValue: arguments.words.3.asFlags)
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    var plan = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      let wanted = try state.loadCount(task, count)
      guard flags.isSubset(of: .all) else { throw .invalid }
      let plan = try state.planAllocation(task, container, FrameIDRange(start: start, count: wanted), flags)
      state.beginChanging(plan.container, for: task)
      // It was writable when planned, and still is; nothing below can fail.
      try state.store(UInt32(plan.result.count), task, count)
      return plan
    }
    try caller.carryOut(&plan)
    // The squash may have dropped the frame that holds the result: store it again.
    if flags.contains(.squash) { caller.step { try? $0.store(UInt32(plan.result.count), task, count) } }
    if let error = plan.result.error { throw .error(error) }
  }
}

extension CallContext {
  func carryOut(_ plan: inout AllocationPlan) throws(CallFailure) {
    try steps({ $0.continueAllocation(&plan) }) { state in
      state.abandon(plan)
      return false
    }
  }
}
