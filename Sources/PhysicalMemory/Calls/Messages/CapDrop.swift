// pm_cap_drop (R20): gives up a handle; the owner's handle destroys the container.

struct CapDrop: ServerCall {
  let handle: Handle

  init(_ arguments: CallArguments) { handle = arguments.words.0.asHandle }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let isOwnContainer = try caller.step { (state) throws(CallFailure) in
      try state.dropCapability(caller.task, handle)
    }
    if isOwnContainer { try ContainerDestroy(handle).perform(caller) }
  }
}
