// The pool of vCPUs. Each is made on first need, has a thread of its own, and is parked between tasks.
//
// Lifecycle of a vCPU:
//  1. made. Its thread takes it and waits.
//  2. running: it has a task, and is on no list.
//  3. parked: its task has ended and its state has been reset. It is on the idle list; the last used comes first.
//  4. gone, with the machine.

internal import CKVM
internal import GuestMemory
internal import KVM
internal import PhysicalMemory
internal import SystemPackage
import Synchronization

/// The mailbox between a vCPU's thread and the pool.
final class VCPUWorker: Sendable {
  enum Message {
    case run(GuestTask)
    case finish
  }

  /// The vCPU, until its thread takes it.
  private let runner: Mutex<VCPURunner?>
  private let gate = WaitGate()
  private let mailbox = Mutex<Message?>(nil)

  /// - Parameter frame: for the vCPU page; given back if this throws.
  /// - Throws: `MachineError.kvm`.
  init(_ machine: Machine, index: Int, frame: FrameNumber) throws(MachineError) {
    runner = Mutex(try VCPURunner(machine, index: index, frame: frame))
  }

  /// Takes the vCPU, for the worker's thread.
  func takeRunner() -> VCPURunner? { runner.withLock { $0.take() } }

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

/// The vCPUs of a machine, running and parked.
final class VCPUPool: Sendable {
  private struct State {
    var idle: [VCPUWorker] = []
    var workers: [VCPUWorker] = []
    var threads: [HostThread] = []
    /// A vCPU whose thread could not be created. KVM cannot delete a vCPU, so the next attempt reuses it.
    var threadless: VCPUWorker?
  }

  private let state = Mutex(State())

  /// Gives the task to a parked vCPU, or to a new one.
  /// - Throws: `MachineError.noMemory`, `.tooManyTasks`, `.kvm` or `.system`.
  func start(_ task: GuestTask, on machine: Machine) throws(MachineError) {
    let idle = state.withLock { $0.idle.popLast() }
    let worker: VCPUWorker
    if let idle { worker = idle } else { worker = try make(machine, for: task) }
    worker.send(.run(task))
  }

  private func make(_ machine: Machine, for task: GuestTask) throws(MachineError) -> VCPUWorker {
    // Taken before the pool is locked: other tasks may have to return a frame first.
    let frame = machine.server.takeMachineFrame(for: task.slot) { until in task.gate.wait(until: until) }
    guard let frame else { throw .noMemory("a vCPU") }
    return try state.withLock { (state) throws(MachineError) in
      let index = state.workers.count
      let worker: VCPUWorker
      if let made = state.threadless {
        machine.server.giveMachineFrame(frame)
        worker = made
      } else if index < SupervisorArea.maximumVCPUs {
        worker = try VCPUWorker(machine, index: index, frame: frame)
      } else {
        machine.server.giveMachineFrame(frame)
        throw .tooManyTasks(SupervisorArea.maximumVCPUs)
      }
      state.threadless = worker
      do throws(Errno) {
        state.threads.append(try HostThread { [self] in serve(worker) })
      } catch {
        throw .system("pthread_create", error)
      }
      state.threadless = nil
      state.workers.append(worker)
      return worker
    }
  }

  /// The body of a vCPU's thread.
  private func serve(_ worker: VCPUWorker) {
    guard var runner = worker.takeRunner() else { preconditionFailure("a vCPU with two threads") }
    runner.attachThread()
    while case .run(let task) = worker.receive() {
      let end = runner.run(task)
      if runner.isUsable { state.withLock { $0.idle.append(worker) } }
      task.finish(end)
      guard runner.isUsable else { break }
    }
    runner.detachThread()
  }

  /// Ends all threads. Called once; no task may be running, and none may be started afterwards.
  func close() {
    let (workers, threads) = state.withLock { state in
      defer {
        state.threads = []
        state.threadless = nil
      }
      return (state.workers, state.threads)
    }
    for worker in workers { worker.send(.finish) }
    for thread in threads { thread.join() }
  }

  var count: Int { state.withLock { $0.workers.count } }
}
