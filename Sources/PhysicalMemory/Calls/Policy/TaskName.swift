// pm_task_name (R14): reports the name of a task.

struct TaskName: ServerCall {
  let control: Handle
  let id: UInt64
  /// A buffer of PM_NAME_MAXIMUM + 1 bytes.
  let result: GuestAddress

  init(_ arguments: CallArguments) {
    control = arguments.words.0.asHandle
    id = arguments.words.1
    result = arguments.words.2.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      let name = try state.taskName(caller.task, control, id)
      try state.writeMemory(caller.task, result, name.span)
    }
  }
}
