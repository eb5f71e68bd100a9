// The driver of all calls: the lock and its steps, the wait for frames from other tasks, and giving up a call whose
// task must end.
//
// The life of a call:
//  1. attempt: decoded and checked, then carried out step by step; the lock is released between steps. An attempt ends
//     as done, as a wait for another task, or with a `CallFailure`.
//  2. wait for frames: the attempt has changed nothing, and is repeated when the frames have come.
//  3. answer: `CallOutcome`.

internal import CGuestABI

/// Why an attempt at a call failed.
public enum CallFailure: Error, Equatable, Sendable {
  /// Reported to the task.
  case error(ServerError)
  /// Other tasks are giving frames back for this call. `frameWait` says when to repeat it.
  case waitForFrames
  /// The task must end (`mustStop`); the call was given up between two steps.
  case stopped

  /// `.error(.notPermitted)`, PM_EPERM.
  public static var notPermitted: CallFailure { .error(.notPermitted) }
  /// `.error(.noEntry)`, PM_ENOENT.
  public static var noEntry: CallFailure { .error(.noEntry) }
  /// `.error(.exists)`, PM_EEXIST.
  public static var exists: CallFailure { .error(.exists) }
  /// `.error(.noMemory)`, PM_ENOMEM.
  public static var noMemory: CallFailure { .error(.noMemory) }
  /// `.error(.contentGone)`, PM_ENOEXIST.
  public static var contentGone: CallFailure { .error(.contentGone) }
  /// `.error(.invalid)`, PM_EINVAL.
  public static var invalid: CallFailure { .error(.invalid) }
  /// `.error(.busy)`, PM_EBUSY.
  public static var busy: CallFailure { .error(.busy) }
  /// `.error(.timedOut)`, PM_ETIMEDOUT.
  public static var timedOut: CallFailure { .error(.timedOut) }
  /// `.error(.inputOutput)`, PM_EIO.
  public static var inputOutput: CallFailure { .error(.inputOutput) }
  /// `.error(.noSpace)`, PM_ENOSPC.
  public static var noSpace: CallFailure { .error(.noSpace) }
  /// `.error(.fault)`, PM_EFAULT.
  public static var fault: CallFailure { .error(.fault) }
  /// `.error(.canceled)`, PM_ECANCELED.
  public static var canceled: CallFailure { .error(.canceled) }
  /// `.error(.again)`, PM_EAGAIN.
  public static var again: CallFailure { .error(.again) }
}

/// The result of an attempt at a call.
public enum CallProgress: Equatable, Sendable {
  /// With the task's error; nil: PM_OK.
  case finished(ServerError?)
  /// The call waits for another task, at most this long: ask `waitOutcome` when woken.
  case waits(microseconds: UInt64)

  /// Finished with PM_OK.
  public static var done: CallProgress { .finished(nil) }
}

/// What the vCPU's driver does next.
public enum CallOutcome: Equatable, Sendable {
  /// Report the result to the task; nil: PM_OK.
  case answer(ServerError?)
  case waits(microseconds: UInt64)
  /// End the task.
  case stopped
}

extension PhysicalMemoryServer {
  /// Carries out a task's call, repeating attempts that wait for frames.
  /// - Parameters:
  ///   - task: the caller.
  ///   - attempt: makes one attempt at the call.
  ///   - waitForFrames: called while other tasks give frames back; blocks until a time of the machine's clock
  ///     (nanoseconds), or until `wake` is called for the task. False: the task must end.
  public func carryOut(
    for task: TaskSlot, _ attempt: () throws(CallFailure) -> CallProgress, waitForFrames: (_ until: UInt64) -> Bool
  ) -> CallOutcome {
    var hasWaited = false
    defer { if hasWaited { endRequest(task) } }
    while true {
      do throws(CallFailure) {
        switch try attempt() {
        case .finished(let error): return .answer(error)
        case .waits(let microseconds): return .waits(microseconds: microseconds)
        }
      } catch {
        switch error {
        case .error(let error): return .answer(error)
        case .stopped: return .stopped
        case .waitForFrames: hasWaited = true
        }
      }
      while case .waiting(let until) = frameWait(task) {
        guard waitForFrames(until) else { return .stopped }
      }
    }
  }

