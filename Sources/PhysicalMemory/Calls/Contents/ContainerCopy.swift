// pm_container_copy and its scatter and gather forms (R24, R38): logical copies.

struct ContainerCopy: ServerCall {
  let source: Handle
  let sourceIDs: FrameIDArgument
  let destination: Handle
  let destinationIDs: FrameIDArgument
  let count: UInt32
  /// Where to store the id an error is about; 0: do not store it.
  let frameError: GuestAddress

  init(_ arguments: CallArguments) {
    self.init(arguments, .from(arguments.words.1.asFrameID), .from(arguments.words.3.asFrameID))
  }
  init(scatter arguments: CallArguments) {
    self.init(arguments, .from(arguments.words.1.asFrameID), .array(arguments.words.3.asAddress))
  }
  init(gather arguments: CallArguments) {
    self.init(arguments, .array(arguments.words.1.asAddress), .from(arguments.words.3.asFrameID))
  }
  init(scatterGather arguments: CallArguments) {
    self.init(arguments, .array(arguments.words.1.asAddress), .array(arguments.words.3.asAddress))
  }

  private init(_ arguments: CallArguments, _ from: FrameIDArgument, _ to: FrameIDArgument) {
    (source, sourceIDs) = (arguments.words.0.asHandle, from)
    (destination, destinationIDs) = (arguments.words.2.asHandle, to)
    (count, frameError) = (arguments.words.4.asCount, arguments.words.5.asAddress)
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let from = try caller.load(sourceIDs, count)
    let to = try caller.load(destinationIDs, count)
    if frameError.rawValue != 0 {
      try caller.step { (state) throws(CallFailure) in try state.checkWritable(caller.task, frameError, 4) }
    }
    do throws(CopyError) {
      try caller.copy(source, from, destination, to, count: Int(count))
    } catch {
      try caller.store(error.frame, at: frameError)
      throw error.error
    }
  }
}

extension CallContext {
  func copy(
    _ source: Handle, _ sourceIDs: FrameIDs, _ destination: Handle, _ destinationIDs: FrameIDs, count: Int
  ) throws(CopyError) {
    var plan = try stepWithCurrentPins { (state) throws(CopyError) in
      let plan = try state.planCopy(task, source, sourceIDs, destination, destinationIDs, count: count)
      // The source's as well: a frame of it that is pinned under the copy would come to be shared.
      state.beginChanging(plan.source.slot, for: task)
      state.beginChanging(plan.destination.slot, for: task)
      return plan
    }
    do throws(CallFailure) {
      try steps({ $0.collect(&plan) }) { $0.abandon(&plan) }
      try steps({ $0.install(&plan) }) { $0.abandon(&plan) }
    } catch {
      throw CopyError(error: error)
    }
  }
}
