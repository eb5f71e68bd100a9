// A running task, as other threads of the host see it.

internal import CGuestABI
public import PhysicalMemory
internal import KVM
import Synchronization

/// Where a task's output goes; called with one text after the other, while the task waits, and on no thread of its. A
/// console may block: a task that is stopped meanwhile ends all the same, and its last text may come after its end.
public typealias Console = @Sendable ([UInt8]) -> Void

public final class GuestTask: Sendable {
  public let id: TaskID
  public let program: Program
  let slot: TaskSlot
  let entry: UInt64
  let initialStack: InitialStack
  let console: Console
  /// Nanoseconds of the monotonic clock when the launch was asked for.
  let launchTime: UInt64
  let isMeasured: Bool
  let keepsMappings: Bool
  let signal: TaskSignal
  /// Opened to wake the task where it waits in the host.
  var gate: WaitGate { signal.gate }

  private struct State {
    var end: TaskEnd?
    /// It does nothing any more, and others may know so already; what it held is on its way back.
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

  /// Waits for the task's end. Everything it held is back in the pool then.
  public func wait() -> TaskEnd { wait(until: nil) ?? .failed("the wait was cut short") }

  /// - Returns: nil when the task had not ended after that time.
  public func wait(seconds: Double) -> TaskEnd? {
    wait(until: monotonicNanoseconds() + UInt64(max(0, min(seconds, 1e9)) * 1e9))
  }

  /// How it ended, if its last instruction is behind it: waits for the rest of its end then.
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

  /// Waits until one of the tasks has ended, at most for so many seconds.
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

  /// Stops the task wherever it is.
  public func stop(_ reason: StopReason) {
    state.withLock { state in
      if state.stopReason == nil { state.stopReason = reason }
      if state.isOnVCPU { signal.stop() }
    }
  }

  /// Calls the task's pm_return_pages handler, if it has one, as if frames were asked back; for measurements and tests.
  /// Has no effect on a task that has ended.
  package func pretendUpcall(count: Int) {
    if state.withLock({ $0.isOnVCPU }) { signal.pretendUpcall(count: count) }
  }

  /// What its exits took; only of a task launched to be measured, after its end.
  public var samples: ExitSamples? { state.withLock { $0.samples } }

  /// Faults served and pages filled in; final after its end.
  public var counters: TaskCounters { state.withLock { $0.counters } }

  /// How the free frames lay when it ended, before its own came back; where the machine's `keepsFragmentation` says so.
  public var fragmentation: Fragmentation? { state.withLock { $0.fragmentation } }

  // MARK: For the vCPU's thread

  var stopReason: StopReason? { state.withLock { $0.stopReason } ?? signal.missingFrames.map { .dropped(missing: $0) } }

  func keep(_ samples: ExitSamples) { state.withLock { $0.samples = samples } }
  func keep(_ counters: TaskCounters) { state.withLock { $0.counters = counters } }
  func keep(_ fragmentation: Fragmentation) { state.withLock { $0.fragmentation = fragmentation } }

  /// From now on a kick reaches the vCPU; a stop before this is seen by the caller.
  /// - Returns: the reason, if the task shall not even begin.
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
