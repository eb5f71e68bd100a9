// A call as a value: the registers, checked for form. Whether it may be done is the handler's question.

internal import CGuestABI
internal import CKVM
internal import PhysicalMemory

enum ServerCall {
  case null
  case exit(status: Int32)
  case write(address: UInt64, length: UInt64)
  case clock(result: UInt64)
  case sleep(microseconds: UInt64)
  case taskInformation(result: UInt64)
  case createContainer(result: UInt64)
  case destroyContainer(UInt32)
  case allocate(UInt32, start: UInt32, countAddress: UInt64, flags: UInt32)
  case deallocate(UInt32, start: UInt32, countAddress: UInt64, flags: UInt32)
  case map(UInt32, start: UInt32, count: UInt32, address: UInt64, flags: UInt32)
  case unmap(address: UInt64, count: UInt32)
  case mappingInformation(address: UInt64, result: UInt64)
  case onFault(entry: UInt64, stackTop: UInt64)
  case faultReturn(status: UInt64)

  /// From RAX and the arguments; 32-bit arguments are the low halves of their registers, as in C. Nil: no such call.
  @inline(__always)
  static func decode(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c, d, e) = (registers.rdi, registers.rsi, registers.rdx, registers.rcx, registers.r8)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    // EAX: the upper half of RAX is whatever the program left there.
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_NULL: return .null
    case PM_CALL_EXIT: return .exit(status: Int32(truncatingIfNeeded: a))
    case PM_CALL_WRITE: return .write(address: a, length: b)
    case PM_CALL_CLOCK: return .clock(result: a)
    case PM_CALL_SLEEP: return .sleep(microseconds: a)
    case PM_CALL_TASK_INFO: return .taskInformation(result: a)
    case PM_CALL_CONTAINER_CREATE: return .createContainer(result: a)
    case PM_CALL_CONTAINER_DESTROY: return .destroyContainer(low(a))
    case PM_CALL_CONTAINER_ALLOCATE: return .allocate(low(a), start: low(b), countAddress: c, flags: low(d))
    case PM_CALL_CONTAINER_DEALLOCATE: return .deallocate(low(a), start: low(b), countAddress: c, flags: low(d))
    case PM_CALL_CONTAINER_MAP: return .map(low(a), start: low(b), count: low(c), address: d, flags: low(e))
    case PM_CALL_UNMAP: return .unmap(address: a, count: low(b))
    case PM_CALL_MAPPING: return .mappingInformation(address: a, result: b)
    case PM_CALL_ON_FAULT: return .onFault(entry: a, stackTop: b)
    case PM_CALL_FAULT_RETURN: return .faultReturn(status: a)
    default: return nil
    }
  }
}
