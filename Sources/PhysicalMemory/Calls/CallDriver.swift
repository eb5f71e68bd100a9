// One driver for all calls. It has what they have in common: the lock and its steps, the wait for frames that others must
// give back first, and the end of a call whose task is to end.
//
// The life of a call:
//  1. attempt: decoded and checked, then carried out step by step, the lock released in between. Each attempt comes out as
//     done, as a wait for another task, or as a `CallFailure`.
//  2. wait for frames: the attempt has changed nothing, and is made again when they have come.
//  3. answer: `CallOutcome`.

internal import CGuestABI

/// Why an attempt at a call was not carried through.
public enum CallFailure: Error, Equatable, Sendable {
  /// What the task is told.
  case error(ServerError)
  /// Frames that the call needs are being taken back from others. `frameWait` says when to make the call again.
  case waitForFrames
  /// The task is to end (`mustStop`), and the call was given up between two steps.
  case stopped

  public static var notPermitted: CallFailure { .error(.notPermitted) }
  public static var noEntry: CallFailure { .error(.noEntry) }
  public static var exists: CallFailure { .error(.exists) }
  public static var noMemory: CallFailure { .error(.noMemory) }
  public static var contentGone: CallFailure { .error(.contentGone) }
  public static var invalid: CallFailure { .error(.invalid) }
  public static var busy: CallFailure { .error(.busy) }
  public static var timedOut: CallFailure { .error(.timedOut) }
  public static var inputOutput: CallFailure { .error(.inputOutput) }
  public static var noSpace: CallFailure { .error(.noSpace) }
  public static var fault: CallFailure { .error(.fault) }
  public static var canceled: CallFailure { .error(.canceled) }
  public static var again: CallFailure { .error(.again) }
}

/// How an attempt at a call came out.
public enum CallProgress: Equatable, Sendable {
  /// With what the task is told; nil: PM_OK.
  case finished(ServerError?)
  /// For another task, so long at most: ask `waitOutcome` when woken.
  case waits(microseconds: UInt64)

  public static var done: CallProgress { .finished(nil) }
}

/// What the driver of a vCPU has to do next.
public enum CallOutcome: Equatable, Sendable {
  /// Tell the task; nil: PM_OK.
  case answer(ServerError?)
  case waits(microseconds: UInt64)
  /// Let the task end.
  case stopped
}

extension PhysicalMemoryServer {
  /// Attempts a task's call until it is through.
  /// - Parameter waitForFrames: called while others give frames back; returns at a time of the machine's clock, or when
  ///   `wake` is called for the task. False: the task is to end.
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

  /// One attempt at a call. After `.waitForFrames` it is made again when `frameWait` is `.ready`, and `endRequest` follows
  /// it, however it came out.
  public func attempt(
    _ number: ServerCallNumber, _ arguments: CallArguments, for task: TaskSlot, at level: WaitLevel = .task
  ) throws(CallFailure) -> CallProgress {
    try CallContext(server: self, task: task, level: level).attempt(number, arguments)
  }
}

/// A call under way: who makes it, and the server's state, a step at a time.
struct CallContext {
  let server: PhysicalMemoryServer
  let task: TaskSlot
  let level: WaitLevel

  /// Who waits, where the call waits for another task.
  var waiter: Waiter { Waiter(task, level) }

  /// One step, with the lock held.
  @inline(__always)
  func step<Result, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    try server.withState { (state) throws(Failure) in try body(&state) }
  }

  /// The same, with no pin left whose time is up.
  func stepWithCurrentPins<Result, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    try server.withCurrentPins { (state) throws(Failure) in try body(&state) }
  }

  /// Steps until one says that there are no more. A call can be long, and a task that is to end is not waited for: this looks
  /// before each step.
  /// - Parameter undo: steps that take back what was planned, so that everything is in order for the task's end.
  /// - Throws: `.stopped` then.
  func steps(
    _ body: (inout ServerState) throws(CallFailure) -> Bool, undo: (inout ServerState) -> Bool = { _ in false }
  ) throws(CallFailure) {
    guard try server.steps(of: task, body) else {
      while step({ undo(&$0) }) {}
      throw .stopped
    }
  }

  // MARK: Arguments in the task's memory

  /// The ids of one side of a copy.
  func load(_ ids: FrameIDArgument, _ count: UInt32) throws(CallFailure) -> FrameIDs {
    let loaded: FrameIDs
    switch ids {
    case .from(let start): loaded = .from(start)
    case .array(let address): loaded = .list(try loadArray(address, count))
    }
    try loaded.check(count: count)
    return loaded
  }

  func loadArray(_ address: GuestAddress, _ count: UInt32) throws(CallFailure) -> [FrameID] {
    guard count > 0, count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    var bytes = [UInt8](repeating: 0, count: Int(count) * 4)
    try server.readMemory(task, address, into: &bytes)
    return (0..<Int(count)).map { index in
      FrameID((0..<4).reversed().reduce(0) { $0 << 8 | UInt32(bytes[index * 4 + $1]) })
    }
  }

  /// Stores the id that an error is about, where the task wants to know it.
  func store(_ id: FrameID?, at address: GuestAddress) throws(CallFailure) {
    guard let id, address.rawValue != 0 else { return }
    try step { (state) throws(CallFailure) in try state.store(id.rawValue, task, address) }
  }
}

/// The ids of one side of a copy, as a call names them.
enum FrameIDArgument {
  case from(FrameID)
  /// The address of an array of ids.
  case array(GuestAddress)
}
