// pm_receive (R20): waits for a call to an endpoint.

struct Receive: WaitingCall {
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
      try state.receive(caller.waiter, endpoint, address: message, mayWait: microseconds > 0)
    }
  }
}
