// A virtio block device: its registers, its driver, and the thread that serves its queue.
//
// The life of its queue:
//  1. none: the driver has not said where it is, or the queue is broken, which only a reset mends.
//  2. resting: `State.queue`. A notification wakes the thread.
//  3. served: the thread has it, and looks for work by itself for a while before it puts it down. Who wants to reset the
//     device, or to take it from its driver, waits until then: one request at most.
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
  /// Called with a sentence for each thing that the device refused; on the device's own thread.
  public var report: @Sendable (String) -> Void

  public init(file: BackingFile, addressBits: Int = 64, report: @escaping @Sendable (String) -> Void = { _ in }) {
    precondition((12...64).contains(addressBits))
    self.file = file
    self.addressBits = addressBits
    self.report = report
  }
}

final class BlockDevice: Sendable {
  private struct State {
    var driver: TaskReference?
    var registers: VirtioRegisters
    /// While it rests.
    var queue: Virtqueue?
    /// The thread has the queue.
    var isServing = false
    var isNotified = false
    var isStopping = false
    var reports = 0
  }

  /// How long the thread looks for the next request by itself, in nanoseconds: about what it takes to wake it. And for
  /// how long at a time without looking whether the queue may still be touched.
  private static let patience: UInt64 = 100_000
  private static let glance: UInt64 = 10_000
  /// Refusals that are told; a driver may produce any number.
  private static let mostReports = 100

  private let number: Int
  private let configuration: DiskConfiguration
  private let pool: PoolMemory
  private let server: PhysicalMemoryServer
  private let signals: TaskSignals
  private let waiting: WaitingThreads
  private let state: Mutex<State>
  /// Opened to wake the thread, and by the thread when it puts the queue down.
  private let gate = WaitGate()
  private let rest = WaitGate()
  /// Somebody waits for the thread to put the queue down.
  private let mustRest = Atomic<Bool>(false)
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
  func claim(_ task: TaskReference) throws(ServerError) {
    try state.withLock { (state) throws(ServerError) in
      if let driver = state.driver { throw driver == task ? .exists : .busy }
      state.driver = task
    }
  }

  /// Takes the device from a task, if it has it, and resets it. Waits for a request under way.
  /// - Returns: whether it had it.
  @discardableResult
  func release(_ task: TaskReference) -> Bool {
    guard state.withLock({ $0.driver == task }) else { return false }
    halt {
      $0.registers.reset()
      $0.driver = nil
    }
    return true
  }

  func read(_ task: TaskReference, _ offset: UInt32) throws(ServerError) -> UInt32 {
    guard offset % 4 == 0, offset < VirtioRegisters.Offset.end else { throw .invalid }
    return try state.withLock { (state) throws(ServerError) in
      guard state.driver == task else { throw .notPermitted }
      return state.registers.read(offset)
    }
  }

