// Calls that wait in the host: for an answer, a message, a name, a device or a time. An upcall interrupts the wait.
// After the handler returns, the wait continues with the same deadline. Nothing that arrived meanwhile is lost: the
// server keeps it for the level that waits.

internal import CGuestABI
internal import PhysicalMemory

/// A wait of a call in the host.
struct HostWait {
  enum Subject {
    /// The server's answer for this level of the task: `waitOutcome`.
    case answer
    case time
    /// A device interrupt, for a task without an interrupt handler.
    case interrupt
  }

  let subject: Subject
  /// Nanoseconds of the monotonic clock; nil: never.
  let deadline: UInt64?
}

extension VCPULoop {
  /// Waits, then answers the call. A partner on another CPU answers within a few microseconds, so the thread polls
  /// before it sleeps.
  mutating func goOnWaiting(_ wait: HostWait) -> Continuation {
    while true {
      // Checked before each wait: a kick that arrives later would let the task run for a while.
      if let end = endIfStopped() { return end }
      var canBeTold = upcall.canBegin
      if upcall.hasWork(task.signal) {
        if let continuation = interrupt(wait) { return continuation }
        canBeTold = false
      }
      switch wait.subject {
      case .answer:
        let isOpen = waitInHost(canBeTold) { machine.waiting.wait(task.gate, until: wait.deadline) }
        if case .finished(let error) = machine.server.waitOutcome(task.slot, at: level) { return answer(error) }
        if !isOpen { return answer(machine.server.stopWaiting(task.slot, at: level)) }
      case .interrupt:
        // An interrupt raised after this opens the gate.
        if task.signal.acceptInterrupts() != 0 { return answer(PM_OK) }
        guard waitInHost(canBeTold, { machine.waiting.wait(task.gate, until: wait.deadline) }) else {
          return answer(task.signal.acceptInterrupts() != 0 ? PM_OK : PM_ETIMEDOUT)
        }
      case .time:
        guard waitInHost(canBeTold, { task.gate.wait(until: wait.deadline) }) else { return answer(PM_OK) }
      }
    }
  }

  /// A wait that the task chose. Lack of CPU time does not extend the task's deadline then, unless an upcall can
  /// interrupt the wait.
  ///
  /// An upcall that could not be queued does not count as under way. `interrupt` finds the vCPU not ready when the task
  /// made the call with the trap flag set: a debug exception is pending behind the `out` and comes first. Otherwise
  /// such a task would sleep on, be treated as a task that had no CPU time to answer, and keep the demanded frames
  /// forever.
  func waitInHost(_ canBeTold: Bool, _ body: () -> Bool) -> Bool {
    task.signal.wait(canBeTold ? .interruptibly : .deaf, body)
  }
}

extension GuestTask {
  /// Waits up to this long, in nanoseconds, do not count as waiting: every task gets this much CPU time before it is
  /// dropped.
  private static let patience: UInt64 = 5_000_000

  /// Waits until another thread of the host has finished work for a call, such as a console or a device; that thread
  /// opens the task's gate. Upcalls wait until then.
  /// - Throws: `.stopped` if the task must end.
  func wait(_ threads: WaitingThreads, until isDone: () -> Bool) throws(CallFailure) {
    let end = monotonicNanoseconds() + Self.patience
    while !isDone() {
      // Stopping the task sets the flag first, then opens the gate.
      guard !signal.mustStop else { throw .stopped }
      if monotonicNanoseconds() < end {
        _ = threads.wait(gate, until: end)
      } else {
        _ = signal.wait(.deaf) { threads.wait(gate, until: nil) }
      }
    }
  }
}
