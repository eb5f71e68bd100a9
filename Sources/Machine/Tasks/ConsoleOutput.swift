// pm_write, and where consoles are called: on threads of their own, so that no task waits where it cannot be stopped.
//
// A console may block for as long as it likes: a write to a pipe does that nobody reads. A signal is no way out of it, for
// one that comes just before the write begins is lost; and O_NONBLOCK would be there for all who have the pipe or the
// terminal open. So the task waits at its gate, as for everything else, and who stops it opens that. Its text may still
// be on its way then.
//
// The life of a thread:
//  1. idle: on the list; the last one used is the next to be used.
//  2. busy: in a console. Its task waits, or has been stopped.
//  3. gone, with the machine. One that is busy then ends when the console returns, and nobody waits for that.

internal import CGuestABI
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// A text that a console is to take.
private final class ConsoleCall: Sendable {
  let console: Console
  let text: [UInt8]
  /// Opened when it is done.
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

final class ConsoleThreads: Sendable {
  private final class Worker: Sendable {
    let gate = WaitGate()
    /// What to do next.
    let call = Mutex<ConsoleCall?>(nil)
    let thread = Mutex<HostThread?>(nil)
  }

  private struct State {
    var idle: [Worker] = []
    var isClosed = false
  }

  private let state = Mutex(State())

  /// - Throws: there is no thread for it.
  fileprivate func begin(_ call: ConsoleCall) throws(Errno) {
    let idle = state.withLock { $0.idle.popLast() }
    let worker = idle ?? Worker()
    worker.call.withLock { $0 = call }
    worker.gate.open()
    guard idle == nil else { return }
    try worker.thread.withLock { (thread) throws(Errno) in thread = try HostThread { [self] in serve(worker) } }
  }

  /// The body of a thread.
  private func serve(_ worker: Worker) {
    while true {
      worker.gate.wait()
      // None: the machine has ended.
      guard let call = worker.call.withLock({ call in call.take() }) else { return }
      call.perform()
      // Idle before the task goes on: its next text shall find this thread.
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

  /// Ends the threads that are idle. Every task has ended.
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
  /// pm_write. All of it or nothing: the text is looked at once before the first byte is put out. There can be far more of it
  /// than there is memory, so a task that is stopped meanwhile does not go on with it.
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

  /// Goes over `length` bytes in order, at most `most` at a time, up to the end or until the task is to stop.
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

/// Does something that may block, on a thread of its own, and waits for it, but not for ever.
/// - Returns: false: it is under way still.
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
