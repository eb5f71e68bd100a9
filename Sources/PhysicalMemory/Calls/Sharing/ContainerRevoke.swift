// pm_container_revoke (R21): cancels all weak capabilities to a container at once.

struct ContainerRevoke: ServerCall {
  let container: Handle

  init(_ arguments: CallArguments) { container = arguments.words.0.asHandle }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let revoked = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      try state.revokeShares(caller.task, container)
    }
    if let revoked { try caller.cutOff(revoked, .shares) }
  }
}

extension CallContext {
  /// Removes the leaves of tasks that may not access a container any more. If the call is given up, the caller ends,
  /// and with it the container it owns or the lock it holds.
  func cutOff(_ container: ContainerReference, _ meant: ServerState.CutOff) throws(CallFailure) {
    var next: UInt64 = 0
    try steps { state in
      guard let id = state.cutOff(container, meant, from: next) else { return false }
      next = id
      return true
    }
  }
}
