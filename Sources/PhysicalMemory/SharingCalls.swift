// The public face of copies, sharing, pins and messages. See PhysicalMemoryServer.

internal import CGuestABI
internal import GuestMemory

/// The ids of one side of a copy, as a call names them.
public enum FrameIDArgument: Sendable {
  case from(UInt32)
  /// The address of an array of ids.
  case array(UInt64)
}

extension PhysicalMemoryServer {
  // MARK: Copies (R24, R38)

  /// `frameError`: where to store the id that an error is about; 0: nowhere.
  public func copy(
    _ task: TaskSlot, _ source: UInt32, _ sourceIDs: FrameIDArgument, _ destination: UInt32,
    _ destinationIDs: FrameIDArgument, count: UInt32, frameError: UInt64
  ) throws(ServerError) {
    let from = try loadIDs(task, sourceIDs, count)
    let to = try loadIDs(task, destinationIDs, count)
    try checkFrameError(task, frameError)
    do throws(CopyError) {
      try copy(task, source, from, destination, to, count: Int(count))
    } catch {
      try storeFrameError(task, frameError, error)
      throw error.error
    }
  }

  private func checkFrameError(_ task: TaskSlot, _ address: UInt64) throws(ServerError) {
    guard address != 0 else { return }
    try withState { (state) throws(ServerError) in try state.checkWritable(task, address, 4) }
  }

  /// Stores the id that an error is about.
  private func storeFrameError(_ task: TaskSlot, _ address: UInt64, _ error: CopyError) throws(ServerError) {
    if let frame = error.frame { try storeID(task, address, frame) }
  }

  private func storeID(_ task: TaskSlot, _ address: UInt64, _ id: UInt32) throws(ServerError) {
    guard address != 0 else { return }
    try withState { (state) throws(ServerError) in try state.store(id, task, address) }
  }

  private func copy(
    _ task: TaskSlot, _ source: UInt32, _ sourceIDs: FrameIDs, _ destination: UInt32, _ destinationIDs: FrameIDs,
    count: Int
  ) throws(CopyError) {
    var plan = try withCurrentPins { (state) throws(CopyError) in
      try state.planCopy(task, source, sourceIDs, destination, destinationIDs, count: count)
    }
    guard steps(of: task, { $0.collect(&plan) }), steps(of: task, { $0.install(&plan) }) else {
      while withState({ $0.abandon(&plan) }) {}
      throw CopyError(error: .stopped)
    }
  }

  /// Reads an array of ids; checks the range otherwise.
  private func loadIDs(_ task: TaskSlot, _ argument: FrameIDArgument, _ count: UInt32) throws(ServerError) -> FrameIDs {
    let ids: FrameIDs
    switch argument {
    case .from(let start): ids = .from(start)
    case .array(let address): ids = .list(try loadArray(task, address, count))
    }
    try ids.check(count: count)
    return ids
  }

  private func loadArray(_ task: TaskSlot, _ address: UInt64, _ count: UInt32) throws(ServerError) -> [UInt32] {
    guard count > 0, count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    var bytes = [UInt8](repeating: 0, count: Int(count) * 4)
    try readMemory(task, address, into: &bytes)
    return (0..<Int(count)).map { index in
      (0..<4).reversed().reduce(0) { $0 << 8 | UInt32(bytes[index * 4 + $1]) }
    }
  }

  public func releaseData(
    _ task: TaskSlot, _ handle: UInt32, frames: UInt64, count: UInt32
  ) throws(ServerError) {
    let ids = try loadArray(task, frames, count)
    var plan = try withState { (state) throws(ServerError) in try state.planDataRelease(task, handle, ids) }
    guard steps(of: task, { $0.continueDataRelease(&plan) }) else {
      withState { $0.containers[plan.container].changes -= 1 }
      throw .stopped
    }
  }

  // MARK: Released frames (R31)

