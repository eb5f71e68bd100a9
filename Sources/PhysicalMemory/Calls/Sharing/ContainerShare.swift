// pm_container_share (R20): gives a task a weak capability to a container.

struct ContainerShare: ServerCall {
  let container: Handle
  let remote: Handle
  let result: GuestAddress

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    remote = arguments.words.1.asHandle
    result = arguments.words.2.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      try state.checkWritable(caller.task, result, 4)
      let weak = try state.share(caller.task, container, remote: remote)
      try state.store(weak, caller.task, result)
    }
  }
}
