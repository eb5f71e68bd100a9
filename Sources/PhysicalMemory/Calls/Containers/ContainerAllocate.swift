// pm_container_allocate (R16, R18): ids get empty frames. No physical frame is taken here.

internal import CGuestABI

struct ContainerAllocate: ServerCall {
  let container: Handle
  let start: FrameID
  /// How many frames are wanted, and where to store how many were done, with an error too.
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
      // It could be written a moment ago: it can be written now, and nothing can fail from here on.
      try state.store(UInt32(plan.result.count), task, count)
      return plan
    }
    try caller.carryOut(&plan)
    // The result may have been in one of the frames that were dropped.
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
