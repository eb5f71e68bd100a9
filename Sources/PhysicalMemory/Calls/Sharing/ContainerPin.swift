// pm_container_pin (R22): pins frames and reports their physical addresses.

internal import CGuestABI

struct ContainerPin: ServerCall {
  let container: Handle
  let start: FrameID
  let count: UInt32
  let microseconds: UInt64
  /// Where to store the physical address of each frame.
  let physical: GuestAddress

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asCount
    microseconds = arguments.words.3
    physical = arguments.words.4.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let range = try FrameIDRange(start: start, count: count)
    guard count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let rest = try checkResult(caller, range.count * 8)
    var plan = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      try state.checkWritable(task, rest.address, rest.count)
      var plan = try state.planPin(task, container, range, microseconds: microseconds, physical: physical)
      state.beginChanging(plan.container.slot, for: task)
      _ = state.continuePin(&plan)
      return plan
    }
    if !plan.isOver {
      try caller.steps({ $0.continuePin(&plan) }) { state in
        // The pins made so far end with the task.
        state.abandon(&plan)
        return false
      }
    }
    if let error = plan.error { throw error }
  }

  /// Checks page by page that a large result can be stored.
  /// - Returns: the last part of the range, which the caller checks itself.
  private func checkResult(
    _ caller: CallContext, _ count: Int
  ) throws(CallFailure) -> (address: GuestAddress, count: Int) {
    guard ServerState.isUserRange(physical, count) else { throw .fault }
    var done = 0
    while count - done > 4096 {
      let at = GuestAddress(physical.rawValue + UInt64(done))
      try caller.step { (state) throws(CallFailure) in try state.checkWritable(caller.task, at, 4096) }
      done += 4096
    }
    return (GuestAddress(physical.rawValue + UInt64(done)), count - done)
  }
}
