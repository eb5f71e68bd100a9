// Signals from other threads to the thread of a task's vCPU: a wait may be over, frames are demanded, a device has an
// interrupt, the task is dropped. Each task slot has one signal for the machine's lifetime. A thread woken on behalf of
// the slot's former task rechecks its condition and waits on.

internal import Glibc
internal import KVM
internal import PhysicalMemory
import Synchronization

/// The signal of one task slot.
final class TaskSignal: Sendable {
  /// Whether a task waits in the host by its own choice, and whether an upcall can interrupt the wait.
  enum Waiting: UInt8, AtomicRepresentable { case no, interruptibly, deaf }

  private struct Processor {
    /// The vCPU that runs the task; nil: the task has not started, or is ending.
    var vcpu: VirtualCPUHandle?
    /// The CPU clock of the vCPU's thread, and its reading when the task started.
    var clock = clockid_t()
    var start: UInt64 = 0
    /// CPU time that the task had used when it ended.
    var used: UInt64 = 0
  }

  /// Opened to wake the task where it waits in the host.
  let gate = WaitGate()
  private let processor = Mutex(Processor())
  /// The last vCPU that ran the task. Still set after the task has left its loop, because KVM completes the task's last
  /// exit afterwards.
  private let visitor = Mutex<VirtualCPUHandle?>(nil)
  /// Frames are demanded, and the task has not been told.
  private let upcall = Atomic<Bool>(false)
  /// Frames of simulated demands, for measurements and tests.
  private let pretended = Atomic<Int>(0)
  /// The task is dropped because it did not return this many frames; 0: it is not dropped.
  private let missing = Atomic<Int>(0)
  /// The task is stopped for another reason.
  private let stopped = Atomic<Bool>(false)
  private let waiting = Atomic<Waiting>(.no)
  /// A bit for each device with an interrupt not yet delivered to the task.
  private let interrupts = Atomic<UInt64>(0)
  /// The task has an interrupt handler. A task that waits or polls for interrupts need not be kicked.
  private let handlesInterrupts = Atomic<Bool>(false)

  /// Resets the signal for the slot's next task.
  func reset() {
    upcall.store(false, ordering: .sequentiallyConsistent)
    pretended.store(0, ordering: .sequentiallyConsistent)
    missing.store(0, ordering: .sequentiallyConsistent)
    stopped.store(false, ordering: .sequentiallyConsistent)
    waiting.store(.no, ordering: .sequentiallyConsistent)
    interrupts.store(0, ordering: .sequentiallyConsistent)
    handlesInterrupts.store(false, ordering: .sequentiallyConsistent)
    processor.withLock { $0 = Processor() }
    visitor.withLock { $0 = nil }
  }

  // MARK: For any thread, without blocking

  func raiseUpcall() {
    upcall.store(true, ordering: .sequentiallyConsistent)
    wakeAndKick()
  }

  /// Simulates a demand for `count` frames.
  func pretendUpcall(count: Int) {
    pretended.add(count, ordering: .sequentiallyConsistent)
    raiseUpcall()
  }

  /// Raises a device interrupt.
  func raiseInterrupt(_ device: Int) {
    interrupts.bitwiseOr(1 << UInt64(device), ordering: .sequentiallyConsistent)
    if handlesInterrupts.load(ordering: .sequentiallyConsistent) { wakeAndKick() } else { gate.open() }
  }

  func drop(missing: Int) {
    self.missing.store(missing, ordering: .sequentiallyConsistent)
    wakeAndKick()
  }

  /// May be called only while the task is on its vCPU: later the slot may belong to another task.
  func stop() {
    stopped.store(true, ordering: .sequentiallyConsistent)
    wakeAndKick()
  }

  /// Whether the task must end: its waits in the host end, and long calls are abandoned.
  var mustStop: Bool { stopped.load(ordering: .sequentiallyConsistent) || missingFrames != nil }

  /// The current visit of the task's vCPU to KVM.
  var visit: VCPUVisit? { visitor.withLock { $0 }?.visit }

  /// Makes a visit end soon, by a kick.
  func hurry(_ visit: VCPUVisit) { visitor.withLock { $0 }?.hurry(visit) }

  private func wakeAndKick() {
    gate.open()
    processor.withLock { $0.vcpu }?.kick()
  }

  /// Nanoseconds of CPU time that the task has had; `.max`: it waits, and no upcall is about to interrupt the wait.
  var processorTime: UInt64 {
    switch waiting.load(ordering: .sequentiallyConsistent) {
    case .no: break
    case .interruptibly: if !hasUpcall { return .max }
    case .deaf: return .max
    }
    return processor.withLock { $0.vcpu == nil ? $0.used : Self.now($0.clock) - $0.start }
  }

  private static func now(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  // MARK: For the vCPU's thread

  /// Makes kicks reach the vCPU, which the calling thread runs.
  func attach(_ vcpu: VirtualCPUHandle) {
    var clock = clockid_t()
    unsafe pthread_getcpuclockid(pthread_self(), &clock)
    visitor.withLock { $0 = vcpu }
    processor.withLock { $0 = Processor(vcpu: vcpu, clock: clock, start: Self.now(clock)) }
  }

  func detach() {
    processor.withLock { processor in
      processor.used = Self.now(processor.clock) - processor.start
      processor.vcpu = nil
    }
  }

  /// Frames that the task is dropped for; nil: it is not dropped.
  var missingFrames: Int? {
    let count = missing.load(ordering: .sequentiallyConsistent)
    return count > 0 ? count : nil
  }

  @inline(__always)
  var hasUpcall: Bool { upcall.load(ordering: .sequentiallyConsistent) }

  /// Called before the server is asked for the count, so that a later demand is another upcall.
  /// - Returns: frames of simulated demands, to be added to the server's count.
  func acceptUpcall() -> Int {
    upcall.store(false, ordering: .sequentiallyConsistent)
    return pretended.exchange(0, ordering: .sequentiallyConsistent)
  }

  @inline(__always)
  var hasInterrupt: Bool { interrupts.load(ordering: .sequentiallyConsistent) != 0 }

  /// Takes the pending interrupts.
  /// - Returns: a bit for each device.
  func acceptInterrupts() -> UInt64 { interrupts.exchange(0, ordering: .sequentiallyConsistent) }

  /// Sets whether an interrupt kicks the task. An interrupt raised before this call is pending when it returns.
  func handleInterrupts(_ wanted: Bool) { handlesInterrupts.store(wanted, ordering: .sequentiallyConsistent) }

  /// Performs a wait that the task chose.
  func wait(_ kind: Waiting, _ wait: () -> Bool) -> Bool {
    waiting.store(kind, ordering: .sequentiallyConsistent)
    defer { waiting.store(.no, ordering: .sequentiallyConsistent) }
    return wait()
  }
}

/// The signals of all task slots.
final class TaskSignals: Sendable {
  private let signals: [TaskSignal]

  init(capacity: Int) { signals = (0..<capacity).map { _ in TaskSignal() } }

  subscript(slot: TaskSlot) -> TaskSignal { signals[Int(slot.rawValue)] }
}
