// pm_defragment: runs a whole compaction pass over the pool, for the holder of control.

struct Defragment: ServerCall {
  let control: Handle
  /// Where to store the number of moved frames.
  let result: GuestAddress

  init(_ arguments: CallArguments) {
    control = arguments.words.0.asHandle
    result = arguments.words.1.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    try caller.step { (state) throws(CallFailure) in
      try state.checkControl(caller.task, control)
      try state.checkWritable(caller.task, result, 4)
    }
    var pass = DefragmentationPass()
    try caller.steps { $0.continueDefragmentation(&pass) }
    try caller.step { (state) throws(CallFailure) in
      try state.store(UInt32(truncatingIfNeeded: pass.moved), caller.task, result)
    }
  }
}
