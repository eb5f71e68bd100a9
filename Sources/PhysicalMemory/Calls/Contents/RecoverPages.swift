// pm_recover_pages (R31): recovers released frames, all or none.

struct RecoverPages: ServerCall {
  let container: Handle
  let frames: GuestAddress
  let count: UInt32
  /// Where to store the id an error is about; 0: do not store it.
  let frameError: GuestAddress

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    frames = arguments.words.1.asAddress
    count = arguments.words.2.asCount
    frameError = arguments.words.3.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    var ids = try caller.loadArray(frames, count)
    // An id named twice is recovered and charged once. Deduplicate without the lock: the list may be long.
    var known: Set<FrameID> = []
    ids.removeAll { !known.insert($0).inserted }
    var plan = try caller.step { (state) throws(CallFailure) in
      try state.planRecovery(caller.task, container, ids, frameError: frameError)
    }
    try caller.steps({ $0.continueRecovery(&plan) }) { state in
      state.abandon(plan)
      return false
    }
    guard let error = plan.error else { return }
    try caller.store(plan.errorID, at: frameError)
    throw error
  }
}
