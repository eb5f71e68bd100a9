// pm_call (R20): sends a message and waits for the reply.

struct EndpointCall: WaitingCall {
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
      try state.call(caller.waiter, endpoint, address: message, mayWait: microseconds > 0)
    }
  }
}
