// A page fault of a task: the server's, then the task's own, then the end.
//
//      #PF ──▶ server.fault ──▶ served, spurious: retry the access
//                          ├──▶ not explained by the tables: the task ends with a report
//                          └──▶ the task's pm_on_fault handler, at CPL3 on its own stack ──▶ returns: retry, or give up
//                          └──▶ no handler, or a fault in it: the task ends with a report

internal import CGuestABI
internal import CKVM
internal import GuestMemory
internal import KVM
internal import PhysicalMemory

/// The error code of a page fault: Intel SDM volume 3, 4.7.
struct PageFaultCode {
  let rawValue: UInt64
  init(rawValue: UInt64) { self.rawValue = rawValue }
  init(_ access: Access) { rawValue = access == .write ? 1 << 1 : access == .execute ? 1 << 4 : 0 }
  /// The task's own protection keys deny the access.
  var isDeniedByKey: Bool { rawValue & 1 << 5 != 0 }
  var access: Access { rawValue & 1 << 4 != 0 ? .execute : rawValue & 1 << 1 != 0 ? .write : .read }
}

/// A fault that the task's own handler works on.
struct HandledFault {
  /// The registers at the fault.
  let interrupted: kvm_regs
  let fault: TaskFault
  /// It was a pointer of a call: giving up means PM_EFAULT.
  let isCall: Bool
}

/// Where a task wants to handle its own faults, and what it is handling.
struct FaultHandlerState {
  var entry: UInt64 = 0
  var stackTop: UInt64 = 0
  /// What is being handled at each `WaitLevel`: the task's own, and what its pm_return_pages handler ran into.
  var active: InlineArray<2, HandledFaults> = [HandledFaults(), HandledFaults()]
}

/// The faults of one level that the handler works on.
struct HandledFaults {
  var first: HandledFault?
  /// A fault in the handler: where the server keeps no mappings, what the handler touches may have gone as well.
  var nested: HandledFault?

  var isEmpty: Bool { first == nil }
  var innermost: HandledFault? { nested ?? first }

  mutating func push(_ fault: HandledFault) { if first == nil { first = fault } else { nested = fault } }
  mutating func pop() { if nested == nil { first = nil } else { nested = nil } }
}

extension VCPULoop {
  @inline(__always)
  mutating func handlePageFault(_ frame: ExceptionFrame, _ address: UInt64) -> Continuation {
    let code = PageFaultCode(rawValue: frame.errorCode)
    let outcome = machine.server.fault(task.slot, PageNumber(containing: address), code.access)
    switch outcome {
    case .served(let pages):
      samplePages = pages
      resume(after: frame)
      return .resume
    case .spurious where !code.isDeniedByKey:
      samplePages = 0
      resume(after: frame)
      return .resume
    case .spurious, .unexplained:
      samplePages = 0
      resume(after: frame)
      return .end(.died(report(.pageFault(TaskFault(address: address, code: code, outcome: .unexplained)))))
    case .locked(let deadline): return waitForLock(frame, deadline)
    case .waitForFrames: return waitForFrames(frame, address, code.access)
    case .notMapped, .forbidden, .noMemory:
      samplePages = 0
      return deliverFault(frame, TaskFault(address: address, code: code, outcome: outcome))
    }
  }

  /// The container is locked against its owner: the access waits for the lock's end, and is tried again.
  private mutating func waitForLock(_ frame: ExceptionFrame, _ deadline: UInt64) -> Continuation {
    resume(after: frame)
    samplePages = 0
    // The gate may have been gone through for an upcall that the task was not kicked for yet.
    if !upcall.hasWork(task.signal) {
      _ = waitInHost(upcall.canBegin) { machine.waiting.wait(task.gate, until: deadline) }
    }
    return endIfStopped() ?? announceUpcall()
  }

  /// Other tasks are to give frames back for page tables: the access waits for them, and is tried again.
  private mutating func waitForFrames(
    _ frame: ExceptionFrame, _ address: UInt64, _ access: Access
  ) -> Continuation {
    resume(after: frame)
    samplePages = 0
    defer { machine.server.endRequest(task.slot) }
    while case .waiting(let until) = machine.server.frameWait(task.slot) {
      if task.signal.hasUpcall, upcall.canBegin { return announceUpcall() }
      _ = waitInHost(upcall.canBegin) { machine.waiting.wait(task.gate, until: until) }
      if let end = endIfStopped() { return end }
    }
    // Here, where the frames for the tables are at hand. If it cannot be served, the next fault says why.
    _ = machine.server.fault(task.slot, PageNumber(containing: address), access)
    return announceUpcall()
  }

  /// Goes on where the exception happened. Setting the registers here is cheaper than letting the stub run `iretq`,
  /// which is emulated where CPL0 is.
  @inline(__always)
  mutating func resume(after frame: ExceptionFrame) {
    cpu.registers.rip = frame.rip
    cpu.registers.rsp = frame.rsp
    cpu.registers.rflags = frame.flags
    enterUserMode()
  }

  /// CS and SS of CPL3, and all changed registers, at the next entry. TR goes with them: as KVM reports it, it has the
  /// type of a busy TSS whatever it was set to (svm_get_segment in arch/x86/kvm/svm/svm.c).
  @inline(__always)
  mutating func enterUserMode() {
    cpu.systemRegisters.tr.type = template.tr.type
    cpu.systemRegisters.cs = template.cs
    cpu.systemRegisters.ss = template.ss
    cpu.useChangedRegisters()
    cpu.useChangedSystemRegisters()
  }