  func write(_ task: TaskReference, _ offset: UInt32, _ value: UInt32) throws(ServerError) {
    guard offset % 4 == 0, offset < VirtioRegisters.Offset.end else { throw .invalid }
    guard state.withLock({ $0.driver == task }) else { throw .notPermitted }
    switch (offset, value) {
    case (VirtioRegisters.Offset.queueNotify, _): notify()
    case (VirtioRegisters.Offset.status, 0): halt { $0.registers.reset() }
    case (VirtioRegisters.Offset.queueReady, 0) where state.withLock({ $0.registers.queueSelector == 0 }):
      halt { $0.registers.stopQueue() }
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

  /// Waits until the thread has put the queue down, then ends the queue. Only the driver's thread and the one that ends the driver
  /// come here, and they are one.
  private func halt(_ body: (inout State) -> Void) {
    mustRest.store(true, ordering: .sequentiallyConsistent)
    while state.withLock({ $0.isServing }) { rest.wait() }
    state.withLock { state in
      state.queue = nil
      state.isNotified = false
      body(&state)
    }
    mustRest.store(false, ordering: .sequentiallyConsistent)
    // What was put off meanwhile.
    gate.open()
  }

  // MARK: The device's thread

  private func run() {
    while let (queue, driver) = takeWork() {
      waiting.threadRuns()
      serve(queue, for: driver)
      waiting.threadWaits()
    }
  }

  /// Waits for a notification; nil: the machine is shut down.
  private func takeWork() -> (Virtqueue, TaskReference)? {
    while true {
      let (isStopping, work) = state.withLock { state -> (Bool, (Virtqueue, TaskReference)?) in
        if state.isStopping { return (true, nil) }
        guard state.isNotified, !mustRest.load(ordering: .sequentiallyConsistent), let driver = state.driver,
          let queue = state.queue
        else { return (false, nil) }
        state.isNotified = false
        state.isServing = true
        state.queue = nil
        return (false, (queue, driver))
      }
      if isStopping { return nil }
      if let work { return work }
      gate.wait()
    }
  }

  /// Serves the queue until there is nothing to do, and puts it down.
  private func serve(_ queue: Virtqueue, for driver: TaskReference) {
    let limit = configuration.addressBits == 64 ? UInt64.max : 1 << UInt64(configuration.addressBits) - 1
    let memory = PinnedMemory(pool: pool, server: server, driver: driver, limit: PhysicalAddress(limit))
    var queue = queue
    var failure: QueueFailure?
    do throws(QueueFailure) {
      try work(&queue, memory)
    } catch {
      failure = error
    }
    if let failure {
      report(driver, failure.text + "; the device needs a reset")
      state.withLock { $0.registers.fail() }
      // While the queue is not put down: after that the driver's slot may be another task's.
      signals[driver.slot].raiseInterrupt(number)
    }
    state.withLock { state in
      state.isServing = false
      if failure == nil { state.queue = queue }
    }
    rest.open()
  }

  private func work(_ queue: inout Virtqueue, _ memory: PinnedMemory) throws(QueueFailure) {
    var lastWork = monotonicNanoseconds()
    var isFirst = true
    while !mustRest.load(ordering: .relaxed) {
      let rings: DeviceTransfer
      do throws(TransferFailure) {
        rings = try memory.begin(queue.layout.ranges)
      } catch {
        // The driver asked for this look; to those of its own accord the rings need not be open.
        if isFirst { throw .transfer(error) }
        return
      }
      defer { memory.end(rings) }
      isFirst = false
      queue.suppressNotifications(memory)
      if try serveAll(&queue, memory) { lastWork = monotonicNanoseconds() }
      let now = monotonicNanoseconds()
      if now - lastWork < Self.patience, waiting.hasSpareCPU {
        lookForWork(queue, memory, until: now + Self.glance)
        continue
      }
      queue.allowNotifications(memory)
      // One that came before that may not have been notified of.
      if queue.isEmpty(memory) { return }
    }
    // Put off: to be gone on with, if there is a queue then.
    state.withLock { $0.isNotified = true }
  }

  private func lookForWork(_ queue: Virtqueue, _ memory: PinnedMemory, until end: UInt64) {
    repeat {
      for _ in 0..<64 { if !queue.isEmpty(memory) { return } }
    } while monotonicNanoseconds() < end && !mustRest.load(ordering: .relaxed)
  }

  /// - Returns: whether there was anything to do.
  private func serveAll(_ queue: inout Virtqueue, _ memory: PinnedMemory) throws(QueueFailure) -> Bool {
    let requests = BlockRequests(memory: memory, file: configuration.file)
    var hasWorked = false
    while !mustRest.load(ordering: .relaxed), let chain = try queue.take(memory) {
      hasWorked = true
      let outcome = try requests.serve(chain)
      if let refusal = outcome.refusal { report(memory.driver, refusal + "; the request failed") }
      guard queue.giveBack(chain.head, written: outcome.written, memory) else { continue }
      state.withLock { $0.registers.noteInterrupt() }
      signals[memory.driver.slot].raiseInterrupt(number)
    }
    return hasWorked
  }

  private func report(_ driver: TaskReference, _ text: String) {
    let count = state.withLock { state in
      state.reports += 1
      return state.reports
    }
    guard count <= Self.mostReports else { return }
    let last = count == Self.mostReports ? " (what it refuses from now on is not told)" : ""
    configuration.report("disk \(number), driven by task \(driver.id): \(text)\(last)")
  }
}
