// The vCPUs: made when first needed, parked between tasks, each with a thread of its own.
//
// The life of a vCPU:
//  1. made: its thread creates it, for the first task.
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
  private let mailbox: Mutex<Message?>
  private let isMade = WaitGate()
  private let failure = Mutex<MachineError?>(nil)

  /// `first`: what it does once its vCPU is made.
  init(index: Int, first task: GuestTask) {
    self.index = index
    mailbox = Mutex(.run(task))
    gate.open()
  }

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

  /// Called once by the thread: its vCPU is made, or why it cannot be.
  func report(_ error: MachineError? = nil) {
    failure.withLock { $0 = error }
    isMade.open()
  }

  /// Waits for the report.
  func waitUntilMade() throws(MachineError) {
    isMade.wait()
    if let error = failure.withLock({ $0 }) { throw error }
  }
}

final class VCPUPool: Sendable {
  private struct State {
    var idle: [VCPUWorker] = []
    var workers: [VCPUWorker] = []
    var threads: [HostThread] = []
  }

  private let state = Mutex(State())

  /// Gives the task to a parked vCPU, or to a new one.
  func start(_ task: GuestTask, on machine: Machine) throws(MachineError) {
    if let worker = state.withLock({ $0.idle.popLast() }) { return worker.send(.run(task)) }
    try state.withLock { (state) throws(MachineError) in
      let index = state.workers.count
      guard index < SupervisorArea.maximumVCPUs else { throw .tooManyTasks(SupervisorArea.maximumVCPUs) }
      let worker = VCPUWorker(index: index, first: task)
      state.threads.append(try make(worker, machine))
      state.workers.append(worker)
    }
  }

  /// Starts the worker's thread, which makes its vCPU. In this order, because KVM never takes a vCPU back, and a thread
  /// that is no use simply ends.
  private func make(_ worker: VCPUWorker, _ machine: Machine) throws(MachineError) -> HostThread {
    let thread: HostThread
    do throws(Errno) {
      thread = try HostThread { [self] in
        do throws(MachineError) {
          serve(worker, try VCPURunner(machine, index: worker.index))
        } catch {
          worker.report(error)
        }
      }
    } catch {
      throw .system("pthread_create", error)
    }
    do throws(MachineError) {
      try worker.waitUntilMade()
    } catch {
      thread.join()
      throw error
    }
    return thread
  }

  /// The body of a vCPU's thread.
  private func serve(_ worker: VCPUWorker, _ runner: consuming VCPURunner) {
    worker.report()
    runner.attachThread()
    while case .run(let task) = worker.receive() {
      let end = runner.run(task)
      if runner.isUsable { state.withLock { $0.idle.append(worker) } }
      task.finish(end)
      guard runner.isUsable else { break }
    }
    runner.detachThread()
  }

  /// Ends all threads, once; no task may be running, and none may be started after this.
  func close() {
    let (workers, threads) = state.withLock { state in
      defer { state.threads = [] }
      return (state.workers, state.threads)
    }
    for worker in workers { worker.send(.finish) }
    for thread in threads { thread.join() }
  }

  var count: Int { state.withLock { $0.workers.count } }
}
