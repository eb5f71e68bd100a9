// pm_return_pages: how a task is told that frames are asked back (R28, R29).
//
//      server.raiseUpcall ──▶ TaskSignal ──▶ kick, gate ──▶ announceUpcall: an interrupt is queued, at once or when the
//      vCPU can take it ──▶ stub ──▶ takeUpcall: the task continues in its handler, on its upcall stack
//      ──▶ PM_CALL_UPCALL_RETURN ──▶ returnFromUpcall: it continues where it was, or waits on
//
// The life of an upcall in a task:
//  1. raised: `TaskSignal.hasUpcall`. It stays so while the task has no handler, or is in it, or waits for frames.
//  2. queued: the interrupt is KVM's, and arrives before the task's next instruction.
//  3. running: `interrupted` has the registers to put back. What is raised now is told when the handler has returned.

internal import CGuestABI
internal import CKVM
internal import KVM
internal import PhysicalMemory

struct UpcallState {
  var entry: UInt64 = 0
  var stackTop: UInt64 = 0
  var isQueued = false
  /// Of the running handler: the general registers, RIP, RSP and RFLAGS of what it interrupted.
  var interrupted: kvm_regs?
  /// A wait that was interrupted, and goes on afterwards. The registers are those behind its call then.
  var wait: HostWait?

  /// There is a handler, and it is not running.
  var canBegin: Bool { entry != 0 && interrupted == nil }
}

extension VCPULoop {
  /// Whether the task itself runs, or its pm_return_pages handler.
  @inline(__always)
  var level: WaitLevel { upcall.interrupted == nil ? .task : .handler }

  mutating func setUpcallHandler(_ entry: UInt64, _ stackTop: UInt64) -> Continuation {
    guard entry < PM_USER_END, stackTop <= PM_USER_END else { return answer(PM_EINVAL) }
    upcall.entry = entry
    upcall.stackTop = stackTop
    _ = answer(PM_OK)
    // Frames may be asked for already.
    return announceUpcall()
  }

  /// Queues the interrupt for a raised upcall, if the task can take one; if the vCPU cannot yet, it says when it can.
  mutating func announceUpcall() -> Continuation {
    guard task.signal.hasUpcall, upcall.canBegin, !upcall.isQueued else { return .resume }
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
    guard upcall.canBegin else { return .resume }
    let pretended = task.signal.acceptUpcall()
    let count = machine.server.takeReturnRequest(task.slot) + pretended
    // What was asked for may have come back meanwhile.
    guard count > 0 else { return continueInterrupted() }
    upcall.interrupted = cpu.registers
    cpu.registers.rdi = UInt64(count)
    cpu.registers.rip = upcall.entry
    cpu.registers.rsp = upcall.stackTop & ~15
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
