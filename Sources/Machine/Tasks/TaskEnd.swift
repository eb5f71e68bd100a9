// How a task ended, and the report on a task that died.

internal import CGuestABI
internal import CKVM
public import PhysicalMemory

/// How a task ended.
public enum TaskEnd: Sendable {
  /// The task called pm_exit.
  case exited(status: UInt8)
  /// The task died of its own fault or exception, or was dropped while it ran.
  case died(TaskReport)
  /// The task was stopped by a time limit or the machine's end, or was dropped before it ran.
  case stopped(StopReason)
  /// The machine could not continue the task. The text says why, without a full stop.
  case failed(String)

  /// The exit status of `physmem run`: the task's own status, or 128 plus a number.
  public var exitStatus: Int32 {
    switch self {
    case .exited(let status): Int32(status)
    case .died(let report): 128 + report.number
    case .stopped(let reason): 128 + reason.number
    case .failed: 128 + 127
    }
  }
}

/// Why the host stopped a task.
public enum StopReason: Sendable, Equatable {
  /// The time limit of `physmem run` or a test.
  case timeLimit
  /// The machine was shut down.
  case machineEnd
  /// The task did not return this many frames in time.
  case dropped(missing: Int)

  /// Added to 128 for the exit status. Starts beyond the processor's 32 exceptions.
  var number: Int32 {
    switch self {
    case .timeLimit: 64
    case .machineEnd: 65
    case .dropped: 66
    }
  }
}

extension StopReason {
  static func describeDrop(missing: Int) -> String {
    "dropped by the server: \(missing) frames were asked back and not returned in time"
  }
}

/// A page fault that neither the server nor the task's handler resolved.
struct TaskFault {
  let address: UInt64
  let code: PageFaultCode
  let outcome: FaultOutcome
}

/// A stack with guard pages below it.
struct GuardedStack {
  let name: String
  let bottom: UInt64

  func isBelow(_ address: UInt64) -> Bool {
    address < bottom && bottom - address <= UInt64(PM_STACK_GUARD_PAGES) * 4096
  }
}

/// Why a task died.
enum DeathCause {
  case pageFault(TaskFault)
  case exception(vector: UInt8, errorCode: UInt64)
  case dropped(missing: Int)
}

/// Why a task died, and where: text for a terminal, and its parts.
public struct TaskReport: Sendable {
  /// For example "page fault: write to 0x1000, which is not mapped".
  public let cause: String
  /// 14 for a page fault, the vector of any other exception, or 66 for a dropped task.
  public let number: Int32
  /// The program's name, fit for a terminal.
  public let program: String
  /// The task's number.
  public let task: TaskID
  /// For example "0x401234 touch+0x14", innermost first.
  public let backtrace: [String]
  /// Name and value, in printing order.
  public let registers: [(name: String, value: UInt64)]

  /// The report in several lines, without a final newline.
  public var text: String {
    var lines = ["\(program): task \(task) died: \(cause)"]
    for (index, place) in backtrace.enumerated() { lines.append("  #\(index)  \(place)") }
    var row = ""
    for (index, register) in registers.enumerated() {
      let name = String(repeating: " ", count: max(0, 7 - register.name.count)) + register.name
      row += "\(name) \(hexadecimal(register.value, digits: 16))"
      if index % 3 == 2 || index == registers.count - 1 {
        lines.append(row)
        row = ""
      }
    }
    return lines.joined(separator: "\n")
  }
}

func hexadecimal(_ value: UInt64, digits: Int = 0) -> String {
  let text = String(value, radix: 16)
  return "0x" + String(repeating: "0", count: max(0, digits - text.count)) + text
}

extension DeathCause {
  var number: Int32 {
    switch self {
    case .pageFault: Int32(ExitDecoder.pageFaultVector)
    case .exception(let vector, _): Int32(vector)
    case .dropped(let missing): StopReason.dropped(missing: missing).number
    }
  }

  func text(guarded: [GuardedStack]) -> String {
    switch self {
    case .pageFault(let fault): "page fault: " + Self.describe(fault, guarded)
    case .exception(let vector, let errorCode): Self.describe(vector, errorCode)
    case .dropped(let missing): StopReason.describeDrop(missing: missing)
    }
  }

  private static func describe(_ fault: TaskFault, _ guarded: [GuardedStack]) -> String {
    let access =
      switch fault.code.access {
      case .read: "read from"
      case .write: "write to"
      case .execute: "execution of"
      }
    let why =
      switch fault.outcome {
      case .forbidden: "whose mapping does not permit it"
      case .noMemory: "for which no frame is left"
      case .unexplained where fault.code.isDeniedByKey: "which its own protection keys deny"
      case .unexplained: "which the page tables permit: the processor keeps denying it"
      default:
        fault.address >= 1 << 47
          ? "which is outside the task's addresses"
          : guarded.first { $0.isBelow(fault.address) }.map { "the guard below \($0.name): the stack overflowed" }
            ?? "which is not mapped"
      }
    return "\(access) \(hexadecimal(fault.address)), \(why)"
  }

  private static func describe(_ vector: UInt8, _ errorCode: UInt64) -> String {
    let names: [UInt8: String] = [
      0: "#DE, division error", 1: "#DB, debug exception", 3: "#BP, breakpoint", 4: "#OF, overflow",
      5: "#BR, bound range exceeded", 6: "#UD, invalid instruction", 7: "#NM, no floating-point unit",
      8: "#DF, double fault", 10: "#TS, invalid TSS", 11: "#NP, segment not present", 12: "#SS, stack fault",
      13: "#GP, general protection", 16: "#MF, x87 error", 17: "#AC, misaligned access", 18: "#MC, machine check",
      19: "#XM, vector floating-point error", 21: "#CP, control protection",
    ]
    let name = names[vector] ?? "exception \(vector)"
    return errorCode == 0 ? name : "\(name), error code \(hexadecimal(errorCode))"
  }
}