  /// Makes one attempt at a call. After `.waitForFrames`, repeat it once `frameWait` is `.ready`, and call `endRequest`
  /// after the last attempt, whether it succeeded or not.
  /// - Parameters:
  ///   - number: the call.
  ///   - arguments: its registers.
  ///   - task: the caller.
  ///   - level: the task itself, or its pm_return_pages handler.
  /// - Throws: `.error` with the task's error, `.waitForFrames`, or `.stopped` when the task must end.
  public func attempt(
    _ number: ServerCallNumber, _ arguments: CallArguments, for task: TaskSlot, at level: WaitLevel = .task
  ) throws(CallFailure) -> CallProgress {
    // On every way out: no call leaves a container that cannot be pinned or locked.
    defer { if number.changesContainers { endChanges(of: task) } }
    return try CallContext(server: self, task: task, level: level).attempt(number, arguments)
  }
}

/// A call under way: its caller, and access to the server's state one step at a time.
struct CallContext {
  let server: PhysicalMemoryServer
  let task: TaskSlot
  let level: WaitLevel

  /// The waiter of a call that waits for another task.
  var waiter: Waiter { Waiter(task, level) }

  /// Runs one step with the lock held.
  @inline(__always)
  func step<Result, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    try server.withState { (state) throws(Failure) in try body(&state) }
  }

  /// Runs one step with the lock held, after it has ended all expired pins.
  func stepWithCurrentPins<Result, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    while true {
      let result = try step { (state) throws(Failure) -> sending Result? in
        guard state.expirePins() else { return nil }
        return try body(&state)
      }
      if let result { return result }
    }
  }

  /// Repeats a step until it returns false. Checks before each step whether the task must end, since a call can be
  /// long.
  /// - Parameter undo: steps that undo the plan, so that the end of the task finds everything in order.
  /// - Throws: `.stopped` when the task must end, and whatever a step throws.
  func steps(
    _ body: (inout ServerState) throws(CallFailure) -> Bool, undo: (inout ServerState) -> Bool = { _ in false }
  ) throws(CallFailure) {
    while true {
      let hasMore = try step { (state) throws(CallFailure) -> sending Bool? in
        state.events.mustStop(task) ? nil : try body(&state)
      }
      guard let hasMore else { break }
      if !hasMore { return }
    }
    while step({ undo(&$0) }) {}
    throw .stopped
  }

  // MARK: Arguments in the task's memory

  /// Loads the ids of one side of a copy.
  /// - Throws: `.invalid` for no or too many ids, `.fault` for an unreadable array.
  func load(_ ids: FrameIDArgument, _ count: UInt32) throws(CallFailure) -> FrameIDs {
    let loaded: FrameIDs
    switch ids {
    case .from(let start): loaded = .from(start)
    case .array(let address): loaded = .list(try loadArray(address, count))
    }
    try loaded.check(count: count)
    return loaded
  }

  /// Loads an array of ids from the task's memory.
  /// - Throws: `.invalid` for no or too many ids, `.fault` for an unreadable array.
  func loadArray(_ address: GuestAddress, _ count: UInt32) throws(CallFailure) -> [FrameID] {
    guard count > 0, count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    var bytes = [UInt8](repeating: 0, count: Int(count) * 4)
    try server.readMemory(task, address, into: &bytes)
    return (0..<Int(count)).map { index in
      FrameID((0..<4).reversed().reduce(0) { $0 << 8 | UInt32(bytes[index * 4 + $1]) })
    }
  }

  /// Stores the id an error is about, if the task passed an address for it.
  func store(_ id: FrameID?, at address: GuestAddress) throws(CallFailure) {
    guard let id, address.rawValue != 0 else { return }
    try step { (state) throws(CallFailure) in try state.store(id.rawValue, task, address) }
  }
}

/// The ids of one side of a copy, as the call's arguments name them.
enum FrameIDArgument {
  case from(FrameID)
  /// At this address, an array of ids.
  case array(GuestAddress)
}
