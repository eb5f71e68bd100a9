// Upcalls: how a task is told that frames are asked back (pm_return_pages, R28, R29), and of interrupts of its devices.
//
//      server.raiseUpcall, device ──▶ TaskSignal ──▶ kick, gate ──▶ announceUpcall: an interrupt is queued, at once or when the
//      vCPU can take it ──▶ stub ──▶ takeUpcall: the task continues in its handler, on its upcall stack
//      ──▶ PM_CALL_UPCALL_RETURN ──▶ returnFromUpcall: it continues where it was, or waits on
//
// The life of an upcall in a task:
//  1. raised: `TaskSignal.hasUpcall`, `hasInterrupt`. It stays so while the task has no handler for it, or is in one of
//     its two handlers, or waits for frames.
//  2. queued: the interrupt is KVM's, and arrives before the task's next instruction.
//  3. running: `interrupted` has the registers to put back. What is raised now is told when the handler has returned.

internal import CGuestABI
internal import CKVM
internal import KVM
internal import PhysicalMemory

struct UpcallHandler {
  /// 0: none.
  var entry: UInt64 = 0
  var stackTop: UInt64 = 0
}

struct UpcallState {
  var returnPages = UpcallHandler()
  var interrupts = UpcallHandler()
  var isQueued = false
  /// Of the running handler: the general registers, RIP, RSP and RFLAGS of what it interrupted.
  var interrupted: kvm_regs?
  /// A wait that was interrupted, and goes on afterwards. The registers are those behind its call then.
  var wait: HostWait?

  /// There is a pm_return_pages handler, and no handler is running.
  var canBegin: Bool { returnPages.entry != 0 && interrupted == nil }

  /// Something was raised that the task can be told of now.
  func hasWork(_ signal: TaskSignal) -> Bool {
    guard interrupted == nil else { return false }
    return signal.hasUpcall && returnPages.entry != 0 || signal.hasInterrupt && interrupts.entry != 0
  }
}

extension VCPULoop {
  /// Whether the task itself runs, or one of its upcall handlers.
  @inline(__always)
  var level: WaitLevel { upcall.interrupted == nil ? .task : .handler }

  mutating func setUpcallHandler(_ entry: UInt64, _ stackTop: UInt64) -> Continuation {
    guard entry < PM_USER_END, stackTop <= PM_USER_END else { return answer(PM_EINVAL) }
    upcall.returnPages = UpcallHandler(entry: entry, stackTop: stackTop)
    _ = answer(PM_OK)
    // Frames may be asked for already.
    return announceUpcall()
  }

  mutating func setInterruptHandler(_ entry: UInt64, _ stackTop: UInt64) -> Continuation {
    guard entry < PM_USER_END, stackTop <= PM_USER_END else { return answer(PM_EINVAL) }
    upcall.interrupts = UpcallHandler(entry: entry, stackTop: stackTop)
    task.signal.handleInterrupts(entry != 0)
    _ = answer(PM_OK)
    return announceUpcall()
  }

  /// Queues the interrupt for a raised upcall, if the task can take one; if the vCPU cannot yet, it says when it can.
  mutating func announceUpcall() -> Continuation {
    guard upcall.hasWork(task.signal), !upcall.isQueued else { return .resume }
    guard cpu.isReadyForInterrupt else {
      cpu.requestInterruptWindow(true)
      return .resume
    }
    do throws(KVMError) {
      try cpu.queueInterrupt(vector: SupervisorArea.interruptVector)
    } catch {
      return .end(.failed("\(error)"))
    }
    upcall.isQueued = true
    cpu.requestInterruptWindow(false)
    return .resume
  }

  /// Where a kick came between, KVM may have an interrupt as queued still that has arrived, and would deliver it again.
  mutating func forgetDelivered() -> Continuation? {
    guard cpu.systemRegisters.interrupt_bitmap.0 != 0 else { return nil }
    cpu.systemRegisters.interrupt_bitmap.0 = 0
    do throws(KVMError) {
      try cpu.forgetPendingEvents()
      return nil
    } catch {
      return .end(.failed("\(error)"))
    }
  }

  /// The interrupt has arrived, and the registers are those of what it interrupted.
  mutating func takeUpcall() -> Continuation {
    upcall.isQueued = false
    // One that KVM delivered twice.
    guard upcall.interrupted == nil else { return .resume }
    // Frames first: they have a deadline. What else there is follows when the handler has returned.
    if upcall.canBegin, task.signal.hasUpcall {
      let pretended = task.signal.acceptUpcall()
      let count = machine.server.takeReturnRequest(task.slot) + pretended
      // What was asked for may have come back meanwhile.
      if count > 0 { return enter(upcall.returnPages, UInt64(count)) }
    }
    if upcall.interrupts.entry != 0 {
      let devices = task.signal.acceptInterrupts()
      if devices != 0 { return enter(upcall.interrupts, devices) }
    }
    return continueInterrupted()
  }

  private mutating func enter(_ handler: UpcallHandler, _ argument: UInt64) -> Continuation {
    upcall.interrupted = cpu.registers
    cpu.registers.rdi = argument
    cpu.registers.rip = handler.entry
    cpu.registers.rsp = handler.stackTop & ~15
    cpu.registers.rflags = VCPULoop.userFlags
    return .resume
  }

  mutating func returnFromUpcall() -> Continuation {
    guard let interrupted = upcall.interrupted, handler.active[WaitLevel.handler.rawValue].isEmpty else {
      return answer(PM_EINVAL)
    }
    // The very instruction that made this call may have been interrupted, and is to be executed then.
    if cpu.registers.rip == interrupted.rip, let end = finishExit() { return end }
    upcall.interrupted = nil
    cpu.registers = interrupted
    cpu.useChangedRegisters()
    return continueInterrupted()
  }

  private mutating func continueInterrupted() -> Continuation {
    guard let wait = upcall.wait.take() else { return announceUpcall() }
    // The handler may have waited as well, and gone through the gate that was opened for the task itself.
    if wait.subject == .answer, case .finished(let error) = machine.server.waitOutcome(task.slot, at: level) {
      return answer(error)
    }
    return goOnWaiting(wait)
  }

  /// Lets a wait be interrupted: the task is entered behind the call that waits, where the interrupt is taken at once.
  /// - Returns: nil: the vCPU cannot take it there, as when an exception comes first.
  mutating func interrupt(_ wait: HostWait) -> Continuation? {
    if let end = finishExit() { return end }
    guard upcall.isQueued else {
      cpu.requestInterruptWindow(false)
      return nil
    }
    upcall.wait = wait
    return .resume
  }

  /// Finishes the `out` of a call, before registers are set to where that would act once more.
  mutating func finishExit() -> Continuation? {
    do throws(KVMError) {
      try cpu.completePendingExit()
    } catch {
      return .end(.failed("\(error)"))
    }
    // It may have taken a kick for its own.
    if let end = endIfStopped() { return end }
    if case .end(let end) = announceUpcall() { return .end(end) }
    return nil
  }
}
