// pm_name_lookup (R20): finds an endpoint by name, and may wait for its registration.

struct NameLookup: WaitingCall {
  let name: GuestAddress
  let result: GuestAddress
  let microseconds: UInt64

  init(_ arguments: CallArguments) {
    name = arguments.words.0.asAddress
    result = arguments.words.1.asAddress
    microseconds = arguments.words.2
  }

  func begin(_ caller: CallContext) throws(CallFailure) -> WaitOutcome {
    try caller.step { (state) throws(CallFailure) in
      try state.lookUpName(caller.waiter, name, result: result, mayWait: microseconds > 0)
    }
  }
}
