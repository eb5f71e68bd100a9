// pm_container_lock (R21): locks the owner out of a container for a limited time.

struct ContainerLockCall: ServerCall {
  let container: Handle
  let microseconds: UInt64

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    microseconds = arguments.words.1
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let locked = try caller.step { (state) throws(CallFailure) in
      try state.lock(caller.task, container, microseconds: microseconds)
    }
    try caller.cutOff(locked, .owner)
  }
}
