// Decodes a vCPU exit into an event of the task. Makes no decisions.

internal import CGuestABI
internal import CKVM
internal import KVM

/// An action of a task, or an event that reached it.
enum GuestEvent {
  /// A page fault at CPL3, with the address from CR2.
  case pageFault(frame: ExceptionFrame, address: UInt64)
  /// A call. The registers hold its number and arguments.
  case call
  case rare(RareEvent)
}

/// Events off the hot path.
enum RareEvent {
  /// An exception other than a page fault.
  case exception(vector: UInt8, frame: ExceptionFrame)
  /// The queued interrupt arrived.
  case interrupt(frame: ExceptionFrame)
  /// Another thread kicked the vCPU.
  case kicked
  case interruptWindow
  /// The machine itself failed: no task can cause this at CPL3.
  case failure(VMExit)
}

/// Turns a `VMExit` into a `GuestEvent`.
enum ExitDecoder {
  static let pageFaultVector: UInt8 = 14

  /// A bit for each exception that pushes an error code (Intel SDM volume 3, table 6-1).
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
