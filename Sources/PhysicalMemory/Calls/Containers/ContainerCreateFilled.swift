// pm_container_create_with, _from and _gather (R23): create, fill and share a container in one call, all or nothing.

struct ContainerCreateFilled: ServerCall {
  let source: (handle: Handle, ids: FrameIDArgument)?
  let count: UInt32
  /// The task to share it with.
  let remote: Handle
  let result: GuestAddress
  /// Where to store the weak capability; 0: do not share.
  let weakResult: GuestAddress

  init(with arguments: CallArguments) {
    (source, count, remote) = (nil, arguments.words.1.asCount, arguments.words.2.asHandle)
    (result, weakResult) = (arguments.words.0.asAddress, arguments.words.3.asAddress)
  }

  init(from arguments: CallArguments) { self.init(arguments, .from(arguments.words.2.asFrameID)) }
  init(gather arguments: CallArguments) { self.init(arguments, .array(arguments.words.2.asAddress)) }

  private init(_ arguments: CallArguments, _ ids: FrameIDArgument) {
    source = (arguments.words.1.asHandle, ids)
    (count, remote) = (arguments.words.3.asCount, arguments.words.4.asHandle)
    (result, weakResult) = (arguments.words.0.asAddress, arguments.words.5.asAddress)
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let range = try FrameIDRange(start: 0, count: count)
    let ids = try source.map { (source) throws(CallFailure) in try caller.load(source.ids, count) }
    let handle = try caller.step { (state) throws(CallFailure) in
      try state.checkWritable(task, result, 4)
      if weakResult.rawValue != 0 { try state.checkWritable(task, weakResult, 4) }
      return try state.createContainer(task)
    }
    do throws(CallFailure) {
      try fill(handle, range, ids, caller)
      try caller.step { (state) throws(CallFailure) in
        try state.giveContainer(task, handle, remote: remote, result: result, weakResult: weakResult)
      }
    } catch {
      let reason = error
      // A task that must end gets no error; its end destroys the container.
      do throws(CallFailure) {
        try ContainerDestroy(handle).perform(caller)
      } catch {
        if error == .stopped { throw error }
      }
      throw reason
    }
  }

  private func fill(
    _ handle: Handle, _ range: FrameIDRange, _ ids: FrameIDs?, _ caller: CallContext
  ) throws(CallFailure) {
    if let source, let ids {
      do throws(CopyError) {
        try caller.copy(source.handle, ids, handle, .from(0), count: range.count)
      } catch {
        throw error.error
      }
    } else {
      var plan = try caller.step { (state) throws(CallFailure) in
        let plan = try state.planAllocation(caller.task, handle, range, [])
        state.beginChanging(plan.container, for: caller.task)
        return plan
      }
      try caller.carryOut(&plan)
      if let error = plan.result.error { throw .error(error) }
    }
  }
}
