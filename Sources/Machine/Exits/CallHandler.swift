// Calls of a task. Calls about the vCPU are handled here; all others go to the server's driver of calls. RAX receives
// the result.

internal import CGuestABI
internal import CKVM
internal import KVM
internal import PhysicalMemory

/// The numbers of `pm_call` that the machine handles. `ServerCallNumber` has the server's. A test compares both with
/// the header.
package enum MachineCall: UInt32, CaseIterable {
  case null = 0
  case exit = 1
  case write = 2
  case clock = 3
  case sleep = 4
  case onFault = 0x70
  case faultReturn = 0x71
  case onReturnPages = 0x72
  case upcallReturn = 0x73
  case onInterrupt = 0x74
  case interruptWait = 0x75
  case deviceClaim = 0x90
  case deviceRelease = 0x91
  case deviceRead = 0x92
  case deviceWrite = 0x93
  case deviceInfo = 0x94
}

extension VCPULoop {
  /// Performs the call in the registers and stores its result, if the call returns.
  mutating func handleCall() -> Continuation {
    // Only EAX is the number: programs leave anything in the upper half of RAX.
    let number = UInt32(truncatingIfNeeded: cpu.registers.rax)
    let arguments = CallArguments(
      cpu.registers.rdi, cpu.registers.rsi, cpu.registers.rdx, cpu.registers.rcx, cpu.registers.r8, cpu.registers.r9)
    if let call = MachineCall(rawValue: number) { return perform(call, arguments) }
    guard let call = ServerCallNumber(rawValue: number) else { return answer(PM_EINVAL) }
    let (server, slot, level) = (machine.server, task.slot, level)
    return carryOut { () throws(CallFailure) in try server.attempt(call, arguments, for: slot, at: level) }
  }

  private mutating func perform(_ call: MachineCall, _ arguments: CallArguments) -> Continuation {
    let (a, b, _, _, _, _) = arguments.words
    let hosted = HostedCall(machine: machine, task: task, arguments: arguments)
    switch call {
    case .null: return answer(PM_OK)
    case .exit: return .end(.exited(status: UInt8(truncatingIfNeeded: a)))
    case .sleep: return goOnWaiting(HostWait(subject: .time, deadline: Self.deadline(a)))
    case .onFault: return setFaultHandler(a, b)
    case .faultReturn: return returnFromFaultHandler(a)
    case .onReturnPages: return setUpcallHandler(a, b)
    case .upcallReturn: return returnFromUpcall()
    case .onInterrupt: return setInterruptHandler(a, b)
    case .interruptWait:
      // The interrupt handler would take the interrupt that the wait is for.
      guard upcall.interrupts.entry == 0 else { return answer(PM_EBUSY) }
      return goOnWaiting(HostWait(subject: .interrupt, deadline: Self.deadline(a)))
    case .write: return carryOut(hosted.write)
    case .clock: return carryOut(hosted.clock)
    case .deviceInfo: return carryOut(hosted.deviceInfo)
    case .deviceClaim: return carryOut(hosted.deviceClaim)
    case .deviceRelease: return carryOut(hosted.deviceRelease)
    case .deviceRead: return carryOut(hosted.deviceRead)
    case .deviceWrite: return carryOut(hosted.deviceWrite)
    }
  }

  /// Attempts a call until it completes, and stores its result.
  private mutating func carryOut(_ attempt: () throws(CallFailure) -> CallProgress) -> Continuation {
    let (machine, task) = (machine, task)
    let outcome = machine.server.carryOut(for: task.slot, attempt) { until in
      // Upcalls are deferred until the call completes.
      _ = machine.waiting.wait(task.gate, until: until)
      return !task.signal.mustStop
    }
    switch outcome {
    case .answer(.fault): return deliverPointerFault() ?? answer(PM_EFAULT)
    case .answer(let error): return answer(error)
    case .waits(let microseconds):
      return goOnWaiting(HostWait(subject: .answer, deadline: Self.deadline(microseconds)))
    case .stopped: return endIfStopped() ?? .end(.failed("a call ended without an answer"))
    }
  }

  mutating func answer(_ error: ServerError?) -> Continuation {
    answer(error.map { pm_error($0.rawValue) } ?? PM_OK)
  }

  /// Stores the result in the caller's RAX.
  @inline(__always)
  mutating func answer(_ error: pm_error) -> Continuation {
    cpu.registers.rax = UInt64(error.rawValue)
    cpu.useChangedRegisters()
    return .resume
  }

  /// The time so many microseconds from now, in nanoseconds of the monotonic clock; nil: never.
  static func deadline(_ microseconds: UInt64) -> UInt64? {
    let (nanoseconds, overflow) = microseconds.multipliedReportingOverflow(by: 1000)
    let now = monotonicNanoseconds()
    return overflow || nanoseconds > .max - now ? nil : now + nanoseconds
  }
}
