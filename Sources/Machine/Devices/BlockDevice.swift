// A virtio block device: its registers, its driver, and the thread that serves its queue.
//
// The life of its queue:
//  1. none: the driver has not said where it is, or the queue is broken, which only a reset mends.
//  2. resting: `State.queue`. A notification wakes the thread.
//  3. served: the thread has it, and looks for work by itself for a while before it puts it down. Who resets the device, or
//     lets go of it, waits until then: one request at most, and that may be as long as the file likes. A driver that ends
//     waits a little, and leaves the device to the thread: nobody gets it before the request is over.
//
//      driver ── pm_device_write ──▶ registers        notification ──▶ gate ──▶ thread ──▶ queue ──▶ file
//      driver ◀── upcall, pm_interrupt_wait ◀── TaskSignal ◀── thread

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// A disk of a machine.
public struct DiskConfiguration: Sendable {
  public var file: BackingFile
  /// How many bits an address may have that the device puts out: 24, 32 or 64.
  public var addressBits: Int
  /// Called with a sentence for each thing that the device refused; on the device's own thread, which serves nobody
  /// meanwhile.
  public var report: @Sendable (String) -> Void

  public init(file: BackingFile, addressBits: Int = 64, report: @escaping @Sendable (String) -> Void = { _ in }) {
    precondition((12...64).contains(addressBits))
    self.file = file
    self.addressBits = addressBits
    self.report = report
  }
}

final class BlockDevice: Sendable {
  struct State {
    var driver: TaskReference?
    var registers: VirtioRegisters
    /// While it rests.
    var queue: Virtqueue?
    /// The thread has the queue.
    var isServing = false
    /// The driver has ended meanwhile; the thread lets the device go when it puts the queue down.
    var isLeft = false
    var isNotified = false
    var isStopping = false
    var reports = 0

    mutating func endQueue() {
      queue = nil
      isNotified = false
    }

    /// The device is nobody's, and as new.
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
  /// Opened to wake the thread, and by the thread when it puts the queue down.
  let gate = WaitGate()
  let rest = WaitGate()
  /// Somebody waits for the thread to put the queue down.
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

  /// PM_EBUSY: another task drives it; PM_EEXIST: this one does already.
  func claim(_ task: TaskReference) throws(CallFailure) {
    try state.withLock { (state) throws(CallFailure) in
      if let driver = state.driver { throw driver == task ? .exists : .busy }
      state.driver = task
    }
  }

  /// Waits until that is so; the task's gate is opened then. `.stopped`: the task is to end.
  typealias Wait = (_ isDone: () -> Bool) throws(CallFailure) -> Void

  /// The driver lets go of the device, which is reset. PM_EPERM: it is not the driver.
  func release(_ task: TaskReference, wait: Wait) throws(CallFailure) {
    guard state.withLock({ $0.driver == task }) else { throw .notPermitted }
    try halt(wait) { $0.free() }
  }

  /// The driver ends. No interrupt comes from here on, and frames under transfer are still pinned.
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

  /// Nanoseconds in which a request is over as a rule, on a busy host too.
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

  /// Waits until the thread has put the queue down, then ends the queue. Only the driver's thread comes here. Where it is
  /// stopped, the device rests until the driver leaves.
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
    // What was put off meanwhile.
    gate.open()
  }
}