  public func releasePages(_ task: TaskSlot, _ handle: UInt32, frames: UInt64, count: UInt32) throws(ServerError) {
    let ids = try loadArray(task, frames, count)
    var plan = try withCurrentPins { (state) throws(ServerError) in try state.planRelease(task, handle, ids) }
    guard steps(of: task, { $0.continueRelease(&plan) }) else {
      withState { $0.containers[plan.container.slot].changes -= 1 }
      throw .stopped
    }
    if let error = plan.error { throw error }
  }

  /// `frameError`: where to store the id that an error is about; 0: nowhere.
  public func recoverPages(
    _ task: TaskSlot, _ handle: UInt32, frames: UInt64, count: UInt32, frameError: UInt64
  ) throws(ServerError) {
    var ids = try loadArray(task, frames, count)
    // One that is named twice is recovered, and charged, once. Not under the lock: the list may be long.
    var known: Set<UInt32> = []
    ids.removeAll { !known.insert($0).inserted }
    var plan = try withState { (state) throws(ServerError) in
      try state.planRecovery(task, handle, ids, frameError: frameError)
    }
    guard steps(of: task, { $0.continueRecovery(&plan) }) else {
      withState { $0.abandon(plan) }
      throw .stopped
    }
    if let error = plan.error {
      if let id = plan.errorID { try storeID(task, frameError, id) }
      throw error
    }
  }

  /// `result`: where to store a byte for each id, 1 where its content is gone.
  public func expiredPages(
    _ task: TaskSlot, _ handle: UInt32, frames: UInt64, count: UInt32, result: UInt64
  ) throws(ServerError) {
    let ids = try loadArray(task, frames, count)
    var expired: [UInt8] = []
    expired.reserveCapacity(ids.count)
    repeat {
      let some = ids[expired.count...].prefix(4096)
      expired += try withState { (state) throws(ServerError) in try state.expired(task, handle, some) }
    } while expired.count < ids.count
    try withState { (state) throws(ServerError) in try state.writeMemory(task, result, expired.span) }
  }

  // MARK: Sharing (R20–R23)

  public func share(_ task: TaskSlot, _ handle: UInt32, remote: UInt32, result: UInt64) throws(ServerError) {
    try withState { (state) throws(ServerError) in
      try state.checkWritable(task, result, 4)
      let weak = try state.share(task, handle, remote: remote)
      try state.store(weak, task, result)
    }
  }

  public func revoke(_ task: TaskSlot, _ handle: UInt32) throws(ServerError) {
    let container = try withCurrentPins { (state) throws(ServerError) in try state.revokeShares(task, handle) }
    if let container { try cutOff(task, container, .shares) }
  }

  /// Where it is given up, the owner who cancelled the shares ends, and the container with it; or the lock's holder does,
  /// and the lock with it.
  private func cutOff(
    _ task: TaskSlot, _ container: ContainerReference, _ meant: ServerState.CutOff
  ) throws(ServerError) {
    var next: UInt64 = 0
    let isDone = steps(of: task) { state in
      guard let id = state.cutOff(container, meant, from: next) else { return false }
      next = id
      return true
    }
    guard isDone else { throw .stopped }
  }

  public func lock(_ task: TaskSlot, _ handle: UInt32, microseconds: UInt64) throws(ServerError) {
    let container = try withState { (state) throws(ServerError) in
      try state.lock(task, handle, microseconds: microseconds)
    }
    try cutOff(task, container, .owner)
  }

  public func unlock(_ task: TaskSlot, _ handle: UInt32) throws(ServerError) {
    try withState { (state) throws(ServerError) in try state.unlock(task, handle) }
  }

  /// What a new container begins with.
  public enum InitialFrames: Sendable {
    case fresh
    /// Copies of these frames of another container, numbered from 0 on.
    case copies(source: UInt32, FrameIDArgument)
  }