  /// The task's own handler, if it has one and may enter it.
  private mutating func deliverFault(_ frame: ExceptionFrame, _ fault: TaskFault) -> Continuation {
    resume(after: frame)
    if fault.address == SupervisorArea.systemCallEntry, fault.code.access == .execute, let end = systemCall() {
      return end
    }
    guard canHandleFault else { return .end(.died(report(.pageFault(fault)))) }
    enterHandler(fault, isCall: false)
    return .resume
  }

  /// The task executed `syscall`, and the processor took it, so that the way back is in RCX and RFLAGS are in R11. It ends
  /// where #UD would have ended it, elsewhere with the same instruction. nil: it only jumped to the same address.
  private mutating func systemCall() -> Continuation? {
    let instruction = cpu.registers.rcx &- 2
    var code = [UInt8](repeating: 0, count: 2)
    guard (try? machine.server.readMemory(task.slot, GuestAddress(instruction), into: &code)) != nil,
      code == [0x0f, 0x05]
    else {
      return nil
    }
    cpu.registers.rip = instruction
    cpu.registers.rflags = cpu.registers.r11
    return .end(.died(report(.exception(vector: 6, errorCode: 0))))
  }

  /// A server without a mapping cache leaves it to the task to map again what a call points to, and the call is made
  /// again. nil: there is nobody to ask.
  mutating func deliverPointerFault() -> Continuation? {
    guard !task.keepsMappings, canHandleFault,
      let (address, access, outcome) = machine.server.takePointerFault(task.slot)
    else { return nil }
    // The registers behind the `out`, whether the processor has come there yet or not.
    if let end = finishExit() { return end }
    var code = [UInt8](repeating: 0, count: 1)
    guard (try? machine.server.readMemory(task.slot, GuestAddress(cpu.registers.rip &- 2), into: &code)) != nil,
      code[0] == 0xe6
    else {
      return nil
    }
    cpu.registers.rip &-= 2
    enterHandler(TaskFault(address: address, code: PageFaultCode(access), outcome: outcome), isCall: true)
    cpu.useChangedRegisters()
    return .resume
  }

  /// Saves the registers, which are those of the fault, and sets those that the handler begins with.
  private mutating func enterHandler(_ fault: TaskFault, isCall: Bool) {
    let stackTop = faultStackTop
    handler.active[level.rawValue].push(HandledFault(interrupted: cpu.registers, fault: fault, isCall: isCall))
    cpu.registers.rdi = fault.address
    cpu.registers.rsi = cpu.registers.rip
    cpu.registers.rdx = UInt64(fault.code.access.flag)
    // Not what the processor saw: the leaf may have gone since, or come, and neither is the task's affair.
    cpu.registers.rcx = fault.outcome == .forbidden ? 1 : 0
    cpu.registers.rip = handler.entry
    cpu.registers.rsp = stackTop & ~15
    cpu.registers.rflags = VCPULoop.userFlags
  }

  private var canHandleFault: Bool {
    let active = handler.active[level.rawValue]
    return handler.entry != 0 && (active.isEmpty || !task.keepsMappings && active.nested == nil)
  }

  /// Where the fault handler begins. Where it is entered once more, that is below what it has on its stack, and below what
  /// it may keep under its stack pointer: for a fault in it, or for one of a pm_return_pages handler that interrupts it.
  private var faultStackTop: UInt64 {
    if !handler.active[level.rawValue].isEmpty { return cpu.registers.rsp &- 128 }
    guard let interrupted = upcall.interrupted, !handler.active[WaitLevel.task.rawValue].isEmpty else {
      return handler.stackTop
    }
    return interrupted.rsp &- 128
  }

  mutating func setFaultHandler(_ entry: UInt64, _ stackTop: UInt64) -> Continuation {
    let isUser = entry < PM_USER_END && stackTop <= PM_USER_END
    if isUser {
      handler.entry = entry
      handler.stackTop = stackTop
    }
    cpu.registers.rax = UInt64((isUser ? PM_OK : PM_EINVAL).rawValue)
    cpu.useChangedRegisters()
    return .resume
  }

  mutating func returnFromFaultHandler(_ status: UInt64) -> Continuation {
    guard let handled = handler.active[level.rawValue].innermost else {
      cpu.registers.rax = UInt64(PM_EINVAL.rawValue)
      cpu.useChangedRegisters()
      return .resume
    }
    // The fault may have been at the very instruction that made this call, and that is to be executed then.
    if cpu.registers.rip == handled.interrupted.rip, let end = finishExit() { return end }
    handler.active[level.rawValue].pop()
    cpu.registers = handled.interrupted
    cpu.useChangedRegisters()
    if handled.isCall, status != 0 {
      cpu.registers.rip &+= 2
      cpu.registers.rax = UInt64(PM_EFAULT.rawValue)
      return .resume
    }
    return status == 0 ? .resume : .end(.died(report(.pageFault(handled.fault))))
  }
}

extension Access {
  /// As in `struct pm_fault`.
  var flag: UInt32 {
    switch self {
    case .read: UInt32(PM_ACCESS_READ)
    case .write: UInt32(PM_ACCESS_WRITE)
    case .execute: UInt32(PM_ACCESS_EXECUTE)
    }
  }
}
