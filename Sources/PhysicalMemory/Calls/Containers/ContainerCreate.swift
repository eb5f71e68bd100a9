// pm_container_create (R16): creates an empty container.

struct ContainerCreate: ServerCall {
  let result: GuestAddress

  init(_ arguments: CallArguments) { result = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      try state.checkWritable(caller.task, result, 4)
      let handle = try state.createContainer(caller.task)
      try state.store(handle, caller.task, result)
    }
  }
}
