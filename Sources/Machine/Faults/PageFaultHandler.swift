// A page fault of a task: the server handles it, then the task's own handler; otherwise the task dies.
//
//      #PF ──▶ server.fault ──▶ served, spurious: retry the access
//                          ├──▶ not explained by the tables: the task dies with a report
//                          ├──▶ the task's pm_on_fault handler, at CPL3 on its own stack ──▶ returns: retry, or give up
//                          └──▶ no handler, or a fault in it: the task dies with a report

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
  /// The task's own protection keys denied the access.
  var isDeniedByKey: Bool { rawValue & 1 << 5 != 0 }
  var access: Access { rawValue & 1 << 4 != 0 ? .execute : rawValue & 1 << 1 != 0 ? .write : .read }
}

/// A fault that the task's handler is working on.
struct HandledFault {
  /// The registers at the fault.
  let interrupted: kvm_regs
  let fault: TaskFault
  /// The fault was at a pointer of a call: giving up means PM_EFAULT.
  let isCall: Bool
}

/// The task's fault handler, and the faults it is working on.
struct FaultHandlerState {
  var entry: UInt64 = 0
  var stackTop: UInt64 = 0
  /// The faults being handled at each `WaitLevel`: those of the task, and those of its pm_return_pages handler.
  var active: InlineArray<2, HandledFaults> = [HandledFaults(), HandledFaults()]
}

/// The faults of one level that the handler is working on.
struct HandledFaults {
  var first: HandledFault?
  /// A fault in the handler itself, possible in a task without a mapping cache: the handler's own pages may be unmapped
  /// too.
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

  /// Waits for the end of a lock that applies to the container's owner too, then retries the access.
  private mutating func waitForLock(_ frame: ExceptionFrame, _ deadline: UInt64) -> Continuation {
    resume(after: frame)
    samplePages = 0
    // The gate may have been opened for an upcall that the task has not been kicked for yet.
    if !upcall.hasWork(task.signal) {
      _ = waitInHost(upcall.canBegin) { machine.waiting.wait(task.gate, until: deadline) }
    }
    return endIfStopped() ?? announceUpcall()
  }

  /// Waits until other tasks have returned frames for page tables, then retries the access.
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
    // Served here, while the frames for the tables are available. If this fails, the next fault reports why.
    _ = machine.server.fault(task.slot, PageNumber(containing: address), access)
    return announceUpcall()
  }

  /// Continues after an exception. Setting the registers here is cheaper than letting the stub execute `iretq`, which
  /// is emulated where CPL0 is.
  @inline(__always)
  mutating func resume(after frame: ExceptionFrame) {
    cpu.registers.rip = frame.rip
    cpu.registers.rsp = frame.rsp
    cpu.registers.rflags = frame.flags
    enterUserMode()
  }

  /// Sets CS and SS of CPL3 and all changed registers at the next entry. TR is set too: KVM on SVM always reports it as
  /// a busy TSS, whatever it was set to (svm_get_segment in arch/x86/kvm/svm/svm.c).
  @inline(__always)
  mutating func enterUserMode() {
    cpu.systemRegisters.tr.type = template.tr.type
    cpu.systemRegisters.cs = template.cs
    cpu.systemRegisters.ss = template.ss
    cpu.useChangedRegisters()
    cpu.useChangedSystemRegisters()
  }

  /// Enters the task's fault handler, if it has one and may enter it.
  private mutating func deliverFault(_ frame: ExceptionFrame, _ fault: TaskFault) -> Continuation {
    resume(after: frame)
    if fault.address == SupervisorArea.systemCallEntry, fault.code.access == .execute, let end = systemCall() {
      return end
    }
    guard canHandleFault else { return .end(.died(report(.pageFault(fault)))) }
    enterHandler(fault, isCall: false)
    return .resume
  }

  /// Handles a `syscall` that the processor accepted: RCX holds the return address and R11 the flags. The task dies as
  /// if of #UD, as elsewhere with the same instruction.
  /// - Returns: nil if the task merely jumped to the same address.
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

  /// In a task without a mapping cache, lets the fault handler map a call's pointer again and repeats the call.
  /// - Returns: nil if the task has no handler that can be entered.
  mutating func deliverPointerFault() -> Continuation? {
    guard !task.keepsMappings, canHandleFault,
      let (address, access, outcome) = machine.server.takePointerFault(task.slot)
    else { return nil }
    // The handler must see the registers after the `out`, whether the vCPU has completed it or not.
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

  /// Saves the registers of the fault and sets those the handler starts with.
  private mutating func enterHandler(_ fault: TaskFault, isCall: Bool) {
    let stackTop = faultStackTop
    handler.active[level.rawValue].push(HandledFault(interrupted: cpu.registers, fault: fault, isCall: isCall))
    cpu.registers.rdi = fault.address
    cpu.registers.rsi = cpu.registers.rip
    cpu.registers.rdx = UInt64(fault.code.access.flag)
    // The server's view, not the processor's error code: the leaf may have been removed or installed since.
    cpu.registers.rcx = fault.outcome == .forbidden ? 1 : 0
    cpu.registers.rip = handler.entry
    cpu.registers.rsp = stackTop & ~15
    cpu.registers.rflags = VCPULoop.userFlags
  }

  private var canHandleFault: Bool {
    let active = handler.active[level.rawValue]
    return handler.entry != 0 && (active.isEmpty || !task.keepsMappings && active.nested == nil)
  }

  /// Where the fault handler's stack starts. A nested entry starts below the frames already on that stack and below the
  /// red zone: for a fault in the handler, or one in a pm_return_pages handler that interrupted it.
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
    // The fault may have been at this very call, which must be executed again then.
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
