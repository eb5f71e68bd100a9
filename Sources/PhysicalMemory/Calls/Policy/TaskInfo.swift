// pm_task_info (R14): reports the caller's entitlement and counters.

struct TaskInfo: ServerCall {
  let result: GuestAddress

  init(_ arguments: CallArguments) { result = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      let information = state.taskInformation(caller.task)
      try state.store(information.words, caller.task, result)
    }
  }
}

extension TaskInformation {
  /// In the layout of `struct pm_task_info`.
  fileprivate var words: [UInt64] {
    [
      id.rawValue, UInt64(guaranteed), UInt64(allocated), UInt64(swapped), UInt64(available), UInt64(pressure),
    ]
  }
}
