// A vCPU between tasks: it takes one after the other, and hands nothing of one to the next.

internal import CKVM
internal import KVM
internal import PhysicalMemory

struct VCPURunner: ~Copyable {
  private var cpu: VirtualCPU?
  private let handle: VirtualCPUHandle
  private let page: VCPUPage
  private let template: kvm_sregs
  private let machine: Machine

  init(_ machine: Machine, index: Int) throws(MachineError) {
    guard let frame = machine.server.takeMachineFrame() else { throw .noMemory("a vCPU") }
    self.init(try Self.makeCPU(machine, index), machine.supervisor.addVCPUPage(index, frame), machine, index: index)
  }

  private init(_ cpu: consuming VirtualCPU, _ page: VCPUPage, _ machine: Machine, index: Int) {
    handle = cpu.handle
    template = StartState.template(cpu, index: index, machine: machine.virtualMachine)
    self.page = page
    self.machine = machine
    self.cpu = .some(cpu)
  }

  private static func makeCPU(_ machine: Machine, _ index: Int) throws(MachineError) -> VirtualCPU {
    do throws(KVMError) {
      let cpu = try VirtualCPU(machine.virtualMachine, index: index)
      try cpu.readSystemRegisters()
      return cpu
    } catch {
      throw .kvm(error)
    }
  }

  /// False once the vCPU failed in a way that leaves its state unknown.
  var isUsable: Bool { cpu != nil }

  func attachThread() { handle.attachThread() }
  func detachThread() { handle.detachThread() }

  /// Runs a task to its end and takes back all it held.
  mutating func run(_ task: GuestTask) -> TaskEnd {
    guard let cpu = cpu.take() else { return .failed("the vCPU is not usable") }
    var loop = VCPULoop(cpu: cpu, page: page, template: template, machine: machine, task: task)
    machine.waiting.threadRuns()
    let end = loop.run()
    machine.waiting.threadWaits()
    var used = loop.finish()
    task.keep(machine.server.taskInformation(task.slot).counters)
    machine.server.endTask(task.slot) { deadline in task.gate.wait(until: deadline) }
    machine.taskEnded(task)
    if Self.reset(&used) { self.cpu = consume used }
    return end
  }

  private static func reset(_ cpu: inout VirtualCPU) -> Bool {
    do throws(KVMError) {
      // An `out` whose exit ended the task is otherwise skipped over at the next task's first entry.
      try cpu.completePendingExit()
      try cpu.resetForNextTask()
      return true
    } catch {
      return false
    }
  }
}
