// pm_reply (R20): answers the call received last.

struct Reply: ServerCall {
  let message: GuestAddress

  init(_ arguments: CallArguments) { message = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in try state.reply(caller.task, address: message) }
  }
}
