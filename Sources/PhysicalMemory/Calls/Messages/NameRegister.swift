// pm_name_register (R20): registers an endpoint under a name.

struct NameRegister: ServerCall {
  let name: GuestAddress
  let endpoint: Handle

  init(_ arguments: CallArguments) {
    name = arguments.words.0.asAddress
    endpoint = arguments.words.1.asHandle
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in try state.registerName(caller.task, name, endpoint) }
  }
}
