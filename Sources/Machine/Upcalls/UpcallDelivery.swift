// Upcalls. They tell a task that frames are demanded (pm_return_pages, R28, R29), and of its devices' interrupts.
//
//      server.raiseUpcall, device ──▶ TaskSignal ──▶ kick, gate ──▶ announceUpcall: queues an interrupt, at once or
//      when the vCPU can take it ──▶ stub ──▶ takeUpcall: the task continues in its handler, on its upcall stack
//      ──▶ PM_CALL_UPCALL_RETURN ──▶ returnFromUpcall: the task continues where it was, or waits on
//
// Lifecycle of an upcall:
//  1. raised: `TaskSignal.hasUpcall`, `hasInterrupt`. It stays raised while the task has no handler for it, runs one of
//     its two handlers, or waits for frames.
//  2. queued: KVM has the interrupt, and delivers it before the task's next instruction.
//  3. running: `interrupted` holds the registers to restore. Upcalls raised meanwhile are delivered after it returns.

internal import CGuestABI
internal import CKVM
internal import KVM
internal import PhysicalMemory

/// A handler that the task has set.
struct UpcallHandler {
  /// 0: none.
  var entry: UInt64 = 0
  var stackTop: UInt64 = 0
}

/// The upcall handlers of a task, and the state of delivery.
struct UpcallState {
  var returnPages = UpcallHandler()
  var interrupts = UpcallHandler()
  var isQueued = false
  /// The general registers, RIP, RSP and RFLAGS that the running handler interrupted; nil: no handler runs.
  var interrupted: kvm_regs?
  /// An interrupted wait, which continues after the handler. The registers then are those after its call.
  var wait: HostWait?

  /// Whether the task has a pm_return_pages handler and no handler is running.
  var canBegin: Bool { returnPages.entry != 0 && interrupted == nil }

  /// Whether a raised upcall can be delivered to the task now.
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
    // Frames may already be demanded.
    return announceUpcall()
  }

  mutating func setInterruptHandler(_ entry: UInt64, _ stackTop: UInt64) -> Continuation {
    guard entry < PM_USER_END, stackTop <= PM_USER_END else { return answer(PM_EINVAL) }
    upcall.interrupts = UpcallHandler(entry: entry, stackTop: stackTop)
    task.signal.handleInterrupts(entry != 0)
    _ = answer(PM_OK)
    return announceUpcall()
  }

  /// Queues the interrupt for a raised upcall if the task can take one. If the vCPU cannot take it yet, requests an
  /// exit when it can.
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

  /// Clears an interrupt that has arrived. After a kick, KVM may still hold it as queued, and would deliver it again.
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

  /// Enters the handler. The interrupt has arrived, and the registers are those it interrupted.
  mutating func takeUpcall() -> Continuation {
    upcall.isQueued = false
    // KVM delivered one interrupt twice.
    guard upcall.interrupted == nil else { return .resume }
    // Frames first, because demands have a deadline. Interrupts follow when the handler has returned.
    if upcall.canBegin, task.signal.hasUpcall {
      let pretended = task.signal.acceptUpcall()
      let count = machine.server.takeReturnRequest(task.slot) + pretended
      // The frames may have been returned meanwhile.
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
    // The interrupted instruction may be this very call; it must be executed again then.
    if cpu.registers.rip == interrupted.rip, let end = finishExit() { return end }
    upcall.interrupted = nil
    cpu.registers = interrupted
    cpu.useChangedRegisters()
    return continueInterrupted()
  }

  private mutating func continueInterrupted() -> Continuation {
    guard let wait = upcall.wait.take() else { return announceUpcall() }
    // The handler may have waited too, and closed the gate that was opened for the task.
    if wait.subject == .answer, case .finished(let error) = machine.server.waitOutcome(task.slot, at: level) {
      return answer(error)
    }
    return goOnWaiting(wait)
  }

  /// Lets an upcall interrupt a wait. The vCPU enters the task after the waiting call, and takes the interrupt at once.
  /// - Returns: nil if the vCPU cannot take the interrupt there, for example because an exception comes first.
  mutating func interrupt(_ wait: HostWait) -> Continuation? {
    if let end = finishExit() { return end }
    guard upcall.isQueued else {
      cpu.requestInterruptWindow(false)
      return nil
    }
    upcall.wait = wait
    return .resume
  }

  /// Completes a pending exit's `out` before the registers are replaced; otherwise it would take effect on the new
  /// ones.
  mutating func finishExit() -> Continuation? {
    do throws(KVMError) {
      try cpu.completePendingExit()
    } catch {
      return .end(.failed("\(error)"))
    }
    // Completing the exit may have consumed a kick.
    if let end = endIfStopped() { return end }
    if case .end(let end) = announceUpcall() { return .end(end) }
    return nil
  }
}
