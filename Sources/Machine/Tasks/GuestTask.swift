// A running task, as the host's other threads see it.

internal import CGuestABI
public import PhysicalMemory
internal import KVM
import Synchronization

/// Receives a task's output. Calls are in order, on a thread other than the task's, and the task waits meanwhile. A
/// console may block: a task that is stopped meanwhile ends anyway, and its last text may arrive after its end.
public typealias Console = @Sendable ([UInt8]) -> Void

/// A task launched on a machine.
public final class GuestTask: Sendable {
  /// The task's number, unique in its machine.
  public let id: TaskID
  /// The program that the task runs.
  public let program: Program
  let slot: TaskSlot
  let entry: UInt64
  let initialStack: InitialStack
  let console: Console
  /// When the launch was requested: nanoseconds of the monotonic clock.
  let launchTime: UInt64
  let isMeasured: Bool
  let keepsMappings: Bool
  let signal: TaskSignal
  /// Opened to wake the task from a wait in the host.
  var gate: WaitGate { signal.gate }

  private struct State {
    var end: TaskEnd?
    /// The task has stopped executing and its frames are being returned to the pool. Other tasks may have been told
    /// already.
    var isEnding = false
    var stopReason: StopReason?
    var isOnVCPU = false
    var samples: ExitSamples?
    var counters = TaskCounters()
    var fragmentation: Fragmentation?
    var waiters: [WaitGate] = []
  }
  private let state = Mutex(State())

  init(
    id: TaskID, slot: TaskSlot, program: Program, initialStack: InitialStack, console: @escaping Console,
    signal: TaskSignal, launchTime: UInt64, isMeasured: Bool, keepsMappings: Bool
  ) {
    self.id = id
    self.slot = slot
    self.program = program
    self.entry = program.image.entry
    self.initialStack = initialStack
    self.console = console
    self.signal = signal
    self.launchTime = launchTime
    self.isMeasured = isMeasured
    self.keepsMappings = keepsMappings
  }

  /// Waits for the task's end. All its frames are back in the pool when this returns.
  /// - Returns: how the task ended.
  public func wait() -> TaskEnd { wait(until: nil) ?? .failed("the wait was cut short") }

  /// Waits for the task's end for a limited time.
  /// - Parameter seconds: how long to wait.
  /// - Returns: nil if the task has not ended by then.
  public func wait(seconds: Double) -> TaskEnd? {
    wait(until: monotonicNanoseconds() + UInt64(max(0, min(seconds, 1e9)) * 1e9))
  }

  /// If the task has stopped executing, waits for the rest of its end.
  /// - Returns: how it ended; nil if it still runs.
  public func waitIfEnding() -> TaskEnd? { state.withLock { $0.isEnding || $0.end != nil } ? wait() : nil }

  private func wait(until deadline: UInt64?) -> TaskEnd? {
    let gate = WaitGate()
    let end = state.withLock { state -> TaskEnd? in
      if state.end == nil { state.waiters.append(gate) }
      return state.end
    }
    if let end { return end }
    gate.wait(until: deadline)
    return state.withLock { state in
      state.waiters.removeAll { $0 === gate }
      return state.end
    }
  }

  /// Waits until one of the tasks has ended.
  /// - Parameters:
  ///   - tasks: the tasks to wait for.
  ///   - seconds: how long to wait at most.
  public static func waitForAny(of tasks: [GuestTask], seconds: Double) {
    let gate = WaitGate()
    var hasEnded = false
    for task in tasks {
      task.state.withLock { state in
        if state.end == nil { state.waiters.append(gate) } else { hasEnded = true }
      }
    }
    if !hasEnded { gate.wait(until: monotonicNanoseconds() + UInt64(max(0, min(seconds, 1e9)) * 1e9)) }
    for task in tasks { task.state.withLock { $0.waiters.removeAll { $0 === gate } } }
  }

  /// Stops the task, wherever it waits or runs. Does not wait for its end.
  /// - Parameter reason: becomes part of its `TaskEnd`.
  public func stop(_ reason: StopReason) {
    state.withLock { state in
      if state.stopReason == nil { state.stopReason = reason }
      if state.isOnVCPU { signal.stop() }
    }
  }

  /// Calls the task's pm_return_pages handler, if it has one, as if frames were demanded; for measurements and tests.
  /// Has no effect on a task that has ended.
  /// - Parameter count: frames that the handler is asked for.
  package func pretendUpcall(count: Int) {
    if state.withLock({ $0.isOnVCPU }) { signal.pretendUpcall(count: count) }
  }

  /// The task's exits with their times. Empty unless the task was launched with `isMeasured` and has ended.
  public var samples: ExitSamples? { state.withLock { $0.samples } }

  /// Faults served and pages filled in. Final when the task has ended.
  public var counters: TaskCounters { state.withLock { $0.counters } }

  /// Fragmentation of free memory when the task ended, before its own frames came back; nil unless the machine's
  /// configuration has `keepsFragmentation`.
  public var fragmentation: Fragmentation? { state.withLock { $0.fragmentation } }

  // MARK: For the vCPU's thread

  var stopReason: StopReason? { state.withLock { $0.stopReason } ?? signal.missingFrames.map { .dropped(missing: $0) } }

  func keep(_ samples: ExitSamples) { state.withLock { $0.samples = samples } }
  func keep(_ counters: TaskCounters) { state.withLock { $0.counters = counters } }
  func keep(_ fragmentation: Fragmentation) { state.withLock { $0.fragmentation = fragmentation } }

  /// Attaches the vCPU, so that kicks reach it.
  /// - Returns: the reason, if the task was stopped before this and must not start.
  func attach(_ vcpu: VirtualCPUHandle) -> StopReason? {
    signal.attach(vcpu)
    state.withLock { $0.isOnVCPU = true }
    return stopReason
  }

  func detach() {
    state.withLock { $0.isOnVCPU = false }
    signal.detach()
  }

  func beginEnd() { state.withLock { $0.isEnding = true } }

  func finish(_ end: TaskEnd) {
    let waiters = state.withLock { state -> [WaitGate] in
      state.end = end
      defer { state.waiters = [] }
      return state.waiters
    }
    for gate in waiters { gate.open() }
  }
}
