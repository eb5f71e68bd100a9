// pm_reply (R20).

struct Reply: ServerCall {
  let message: GuestAddress

  init(_ arguments: CallArguments) { message = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in try state.reply(caller.task, address: message) }
  }
}
