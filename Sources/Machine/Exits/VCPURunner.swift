// A vCPU between tasks: it takes one after the other, and hands nothing of one to the next.

internal import CKVM
internal import GuestMemory
internal import KVM
internal import PhysicalMemory

struct VCPURunner: ~Copyable {
  private var cpu: VirtualCPU?
  private let handle: VirtualCPUHandle
  private let page: VCPUPage
  private let template: kvm_sregs
  private let machine: Machine
  /// Whether tasks can change the protection keys of this vCPU. Nil: that has not been tried.
  private var hasProtectionKeys: Bool? = HostProcessor.hasProtectionKeys ? nil : false

  init(_ machine: Machine, index: Int, frame: FrameNumber) throws(MachineError) {
    let cpu: VirtualCPU
    do throws(MachineError) {
      cpu = try Self.makeCPU(machine, index)
    } catch {
      machine.server.giveMachineFrame(frame)
      throw error
    }
    self.init(cpu, machine.supervisor.addVCPUPage(index, frame), machine, index: index)
  }

  private init(_ cpu: consuming VirtualCPU, _ page: VCPUPage, _ machine: Machine, index: Int) {
    handle = cpu.handle
    template = StartState.template(
      cpu, index: index, machine: machine.virtualMachine, protectionKeys: machine.configuration.hasProtectionKeys)
    self.page = page
    self.machine = machine
    self.cpu = .some(cpu)
  }

  private static func makeCPU(_ machine: Machine, _ index: Int) throws(MachineError) -> VirtualCPU {
    do throws(KVMError) {
      let cpu = try VirtualCPU(machine.virtualMachine, index: index)
      try cpu.readSystemRegisters()
      try StartState.setModelSpecificRegisters(cpu, processorNumber: machine.configuration.processorNumber)
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
    HostProcessor.clearSelectors()
    if hasProtectionKeys != false {
      hasProtectionKeys = resetProtectionKeys(cpu, task.slot)
      guard hasProtectionKeys != nil else {
        takeBack(task)
        return .failed("the vCPU's protection keys cannot be cleared")
      }
    }
    var loop = VCPULoop(cpu: cpu, page: page, template: template, machine: machine, task: task)
    machine.waiting.threadRuns()
    let end = loop.run()
    task.beginEnd()
    machine.waiting.threadWaits()
    let used = loop.finish()
    // Before the address space goes: what the last exit left open may be a write to it, and the next task in the slot
    // would find that in its own memory.
    let isReset = Self.reset(used)
    takeBack(task)
    if isReset { self.cpu = consume used }
    return end
  }

  /// Takes back all that an ended task held.
  private func takeBack(_ task: GuestTask) {
    task.keep(machine.server.taskInformation(task.slot).counters)
    if machine.configuration.keepsFragmentation { task.keep(machine.server.fragmentation) }
    machine.devices.leave(TaskReference(slot: task.slot, id: task.id))
    machine.server.endTask(task.slot) { deadline in task.gate.wait(until: deadline) }
    machine.taskEnded(task)
  }

  /// Clears PKRU by the one way that works whatever KVM makes of it: the vCPU itself executes WRPKRU at CPL3. Where tasks
  /// have no protection keys that is an invalid instruction, and there is nothing to clear.
  /// - Returns: whether they have; nil: neither, and the vCPU must never run again.
  private func resetProtectionKeys(_ cpu: borrowing VirtualCPU, _ slot: TaskSlot) -> Bool? {
    cpu.registers = kvm_regs()
    cpu.registers.rip = SupervisorArea.keyReset
    cpu.registers.rflags = VCPULoop.userFlags
    cpu.systemRegisters = template
    cpu.systemRegisters.cr3 = machine.roots[slot].address
    cpu.useChangedRegisters()
    cpu.useChangedSystemRegisters()
    do throws(KVMError) {
      var exit = try cpu.enter()
      // A kick that was meant for the task before.
      while exit == .interrupted { exit = try cpu.enter() }
      try cpu.completePendingExit()
      switch ExitDecoder.decode(exit, cpu, page) {
      case .call: return true
      case .rare(.exception(vector: 6, _)): return false
      default: return nil
      }
    } catch {
      return nil
    }
  }

  /// False: what the vCPU would do next is not known, and it must never run again.
  private static func reset(_ cpu: borrowing VirtualCPU) -> Bool {
    do throws(KVMError) {
      try cpu.completePendingExit()
      try cpu.resetForNextTask()
      return true
    } catch {
      return false
    }
  }
}
