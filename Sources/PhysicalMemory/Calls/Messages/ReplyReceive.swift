// pm_reply_receive (R20): answers a call and waits for the next one, in one step.

struct ReplyReceive: WaitingCall {
  let endpoint: Handle
  /// A `struct pm_message`.
  let message: GuestAddress
  let microseconds: UInt64

  init(_ arguments: CallArguments) {
    endpoint = arguments.words.0.asHandle
    message = arguments.words.1.asAddress
    microseconds = arguments.words.2
  }

  func begin(_ caller: CallContext) throws(CallFailure) -> WaitOutcome {
    try caller.step { (state) throws(CallFailure) in
      try state.replyAndReceive(caller.waiter, endpoint, address: message, mayWait: microseconds > 0)
    }
  }
}
