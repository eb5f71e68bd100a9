// pm_policy_commit (R4, R7): puts the contents of the policy buffer into force.

struct PolicyCommit: ServerCall {
  let control: Handle

  init(_ arguments: CallArguments) { control = arguments.words.0.asHandle }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in try state.commitPolicy(caller.task, control) }
  }
}
