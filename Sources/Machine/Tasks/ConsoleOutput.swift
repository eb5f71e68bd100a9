// pm_write, and the threads that call consoles. A task never calls its console on its vCPU's thread, so that it can
// always be stopped.
//
// A console may block indefinitely, for example in a write to a pipe that has no reader. A signal cannot interrupt it
// reliably: a signal delivered just before the write is lost. O_NONBLOCK would affect every process that has the pipe
// or terminal open. So the task waits at its gate, as in every other wait, and stopping the task opens the gate. Its
// text may still be on its way then.
//
// Lifecycle of a thread:
//  1. idle: on the list. The thread used last is reused first.
//  2. busy: in a console. Its task waits, or has been stopped.
//  3. ended, with the machine. A busy thread ends when its console returns; shutting down does not wait for it.

internal import CGuestABI
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// A text for a console.
private final class ConsoleCall: Sendable {
  let console: Console
  let text: [UInt8]
  /// Opened when the console has returned.
  let gate: WaitGate
  private let done = Atomic<Bool>(false)

  init(_ console: @escaping Console, _ text: [UInt8], _ gate: WaitGate) {
    self.console = console
    self.text = text
    self.gate = gate
  }

  var isDone: Bool { done.load(ordering: .sequentiallyConsistent) }

  func perform() { console(text) }

  func finish() {
    done.store(true, ordering: .sequentiallyConsistent)
    gate.open()
  }
}

/// The threads that call consoles.
final class ConsoleThreads: Sendable {
  private final class Worker: Sendable {
    let gate = WaitGate()
    /// The next call to serve.
    let call = Mutex<ConsoleCall?>(nil)
    let thread = Mutex<HostThread?>(nil)
  }

  private struct State {
    var idle: [Worker] = []
    var isClosed = false
  }

  private let state = Mutex(State())

  /// - Throws: `Errno` if no thread can be created.
  fileprivate func begin(_ call: ConsoleCall) throws(Errno) {
    let idle = state.withLock { $0.idle.popLast() }
    let worker = idle ?? Worker()
    worker.call.withLock { $0 = call }
    worker.gate.open()
    guard idle == nil else { return }
    try worker.thread.withLock { (thread) throws(Errno) in thread = try HostThread { [self] in serve(worker) } }
  }

  /// The body of a console thread.
  private func serve(_ worker: Worker) {
    while true {
      worker.gate.wait()
      // No call: the machine has ended.
      guard let call = worker.call.withLock({ call in call.take() }) else { return }
      call.perform()
      // The thread becomes idle before the task continues, so that the task's next text reuses this thread.
      let isClosed = state.withLock { state in
        if !state.isClosed { state.idle.append(worker) }
        return state.isClosed
      }
      call.finish()
      if isClosed {
        worker.thread.withLock { $0.take() }?.detach()
        return
      }
    }
  }

  /// Ends the idle threads. All tasks must have ended.
  func close() {
    let idle = state.withLock { state in
      state.isClosed = true
      defer { state.idle = [] }
      return state.idle
    }
    for worker in idle { worker.gate.open() }
    for worker in idle { worker.thread.withLock { $0.take() }?.join() }
  }
}

extension HostedCall {
  /// pm_write. Writes all of the text or nothing: every page is checked before the first byte is written. The text can
  /// be far larger than memory, so the call ends early when the task is stopped.
  func write() throws(CallFailure) -> CallProgress {
    let (address, length) = (arguments.words.0, arguments.words.1)
    guard length > 0 else { return .done }
    guard address <= PM_USER_END, length <= PM_USER_END - address else { throw .fault }
    try forEachPart(of: length, 1 << 20) { (done, count) throws(CallFailure) in
      try machine.server.checkReadable(task.slot, GuestAddress(address + done), count)
    }
    try forEachPart(of: length, 1 << 16) { (done, count) throws(CallFailure) in
      var text = [UInt8](repeating: 0, count: Int(count))
      try machine.server.readMemory(task.slot, GuestAddress(address + done), into: &text)
      try putOut(text)
    }
    return .done
  }

  /// Calls the body for `length` bytes in order, at most `most` at a time, until the end or until the task must stop.
  private func forEachPart(
    of length: UInt64, _ most: UInt64, _ body: (_ done: UInt64, _ count: UInt64) throws(CallFailure) -> Void
  ) throws(CallFailure) {
    var done: UInt64 = 0
    while done < length {
      guard !task.signal.mustStop else { throw .stopped }
      let count = min(length - done, most)
      try body(done, count)
      done += count
    }
  }

  private func putOut(_ text: [UInt8]) throws(CallFailure) {
    let call = ConsoleCall(task.console, text, task.gate)
    do throws(Errno) { try machine.consoles.begin(call) } catch { throw .noMemory }
    try task.wait(machine.waiting) { call.isDone }
  }
}

/// Runs a body that may block on a thread of its own, and waits for it for a limited time.
/// - Parameters:
///   - seconds: how long to wait.
///   - body: runs on a console thread.
/// - Returns: false if the body is still running.
@discardableResult
package func attempt(seconds: Double, _ body: @escaping @Sendable () -> Void) -> Bool {
  let gate = WaitGate()
  let thread = try? HostThread {
    body()
    gate.open()
  }
  thread?.detach()
  return thread != nil && gate.wait(until: monotonicNanoseconds() + UInt64(max(0, min(seconds, 1e9)) * 1e9))
}
