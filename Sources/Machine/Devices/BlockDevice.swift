// A virtio block device: its registers, its driver, and the thread that serves its queue.
//
// Lifecycle of the queue:
//  1. none: the driver has not configured it, or it is broken, which only a reset repairs.
//  2. idle: `State.queue`. A notification wakes the thread.
//  3. served: the thread has it, and polls for a while before it puts the queue back. A reset or a release of the
//     device waits until then: at most for one request, which takes as long as the file does. When a driver ends, it
//     waits a limited time and then leaves the device to the thread; no task can claim the device before the request is
//     over.
//
//      driver ── pm_device_write ──▶ registers        notification ──▶ gate ──▶ thread ──▶ queue ──▶ file
//      driver ◀── upcall, pm_interrupt_wait ◀── TaskSignal ◀── thread

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// A disk of a machine.
public struct DiskConfiguration: Sendable {
  /// The disk's contents.
  public var file: BackingFile
  /// Width of the device's addresses in bits: 24, 32 or 64.
  public var addressBits: Int
  /// Called with a sentence for each rejected request. Runs on the device's thread, which serves no request meanwhile.
  public var report: @Sendable (String) -> Void

  /// - Parameters:
  ///   - file: the disk's contents.
  ///   - addressBits: width of the device's addresses, from 12 to 64.
  ///   - report: called with a sentence for each rejected request.
  public init(file: BackingFile, addressBits: Int = 64, report: @escaping @Sendable (String) -> Void = { _ in }) {
    precondition((12...64).contains(addressBits))
    self.file = file
    self.addressBits = addressBits
    self.report = report
  }
}

/// A virtio block device, as its driver's calls and its own thread use it.
final class BlockDevice: Sendable {
  struct State {
    var driver: TaskReference?
    var registers: VirtioRegisters
    /// The queue while it is idle.
    var queue: Virtqueue?
    /// The device's thread has the queue.
    var isServing = false
    /// The driver has ended while the thread was serving. The thread frees the device when it puts the queue back.
    var isLeft = false
    var isNotified = false
    var isStopping = false
    var reports = 0

    mutating func endQueue() {
      queue = nil
      isNotified = false
    }

    /// Resets the device and leaves it without a driver.
    mutating func free() {
      endQueue()
      registers.reset()
      driver = nil
      isLeft = false
    }
  }

  let number: Int
  let configuration: DiskConfiguration
  let pool: PoolMemory
  let server: PhysicalMemoryServer
  let signals: TaskSignals
  let waiting: WaitingThreads
  let state: Mutex<State>
  /// Opened to wake the thread, and by the thread when it puts the queue back.
  let gate = WaitGate()
  let rest = WaitGate()
  /// The thread must put the queue back, because another thread waits for that.
  let mustRest = Atomic<Bool>(false)
  private let thread = Mutex<HostThread?>(nil)

  init(
    _ number: Int, _ configuration: DiskConfiguration, pool: PoolMemory, server: PhysicalMemoryServer,
    signals: TaskSignals, waiting: WaitingThreads
  ) {
    self.number = number
    self.configuration = configuration
    self.pool = pool
    self.server = server
    self.signals = signals
    self.waiting = waiting
    state = Mutex(State(registers: VirtioRegisters(configuration.file)))
  }

  var addressBits: Int { configuration.addressBits }

  func start() throws(Errno) {
    let started = try HostThread { [self] in run() }
    thread.withLock { $0 = started }
  }

  func stop() {
    state.withLock { $0.isStopping = true }
    mustRest.store(true, ordering: .sequentiallyConsistent)
    gate.open()
    thread.withLock { $0.take() }?.join()
  }

  // MARK: For its driver's thread

  /// Makes a task the device's driver.
  /// - Throws: `.busy` (PM_EBUSY) if another task drives it; `.exists` (PM_EEXIST) if this task already does.
  func claim(_ task: TaskReference) throws(CallFailure) {
    try state.withLock { (state) throws(CallFailure) in
      if let driver = state.driver { throw driver == task ? .exists : .busy }
      state.driver = task
    }
  }

  /// Waits until the condition holds. The thread that makes it hold opens the task's gate. Throws `.stopped` if the
  /// task must end.
  typealias Wait = (_ isDone: () -> Bool) throws(CallFailure) -> Void

  /// Releases and resets the device.
  /// - Throws: `.notPermitted` (PM_EPERM) if the task is not its driver; `.stopped`.
  func release(_ task: TaskReference, wait: Wait) throws(CallFailure) {
    guard state.withLock({ $0.driver == task }) else { throw .notPermitted }
    try halt(wait) { $0.free() }
  }

  /// Called when the driver ends. No interrupt is raised afterwards; frames under transfer stay pinned.
  func leave(_ task: TaskReference) {
    guard state.withLock({ $0.driver == task }) else { return }
    mustRest.store(true, ordering: .sequentiallyConsistent)
    let deadline = monotonicNanoseconds() + Self.patienceOfEnd
    while state.withLock({ $0.isServing }), rest.wait(until: deadline) {}
    let isLeft = state.withLock { state in
      if state.isServing { state.isLeft = true } else { state.free() }
      return state.isLeft
    }
    if !isLeft { resume() }
  }

  /// Nanoseconds within which a request normally completes, even on a busy host.
  private static let patienceOfEnd: UInt64 = 1_000_000_000

  func read(_ task: TaskReference, _ offset: UInt32) throws(CallFailure) -> UInt32 {
    guard offset % 4 == 0, offset < VirtioRegisters.Offset.end else { throw .invalid }
    return try state.withLock { (state) throws(CallFailure) in
      guard state.driver == task else { throw .notPermitted }
      return state.registers.read(offset)
    }
  }

  func write(_ task: TaskReference, _ offset: UInt32, _ value: UInt32, wait: Wait) throws(CallFailure) {
    guard offset % 4 == 0, offset < VirtioRegisters.Offset.end else { throw .invalid }
    guard state.withLock({ $0.driver == task }) else { throw .notPermitted }
    switch (offset, value) {
    case (VirtioRegisters.Offset.queueNotify, _): notify()
    case (VirtioRegisters.Offset.status, 0): try halt(wait) { $0.registers.reset() }
    case (VirtioRegisters.Offset.queueReady, 0) where state.withLock({ $0.registers.queueSelector == 0 }):
      try halt(wait) { $0.registers.stopQueue() }
    default:
      state.withLock { state in
        let before = state.registers.queue != nil
        state.registers.write(offset, value)
        if !before, let queue = state.registers.queue { state.queue = queue }
      }
    }
  }

  private func notify() {
    state.withLock { $0.isNotified = true }
    gate.open()
  }

  /// Waits until the thread has put the queue back, then ends the queue. Called on the driver's thread only. If the
  /// driver is stopped meanwhile, the device stays idle until the driver leaves.
  private func halt(_ wait: Wait, _ body: (inout State) -> Void) throws(CallFailure) {
    mustRest.store(true, ordering: .sequentiallyConsistent)
    try wait { !state.withLock { $0.isServing } }
    state.withLock { state in
      state.endQueue()
      body(&state)
    }
    resume()
  }

  func resume() {
    mustRest.store(false, ordering: .sequentiallyConsistent)
    // Retries a notification that was deferred meanwhile.
    gate.open()
  }
}
