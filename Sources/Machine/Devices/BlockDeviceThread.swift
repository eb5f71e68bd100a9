// A block device's thread. It takes the queue on a notification, serves it, and puts it back when it is empty.

internal import GuestMemory
internal import PhysicalMemory
import Synchronization

extension BlockDevice {
  /// How long the thread polls for the next request, in nanoseconds: about the cost of waking it. Also the longest time
  /// it serves before it checks again whether it may still use the queue.
  private static let patience: UInt64 = 100_000
  private static let glance: UInt64 = 10_000
  /// The most rejections that are reported; a driver can cause any number.
  private static let mostReports = 100

  /// The body of the thread.
  func run() {
    BackingFile.blockSizeSignal()
    while let (queue, driver) = takeWork() {
      waiting.threadRuns()
      serve(queue, for: driver)
      waiting.threadWaits()
    }
  }

  /// Waits for a notification.
  /// - Returns: the queue and its driver; nil: the machine is shutting down.
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

  /// Serves the queue until it is empty, and puts it back.
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
      raiseInterrupt(driver)
    }
    let isLeft = state.withLock { state in
      let isLeft = state.isLeft
      state.isServing = false
      if isLeft {
        state.free()
      } else {
        if failure == nil { state.queue = queue }
        // The driver may be waiting for the queue to be put back.
        signals[driver.slot].gate.open()
      }
      return isLeft
    }
    rest.open()
    if isLeft { resume() }
  }

  /// Raises no interrupt once the driver has left: its slot may belong to another task.
  private func raiseInterrupt(_ driver: TaskReference) {
    state.withLock { state in
      if !state.isLeft { signals[driver.slot].raiseInterrupt(number) }
    }
  }

  private func work(_ queue: inout Virtqueue, _ memory: PinnedMemory) throws(QueueFailure) {
    var lastWork = monotonicNanoseconds()
    var isFirst = true
    while !mustRest.load(ordering: .relaxed) {
      let rings: DeviceTransfer
      do throws(TransferFailure) {
        rings = try memory.begin(queue.layout.ranges)
      } catch {
        // The driver requested this pass by a notification. While the thread polls on its own, the rings may be
        // unpinned.
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
      // A request may have been added before notifications were allowed again.
      if queue.isEmpty(memory) { return }
    }
    // Deferred: retried if there is a queue by then.
    state.withLock { $0.isNotified = true }
  }

  private func lookForWork(_ queue: Virtqueue, _ memory: PinnedMemory, until end: UInt64) {
    repeat {
      for _ in 0..<64 { if !queue.isEmpty(memory) { return } }
    } while monotonicNanoseconds() < end && !mustRest.load(ordering: .relaxed)
  }

  /// - Returns: whether there was any request.
  private func serveAll(_ queue: inout Virtqueue, _ memory: PinnedMemory) throws(QueueFailure) -> Bool {
    let requests = BlockRequests(memory: memory, file: configuration.file)
    var hasWorked = false
    while !mustRest.load(ordering: .relaxed), let chain = try queue.take(memory) {
      hasWorked = true
      let outcome = try requests.serve(chain)
      if let refusal = outcome.refusal { report(memory.driver, refusal + "; the request failed") }
      guard queue.giveBack(chain.head, written: outcome.written, memory) else { continue }
      state.withLock { $0.registers.noteInterrupt() }
      raiseInterrupt(memory.driver)
    }
    return hasWorked
  }

  private func report(_ driver: TaskReference, _ text: String) {
    let count = state.withLock { state in
      state.reports += 1
      return state.reports
    }
    guard count <= Self.mostReports else { return }
    let last = count == Self.mostReports ? " (further rejections are not reported)" : ""
    configuration.report("disk \(number), driven by task \(driver.id): \(text)\(last)")
  }
}
