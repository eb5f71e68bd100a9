// pm_policy_commit (R4, R7).

struct PolicyCommit: ServerCall {
  let control: Handle

  init(_ arguments: CallArguments) { control = arguments.words.0.asHandle }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in try state.commitPolicy(caller.task, control) }
  }
}
