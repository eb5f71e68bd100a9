// pm_container_destroy (R16): frees a container and all its frames.

struct ContainerDestroy: ServerCall {
  let container: Handle

  init(_ arguments: CallArguments) { container = arguments.words.0.asHandle }
  init(_ container: Handle) { self.container = container }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let slot = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      try state.beginDestroying(caller.task, container)
    }
    try caller.steps({ !$0.continueDestroying(slot) }) { state in
      // No handle names it any more; if this call is given up, the owner's end finishes it.
      state.tasks[caller.task].dying.append(slot)
      return false
    }
  }
}
