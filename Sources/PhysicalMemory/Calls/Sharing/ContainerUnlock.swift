// pm_container_unlock (R21): ends the caller's lock.

struct ContainerUnlock: ServerCall {
  let container: Handle

  init(_ arguments: CallArguments) { container = arguments.words.0.asHandle }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in try state.unlock(caller.task, container) }
  }
}
