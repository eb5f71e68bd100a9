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
  case createShared(PhysicalMemoryServer.InitialFrames, count: UInt32, remote: UInt32, result: UInt64, weak: UInt64)
  case copy(UInt32, FrameIDArgument, UInt32, FrameIDArgument, count: UInt32, frameError: UInt64)
  case share(UInt32, remote: UInt32, result: UInt64)
  case revoke(UInt32)
  case lock(UInt32, microseconds: UInt64)
  case unlock(UInt32)
  case pin(UInt32, start: UInt32, count: UInt32, microseconds: UInt64, physical: UInt64)
  case unpin(UInt32, start: UInt32, count: UInt32)
  case allocatePlaced(UInt32, start: UInt32, countAddress: UInt64, flags: UInt32, placement: UInt64)
  case placementObstacle(result: UInt64)
  case defragment(UInt32, result: UInt64)
  case releaseData(UInt32, frames: UInt64, count: UInt32)
  case releasePages(UInt32, frames: UInt64, count: UInt32)
  case recoverPages(UInt32, frames: UInt64, count: UInt32, frameError: UInt64)
  case expiredPages(UInt32, frames: UInt64, count: UInt32, result: UInt64)
  case createEndpoint(result: UInt64)
  case call(UInt32, message: UInt64, microseconds: UInt64)
  case receive(UInt32, message: UInt64, microseconds: UInt64)
  case reply(message: UInt64)
  case replyAndReceive(UInt32, message: UInt64, microseconds: UInt64)
  case registerName(UInt64, endpoint: UInt32)
  case lookUpName(UInt64, result: UInt64, microseconds: UInt64)
  case dropCapability(UInt32)
  case getControl(result: UInt64)
  case getPolicyBuffer(UInt32, address: UInt64, result: UInt64)
  case commitPolicy(UInt32)
  case taskName(UInt32, id: UInt64, result: UInt64)
  case onFault(entry: UInt64, stackTop: UInt64)
  case faultReturn(status: UInt64)
  case onReturnPages(entry: UInt64, stackTop: UInt64)
  case onInterrupt(entry: UInt64, stackTop: UInt64)
  case waitForInterrupt(microseconds: UInt64)
  case upcallReturn
  case deviceInformation(UInt32, result: UInt64)
  case claimDevice(UInt32)
  case releaseDevice(UInt32)
  case readDevice(UInt32, offset: UInt32, result: UInt64)
  case writeDevice(UInt32, offset: UInt32, value: UInt32)

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
    case PM_CALL_RELEASE_DATA: return .releaseData(low(a), frames: b, count: low(c))
    case PM_CALL_ON_FAULT: return .onFault(entry: a, stackTop: b)
    case PM_CALL_FAULT_RETURN: return .faultReturn(status: a)
    case PM_CALL_ON_RETURN_PAGES: return .onReturnPages(entry: a, stackTop: b)
    case PM_CALL_UPCALL_RETURN: return .upcallReturn
    default:
      if let call = decodeMessages(registers) { return call }
      if let call = decodePolicy(registers) { return call }
      if let call = decodeDevices(registers) { return call }
      return decodeSharing(registers)
    }
  }

  /// Copies, sharing, locks and pins.
  private static func decodeSharing(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c, d, e, f) = (
      registers.rdi, registers.rsi, registers.rdx, registers.rcx, registers.r8, registers.r9
    )
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    func ids(_ value: UInt64) -> FrameIDArgument { .from(low(value)) }
    func copy(_ from: FrameIDArgument, _ to: FrameIDArgument) -> ServerCall {
      .copy(low(a), from, low(c), to, count: low(e), frameError: f)
    }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_CONTAINER_CREATE_WITH:
      return .createShared(.fresh, count: low(b), remote: low(c), result: a, weak: d)
    case PM_CALL_CONTAINER_CREATE_FROM:
      return .createShared(.copies(source: low(b), ids(c)), count: low(d), remote: low(e), result: a, weak: f)
    case PM_CALL_CONTAINER_CREATE_GATHER:
      return .createShared(.copies(source: low(b), .array(c)), count: low(d), remote: low(e), result: a, weak: f)
    case PM_CALL_CONTAINER_COPY: return copy(ids(b), ids(d))
    case PM_CALL_CONTAINER_COPY_SCATTER: return copy(ids(b), .array(d))
    case PM_CALL_CONTAINER_COPY_GATHER: return copy(.array(b), ids(d))
    case PM_CALL_CONTAINER_COPY_SCATTER_GATHER: return copy(.array(b), .array(d))
    case PM_CALL_CONTAINER_SHARE: return .share(low(a), remote: low(b), result: c)
    case PM_CALL_CONTAINER_REVOKE: return .revoke(low(a))
    case PM_CALL_CONTAINER_LOCK: return .lock(low(a), microseconds: b)
    case PM_CALL_CONTAINER_UNLOCK: return .unlock(low(a))
    case PM_CALL_CONTAINER_PIN:
      return .pin(low(a), start: low(b), count: low(c), microseconds: d, physical: e)
    case PM_CALL_CONTAINER_UNPIN: return .unpin(low(a), start: low(b), count: low(c))
    case PM_CALL_CONTAINER_ALLOCATE_PLACED:
      return .allocatePlaced(low(a), start: low(b), countAddress: c, flags: low(d), placement: e)
    case PM_CALL_PLACEMENT_OBSTACLE: return .placementObstacle(result: a)
    case PM_CALL_DEFRAGMENT: return .defragment(low(a), result: b)
    case PM_CALL_RELEASE_PAGES: return .releasePages(low(a), frames: b, count: low(c))
    case PM_CALL_RECOVER_PAGES: return .recoverPages(low(a), frames: b, count: low(c), frameError: d)
    case PM_CALL_EXPIRED_PAGES: return .expiredPages(low(a), frames: b, count: low(c), result: d)
    default: return nil
    }
  }

  /// What the holder of control does.
  private static func decodePolicy(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c) = (registers.rdi, registers.rsi, registers.rdx)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_GET_CONTROL: return .getControl(result: a)
    case PM_CALL_GET_POLICY_BUFFER: return .getPolicyBuffer(low(a), address: b, result: c)
    case PM_CALL_POLICY_COMMIT: return .commitPolicy(low(a))
    case PM_CALL_TASK_NAME: return .taskName(low(a), id: b, result: c)
    default: return nil
    }
  }

  /// What drivers do.
  @inline(__always)
  private static func decodeDevices(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c) = (registers.rdi, registers.rsi, registers.rdx)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_DEVICE_INFO: return .deviceInformation(low(a), result: b)
    case PM_CALL_DEVICE_CLAIM: return .claimDevice(low(a))
    case PM_CALL_DEVICE_RELEASE: return .releaseDevice(low(a))
    case PM_CALL_DEVICE_READ: return .readDevice(low(a), offset: low(b), result: c)
    case PM_CALL_DEVICE_WRITE: return .writeDevice(low(a), offset: low(b), value: low(c))
    case PM_CALL_ON_INTERRUPT: return .onInterrupt(entry: a, stackTop: b)
    case PM_CALL_INTERRUPT_WAIT: return .waitForInterrupt(microseconds: a)
    default: return nil
    }
  }

  /// Endpoints, messages and names.
  @inline(__always)
  private static func decodeMessages(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c) = (registers.rdi, registers.rsi, registers.rdx)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_ENDPOINT_CREATE: return .createEndpoint(result: a)
    case PM_CALL_CALL: return .call(low(a), message: b, microseconds: c)
    case PM_CALL_RECEIVE: return .receive(low(a), message: b, microseconds: c)
    case PM_CALL_REPLY: return .reply(message: a)
    case PM_CALL_REPLY_RECEIVE: return .replyAndReceive(low(a), message: b, microseconds: c)
    case PM_CALL_NAME_REGISTER: return .registerName(a, endpoint: low(b))
    case PM_CALL_NAME_LOOKUP: return .lookUpName(a, result: b, microseconds: c)
    case PM_CALL_CAP_DROP: return .dropCapability(low(a))
    default: return nil
    }
  }
}
