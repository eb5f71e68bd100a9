// Runs tasks on a vCPU, one after another, and clears all state between them.

internal import CKVM
internal import GuestMemory
internal import KVM
internal import PhysicalMemory

/// A vCPU between tasks, owned by its thread.
struct VCPURunner: ~Copyable {
  private var cpu: VirtualCPU?
  private let handle: VirtualCPUHandle
  private let page: VCPUPage
  private let template: kvm_sregs
  private let machine: Machine
  /// Whether tasks can change this vCPU's protection keys. Nil: not probed yet.
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

  /// False after a failure that leaves the vCPU's state unknown.
  var isUsable: Bool { cpu != nil }

  func attachThread() { handle.attachThread() }
  func detachThread() { handle.detachThread() }

  /// Runs a task to its end and takes back all its resources.
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
    // The vCPU is reset before the address space goes: completing the last exit may write to guest memory, and the
    // slot's next task would find that write in its own.
    let isReset = Self.reset(used)
    takeBack(task)
    if isReset { self.cpu = consume used }
    return end
  }

  /// Takes back all resources of an ended task.
  private func takeBack(_ task: GuestTask) {
    task.keep(machine.server.taskInformation(task.slot).counters)
    if machine.configuration.keepsFragmentation { task.keep(machine.server.fragmentation) }
    machine.devices.leave(TaskReference(slot: task.slot, id: task.id))
    machine.server.endTask(task.slot) { deadline in task.gate.wait(until: deadline) }
    machine.taskEnded(task)
  }

  /// Clears PKRU in the only way that works on every KVM: the vCPU itself executes WRPKRU at CPL3. If tasks have no
  /// protection keys, WRPKRU is an invalid instruction and there is nothing to clear.
  /// - Returns: whether tasks have protection keys; nil if the outcome is neither, and the vCPU must not be used again.
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
      // A kick meant for the previous task.
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

  /// Resets the vCPU's state.
  /// - Returns: false if its state is unknown and it must not run again.
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
