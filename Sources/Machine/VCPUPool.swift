// The vCPUs: made when first needed, parked between tasks, each with a thread of its own.
//
// The life of a vCPU:
//  1. made: its thread creates it and waits.
//  2. running: it has a task, and is in no list.
//  3. parked: the task has ended, everything is reset; it is on the list of idle ones, the last used first.
//  4. gone, with the machine.

internal import CKVM
internal import GuestMemory
internal import KVM
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// What a vCPU's thread and its owner say to each other.
final class VCPUWorker: Sendable {
  enum Message {
    case run(GuestTask)
    case finish
  }

  let index: Int
  private let gate = WaitGate()
  private let mailbox = Mutex<Message?>(nil)

  init(index: Int) { self.index = index }

  func send(_ message: Message) {
    mailbox.withLock { $0 = message }
    gate.open()
  }

  func receive() -> Message {
    while true {
      gate.wait()
      if let message = mailbox.withLock({ message in message.take() }) { return message }
    }
  }
}

final class VCPUPool: Sendable {
  private struct State {
    var idle: [VCPUWorker] = []
    var workers: [VCPUWorker] = []
    var threads: [HostThread] = []
    /// vCPUs tried to be made: the next one's index.
    var made = 0
  }

  private let state = Mutex(State())

  /// Gives the task to a parked vCPU, or to a new one.
  func start(_ task: GuestTask, on machine: Machine) throws(MachineError) {
    let idle = state.withLock { $0.idle.popLast() }
    let worker: VCPUWorker
    if let idle { worker = idle } else { worker = try make(machine) }
    worker.send(.run(task))
  }

  private func make(_ machine: Machine) throws(MachineError) -> VCPUWorker {
    // An index is spent even if what follows fails: KVM takes each only once.
    let next = state.withLock { state -> Int? in
      guard state.made < SupervisorArea.maximumVCPUs else { return nil }
      defer { state.made += 1 }
      return state.made
    }
    guard let index = next else { throw .tooManyTasks(SupervisorArea.maximumVCPUs) }
    let worker = VCPUWorker(index: index)
    var runner = Optional(try VCPURunner(machine, index: index))
    let thread: HostThread
    do throws(Errno) {
      thread = try HostThread { [self] in
        guard let taken = runner.take() else { return }
        serve(worker, taken)
      }
    } catch {
      throw .system("pthread_create", error)
    }
    state.withLock { state in
      state.workers.append(worker)
      state.threads.append(thread)
    }
    return worker
  }

  /// The body of a vCPU's thread.
  private func serve(_ worker: VCPUWorker, _ runner: consuming VCPURunner) {
    runner.attachThread()
    while case .run(let task) = worker.receive() {
      let end = runner.run(task)
      if runner.isUsable { state.withLock { $0.idle.append(worker) } }
      task.finish(end)
      guard runner.isUsable else { break }
    }
    runner.detachThread()
  }

  /// Ends all threads; no task may be running.
  func close() {
    let (workers, threads) = state.withLock { ($0.workers, $0.threads) }
    for worker in workers { worker.send(.finish) }
    for thread in threads { thread.join() }
  }

  var count: Int { state.withLock { $0.workers.count } }
}
