// pm_endpoint_create (R20): creates an endpoint.

struct EndpointCreate: ServerCall {
  let result: GuestAddress

  init(_ arguments: CallArguments) { result = arguments.words.0.asAddress }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      try state.checkWritable(caller.task, result, 4)
      let endpoint = try state.createEndpoint(caller.task)
      try state.store(endpoint, caller.task, result)
    }
  }
}
