// pm_get_control (R9): gives out the capability to set policy, once.

struct GetControl: ServerCall {
  let result: GuestAddress

  init(_ arguments: CallArguments) { result = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      try state.checkWritable(caller.task, result, 4)
      let control = try state.takeControl(caller.task)
      try state.store(control, caller.task, result)
    }
  }
}