  /// create, fill and share in one call; all of it or nothing. `weakResult` 0: not shared.
  public func createContainer(
    _ task: TaskSlot, _ initial: InitialFrames, count: UInt32, remote: UInt32, result: UInt64, weakResult: UInt64
  ) throws(ServerError) {
    let range = try FrameIDRange(start: 0, count: count)
    var source: (handle: UInt32, ids: FrameIDs)?
    if case .copies(let handle, let ids) = initial { source = (handle, try loadIDs(task, ids, count)) }
    let handle = try withState { (state) throws(ServerError) in
      try state.checkWritable(task, result, 4)
      if weakResult != 0 { try state.checkWritable(task, weakResult, 4) }
      return try state.createContainer(task)
    }
    do throws(ServerError) {
      if let source {
        do throws(CopyError) {
          try copy(task, source.handle, source.ids, handle, .from(0), count: range.count)
        } catch {
          throw error.error
        }
      } else {
        try allocateFresh(task, handle, range)
      }
      try withState { (state) throws(ServerError) in
        try state.giveContainer(task, handle, remote: remote, result: result, weakResult: weakResult)
      }
    } catch {
      let reason = error
      // Without steps for that it goes with the task, which is to end: no other error is of use.
      do throws(ServerError) { try destroyContainer(task, handle) } catch { if error == .stopped { throw error } }
      throw reason
    }
  }

  private func allocateFresh(_ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange) throws(ServerError) {
    var plan = try withState { (state) throws(ServerError) in try state.planAllocation(task, handle, range, []) }
    guard steps(of: task, { $0.continueAllocation(&plan) }) else {
      withState { $0.abandon(plan) }
      throw .stopped
    }
    if let error = plan.result.error { throw error }
  }

  // MARK: Messages. `level`: where in the task the call is made, and waits.

  public func createEndpoint(_ task: TaskSlot, result: UInt64) throws(ServerError) {
    try withState { (state) throws(ServerError) in
      try state.checkWritable(task, result, 4)
      try state.store(try state.createEndpoint(task), task, result)
    }
  }

  /// Sends a message and waits for its reply. `.waiting`: ask `waitOutcome` when woken.
  public func call(
    _ task: TaskSlot, _ endpoint: UInt32, message: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(ServerError) -> WaitOutcome {
    try withState { (state) throws(ServerError) in
      try state.call(Waiter(task, level), endpoint, address: message, mayWait: mayWait)
    }
  }

  public func receive(
    _ task: TaskSlot, _ endpoint: UInt32, message: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(ServerError) -> WaitOutcome {
    try withState { (state) throws(ServerError) in
      try state.receive(Waiter(task, level), endpoint, address: message, mayWait: mayWait)
    }
  }

  public func reply(_ task: TaskSlot, message: UInt64) throws(ServerError) {
    try withState { (state) throws(ServerError) in try state.reply(task, address: message) }
  }

  /// Both under one lock.
  public func replyAndReceive(
    _ task: TaskSlot, _ endpoint: UInt32, message: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(ServerError) -> WaitOutcome {
    try withState { (state) throws(ServerError) in
      try state.replyAndReceive(Waiter(task, level), endpoint, address: message, mayWait: mayWait)
    }
  }

  public func registerName(_ task: TaskSlot, name: UInt64, endpoint: UInt32) throws(ServerError) {
    try withState { (state) throws(ServerError) in try state.registerName(task, name, endpoint) }
  }

  public func lookUpName(
    _ task: TaskSlot, name: UInt64, result: UInt64, mayWait: Bool, at level: WaitLevel = .task
  ) throws(ServerError) -> WaitOutcome {
    try withState { (state) throws(ServerError) in
      try state.lookUpName(Waiter(task, level), name, result: result, mayWait: mayWait)
    }
  }

  public func dropCapability(_ task: TaskSlot, _ handle: UInt32) throws(ServerError) {
    if try withState({ (state) throws(ServerError) in try state.dropCapability(task, handle) }) {
      try destroyContainer(task, handle)
    }
  }

  /// Whether what the task waits for has come.
  public func waitOutcome(_ task: TaskSlot, at level: WaitLevel = .task) -> WaitOutcome {
    withState { $0.waitOutcome(Waiter(task, level)) }
  }

  /// Gives up waiting. PM_ETIMEDOUT, unless it has come meanwhile; nil: it has come without error.
  public func stopWaiting(_ task: TaskSlot, at level: WaitLevel = .task) -> ServerError? {
    withState { $0.stopWaiting(Waiter(task, level)) }
  }
}
