// What other threads have to say to the thread of a task's vCPU: that what it waits for may have come, that frames are
// asked back, that a device of its has something to say, that it is dropped. There is one signal for each task slot, for as long as the machine: whoever is woken
// for a slot's former task looks and waits on.

internal import Glibc
internal import KVM
internal import PhysicalMemory
import Synchronization

final class TaskSignal: Sendable {
  /// Whether a task waits in the host of its own accord, and an upcall can bring it to do something then.
  enum Waiting: UInt8, AtomicRepresentable { case no, interruptibly, deaf }

  private struct Processor {
    /// Of the vCPU that runs the task; nil: it has not begun, or is ending.
    var vcpu: VirtualCPUHandle?
    /// The CPU clock of the vCPU's thread, and what it said when the task began.
    var clock = clockid_t()
    var start: UInt64 = 0
    /// What the task had used when it ended.
    var used: UInt64 = 0
  }

  /// Opened to wake the task where it waits in the host.
  let gate = WaitGate()
  private let processor = Mutex(Processor())
  /// The last vCPU that ran the task. Still there when the task has left its loop: what its last exit left open is finished
  /// then, inside KVM.
  private let visitor = Mutex<VirtualCPUHandle?>(nil)
  /// Frames are asked back, and the task has not been told.
  private let upcall = Atomic<Bool>(false)
  /// Frames to tell of that nobody asks for: measurements and tests.
  private let pretended = Atomic<Int>(0)
  /// The task is dropped because it did not return so many frames; 0: it is not.
  private let missing = Atomic<Int>(0)
  /// It is stopped for another reason.
  private let stopped = Atomic<Bool>(false)
  private let waiting = Atomic<Waiting>(.no)
  /// A bit for each device with an interrupt that the task has not been told of.
  private let interrupts = Atomic<UInt64>(0)
  /// The task has a handler for them. One that waits for them, or looks by itself, need not be kicked.
  private let handlesInterrupts = Atomic<Bool>(false)

  /// For the slot's next task.
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

  // MARK: For any thread; none of it blocks.

  func raiseUpcall() {
    upcall.store(true, ordering: .sequentiallyConsistent)
    wakeAndKick()
  }

  /// As if `count` frames were asked back.
  func pretendUpcall(count: Int) {
    pretended.add(count, ordering: .sequentiallyConsistent)
    raiseUpcall()
  }

  /// An interrupt of a device.
  func raiseInterrupt(_ device: Int) {
    interrupts.bitwiseOr(1 << UInt64(device), ordering: .sequentiallyConsistent)
    if handlesInterrupts.load(ordering: .sequentiallyConsistent) { wakeAndKick() } else { gate.open() }
  }

  func drop(missing: Int) {
    self.missing.store(missing, ordering: .sequentiallyConsistent)
    wakeAndKick()
  }

  /// Only while the task is on its vCPU: the slot may be another task's after that.
  func stop() {
    stopped.store(true, ordering: .sequentiallyConsistent)
    wakeAndKick()
  }

  /// Whether the task is to end: what it waits for in the host is not waited for any more, and a long call is given up.
  var mustStop: Bool { stopped.load(ordering: .sequentiallyConsistent) || missingFrames != nil }

  /// The visit of the task's vCPU to KVM that is under way.
  var visit: VCPUVisit? { visitor.withLock { $0 }?.visit }

  /// Makes a visit end soon.
  func hurry(_ visit: VCPUVisit) { visitor.withLock { $0 }?.hurry(visit) }

  private func wakeAndKick() {
    gate.open()
    processor.withLock { $0.vcpu }?.kick()
  }

  /// Nanoseconds for which the task has had its vCPU's thread; `.max`: it waits, and no upcall is on its way to change
  /// that.
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

  /// From now on a kick reaches the vCPU, which the calling thread runs.
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

  /// Before the server is asked for the count: what is raised later is another upcall.
  /// - Returns: frames that nobody asks for, to be added.
  func acceptUpcall() -> Int {
    upcall.store(false, ordering: .sequentiallyConsistent)
    return pretended.exchange(0, ordering: .sequentiallyConsistent)
  }

  @inline(__always)
  var hasInterrupt: Bool { interrupts.load(ordering: .sequentiallyConsistent) != 0 }

  /// - Returns: a bit for each device.
  func acceptInterrupts() -> UInt64 { interrupts.exchange(0, ordering: .sequentiallyConsistent) }

  /// Whether interrupts are to reach the task wherever it is. One that was raised before is there after this.
  func handleInterrupts(_ wanted: Bool) { handlesInterrupts.store(wanted, ordering: .sequentiallyConsistent) }

  /// Waits, by `wait`, of the task's own accord.
  func wait(_ kind: Waiting, _ wait: () -> Bool) -> Bool {
    waiting.store(kind, ordering: .sequentiallyConsistent)
    defer { waiting.store(.no, ordering: .sequentiallyConsistent) }
    return wait()
  }
}

final class TaskSignals: Sendable {
  private let signals: [TaskSignal]

  init(capacity: Int) { signals = (0..<capacity).map { _ in TaskSignal() } }

  subscript(slot: TaskSlot) -> TaskSignal { signals[Int(slot.rawValue)] }
}
