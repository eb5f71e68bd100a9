// From a vCPU exit to what it means for the task. Nothing is decided here.

internal import CGuestABI
internal import CKVM
internal import KVM

/// What a task did, or what happened to it.
enum GuestEvent {
  /// A page fault at CPL3. The address is CR2's.
  case pageFault(frame: ExceptionFrame, address: UInt64)
  /// A call; its number and arguments are in the registers.
  case call
  case rare(RareEvent)
}

/// What no task does often.
enum RareEvent {
  /// An exception other than a page fault.
  case exception(vector: UInt8, frame: ExceptionFrame)
  /// The interrupt that was queued arrived.
  case interrupt(frame: ExceptionFrame)
  /// Somebody kicked the vCPU.
  case kicked
  case interruptWindow
  /// Nothing a task can do at CPL3: the machine itself failed.
  case failure(VMExit)
}

enum ExitDecoder {
  static let pageFaultVector: UInt8 = 14

  /// Exceptions that push an error code: Intel SDM volume 3, table 6-1.
  private static let withErrorCode: UInt32 =
    1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21

  @inline(__always)
  static func decode(_ exit: VMExit, _ cpu: borrowing VirtualCPU, _ page: VCPUPage) -> GuestEvent {
    switch exit {
    case .portWrite(port: UInt16(PM_CALL_PORT)):
      return .call
    case .portWrite(port: SupervisorArea.exceptionPorts + UInt16(pageFaultVector)):
      let frame = page.exceptionFrame(hasErrorCode: true)
      guard frame.codeSegment & 3 == 3 else { return .rare(.failure(exit)) }
      return .pageFault(frame: frame, address: cpu.systemRegisters.cr2)
    case .portWrite(let port):
      return .rare(decodeRare(port, exit, page))
    case .interrupted: return .rare(.kicked)
    case .interruptWindow: return .rare(.interruptWindow)
    default: return .rare(.failure(exit))
    }
  }

  private static func decodeRare(_ port: UInt16, _ exit: VMExit, _ page: VCPUPage) -> RareEvent {
    if port == SupervisorArea.interruptPort { return .interrupt(frame: page.exceptionFrame(hasErrorCode: false)) }
    guard port >= SupervisorArea.exceptionPorts, port < SupervisorArea.interruptPort else { return .failure(exit) }
    let vector = UInt8(port - SupervisorArea.exceptionPorts)
    let frame = page.exceptionFrame(hasErrorCode: withErrorCode & 1 << UInt32(vector) != 0)
    guard frame.codeSegment & 3 == 3 else { return .failure(exit) }
    return .exception(vector: vector, frame: frame)
  }
}
