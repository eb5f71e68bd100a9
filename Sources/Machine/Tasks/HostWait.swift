// Calls that wait in the host: for an answer, a message, a name, a device, or a time. An upcall interrupts the wait, which goes on with the same deadline when the handler has returned; nothing that came meanwhile is lost, for the server
// keeps it for the level that waits.

internal import CGuestABI
internal import PhysicalMemory

struct HostWait {
  enum Subject {
    /// What the server has for the task's level: `waitOutcome`.
    case answer
    case time
    /// An interrupt of a device, where the task has no handler for them.
    case interrupt
  }

  let subject: Subject
  /// Nanoseconds of the monotonic clock; nil: never.
  let deadline: UInt64?
}

extension VCPULoop {
  /// Waits, and answers the call. A partner on another CPU answers within a few microseconds: it is worth while to look
  /// for that before the thread goes to sleep.
  mutating func goOnWaiting(_ wait: HostWait) -> Continuation {
    while true {
      // Looked at here: a kick that comes later would let the task go on for a while.
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
        // What is raised after this opens the gate.
        if task.signal.acceptInterrupts() != 0 { return answer(PM_OK) }
        guard waitInHost(canBeTold, { machine.waiting.wait(task.gate, until: wait.deadline) }) else {
          return answer(task.signal.acceptInterrupts() != 0 ? PM_OK : PM_ETIMEDOUT)
        }
      case .time:
        guard waitInHost(canBeTold, { task.gate.wait(until: wait.deadline) }) else { return answer(PM_OK) }
      }
    }
  }

  /// Waits of the task's own accord: that it had no time is no excuse then, unless an upcall can interrupt the wait.
  ///
  /// An upcall that could not be queued does not count as one on its way: `interrupt` finds the vCPU not ready when the
  /// call was made under the trap flag, for then a debug exception is due behind the `out` and comes first. Such a task
  /// would sleep on, be taken for one that had no time to answer, and keep what it is asked for for ever.
  func waitInHost(_ canBeTold: Bool, _ body: () -> Bool) -> Bool {
    task.signal.wait(canBeTold ? .interruptibly : .deaf, body)
  }
}

extension GuestTask {
  /// What takes no longer than this, in nanoseconds, has not made the task wait: as much as any task gets before it is
  /// dropped.
  private static let patience: UInt64 = 5_000_000

  /// Waits for what another thread of the host does for a call, and opens the task's gate then: a console, a device. An
  /// upcall waits as well.
  func wait(_ threads: WaitingThreads, until isDone: () -> Bool) throws(CallFailure) {
    let end = monotonicNanoseconds() + Self.patience
    while !isDone() {
      // Who stops the task opens the gate behind this.
      guard !signal.mustStop else { throw .stopped }
      if monotonicNanoseconds() < end {
        _ = threads.wait(gate, until: end)
      } else {
        _ = signal.wait(.deaf) { threads.wait(gate, until: nil) }
      }
    }
  }
}
