// pm_get_policy_buffer (R11, R13): maps the policy buffer for the holder of control.

struct GetPolicyBuffer: ServerCall {
  let control: Handle
  let address: GuestAddress
  /// Where to store the number of entries.
  let result: GuestAddress

  init(_ arguments: CallArguments) {
    control = arguments.words.0.asHandle
    address = arguments.words.1.asAddress
    result = arguments.words.2.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      try state.mapPolicyBuffer(caller.task, control, address: address, result: result)
    }
  }
}
