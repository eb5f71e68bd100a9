// A call as a value: the registers, checked for form. Whether it may be done is the handler's question.

internal import CGuestABI
internal import CKVM
internal import PhysicalMemory

/// A call, by who carries it out.
enum ServerCall {
  case vcpu(VCPUCall)
  case waiting(WaitingCall)
  case memory(MemoryCall)
  case sharing(SharingCall)
  case placement(PlacementCall)
  case message(MessageCall)
  case policy(PolicyCall)
  case device(DeviceCall)
}

/// What concerns the task's vCPU only, and never reaches the server.
enum VCPUCall {
  case null
  case exit(status: Int32)
  case sleep(microseconds: UInt64)
  case onFault(entry: UInt64, stackTop: UInt64)
  case faultReturn(status: UInt64)
  case onReturnPages(entry: UInt64, stackTop: UInt64)
  case onInterrupt(entry: UInt64, stackTop: UInt64)
  case waitForInterrupt(microseconds: UInt64)
  case upcallReturn
}

/// What may wait for another task.
enum WaitingCall {
  case call(UInt32, message: UInt64, microseconds: UInt64)
  case receive(UInt32, message: UInt64, microseconds: UInt64)
  case replyAndReceive(UInt32, message: UInt64, microseconds: UInt64)
  case lookUpName(UInt64, result: UInt64, microseconds: UInt64)
}

enum MemoryCall {
  case write(address: UInt64, length: UInt64)
  case clock(result: UInt64)
  case taskInformation(result: UInt64)
  case createContainer(result: UInt64)
  case destroyContainer(UInt32)
  case allocate(UInt32, start: UInt32, countAddress: UInt64, flags: UInt32)
  case deallocate(UInt32, start: UInt32, countAddress: UInt64, flags: UInt32)
  case map(UInt32, start: UInt32, count: UInt32, address: UInt64, flags: UInt32)
  case unmap(address: UInt64, count: UInt32)
  case mappingInformation(address: UInt64, result: UInt64)
  case releaseData(UInt32, frames: UInt64, count: UInt32)
  case releasePages(UInt32, frames: UInt64, count: UInt32)
  case recoverPages(UInt32, frames: UInt64, count: UInt32, frameError: UInt64)
  case expiredPages(UInt32, frames: UInt64, count: UInt32, result: UInt64)
}

enum SharingCall {
  case createShared(PhysicalMemoryServer.InitialFrames, count: UInt32, remote: UInt32, result: UInt64, weak: UInt64)
  case copy(UInt32, FrameIDArgument, UInt32, FrameIDArgument, count: UInt32, frameError: UInt64)
  case share(UInt32, remote: UInt32, result: UInt64)
  case revoke(UInt32)
  case lock(UInt32, microseconds: UInt64)
  case unlock(UInt32)
}

enum PlacementCall {
  case pin(UInt32, start: UInt32, count: UInt32, microseconds: UInt64, physical: UInt64)
  case unpin(UInt32, start: UInt32, count: UInt32)
  case allocatePlaced(UInt32, start: UInt32, countAddress: UInt64, flags: UInt32, placement: UInt64)
  case placementObstacle(result: UInt64)
  case defragment(UInt32, result: UInt64)
}

/// Of endpoints, names and capabilities, what never waits.
enum MessageCall {
  case createEndpoint(result: UInt64)
  case reply(message: UInt64)
  case registerName(UInt64, endpoint: UInt32)
  case dropCapability(UInt32)
}

/// What the holder of control does.
enum PolicyCall {
  case getControl(result: UInt64)
  case getPolicyBuffer(UInt32, address: UInt64, result: UInt64)
  case commitPolicy(UInt32)
  case taskName(UInt32, id: UInt64, result: UInt64)
}

/// What drivers do.
enum DeviceCall {
  case deviceInformation(UInt32, result: UInt64)
  case claimDevice(UInt32)
  case releaseDevice(UInt32)
  case readDevice(UInt32, offset: UInt32, result: UInt64)
  case writeDevice(UInt32, offset: UInt32, value: UInt32)
}

extension ServerCall {
  /// From RAX and the arguments; 32-bit arguments are the low halves of their registers, as in C. Nil: no such call.
  @inline(__always)
  static func decode(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c, d, e) = (registers.rdi, registers.rsi, registers.rdx, registers.rcx, registers.r8)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    // EAX: the upper half of RAX is whatever the program left there.
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_NULL: return .vcpu(.null)
    case PM_CALL_EXIT: return .vcpu(.exit(status: Int32(truncatingIfNeeded: a)))
    case PM_CALL_WRITE: return .memory(.write(address: a, length: b))
    case PM_CALL_CLOCK: return .memory(.clock(result: a))
    case PM_CALL_SLEEP: return .vcpu(.sleep(microseconds: a))
    case PM_CALL_TASK_INFO: return .memory(.taskInformation(result: a))
    case PM_CALL_CONTAINER_CREATE: return .memory(.createContainer(result: a))
    case PM_CALL_CONTAINER_DESTROY: return .memory(.destroyContainer(low(a)))
    case PM_CALL_CONTAINER_ALLOCATE: return .memory(.allocate(low(a), start: low(b), countAddress: c, flags: low(d)))
    case PM_CALL_CONTAINER_DEALLOCATE:
      return .memory(.deallocate(low(a), start: low(b), countAddress: c, flags: low(d)))
    case PM_CALL_CONTAINER_MAP: return .memory(.map(low(a), start: low(b), count: low(c), address: d, flags: low(e)))
    case PM_CALL_UNMAP: return .memory(.unmap(address: a, count: low(b)))
    case PM_CALL_MAPPING: return .memory(.mappingInformation(address: a, result: b))
    case PM_CALL_RELEASE_DATA: return .memory(.releaseData(low(a), frames: b, count: low(c)))
    case PM_CALL_ON_FAULT: return .vcpu(.onFault(entry: a, stackTop: b))
    case PM_CALL_FAULT_RETURN: return .vcpu(.faultReturn(status: a))
    case PM_CALL_ON_RETURN_PAGES: return .vcpu(.onReturnPages(entry: a, stackTop: b))
    case PM_CALL_UPCALL_RETURN: return .vcpu(.upcallReturn)
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
      .sharing(.copy(low(a), from, low(c), to, count: low(e), frameError: f))
    }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_CONTAINER_CREATE_WITH:
      return .sharing(.createShared(.fresh, count: low(b), remote: low(c), result: a, weak: d))
    case PM_CALL_CONTAINER_CREATE_FROM:
      return .sharing(.createShared(.copies(source: low(b), ids(c)), count: low(d), remote: low(e), result: a, weak: f))
    case PM_CALL_CONTAINER_CREATE_GATHER:
      return .sharing(
        .createShared(.copies(source: low(b), .array(c)), count: low(d), remote: low(e), result: a, weak: f))
    case PM_CALL_CONTAINER_COPY: return copy(ids(b), ids(d))
    case PM_CALL_CONTAINER_COPY_SCATTER: return copy(ids(b), .array(d))
    case PM_CALL_CONTAINER_COPY_GATHER: return copy(.array(b), ids(d))
    case PM_CALL_CONTAINER_COPY_SCATTER_GATHER: return copy(.array(b), .array(d))
    case PM_CALL_CONTAINER_SHARE: return .sharing(.share(low(a), remote: low(b), result: c))
    case PM_CALL_CONTAINER_REVOKE: return .sharing(.revoke(low(a)))
    case PM_CALL_CONTAINER_LOCK: return .sharing(.lock(low(a), microseconds: b))
    case PM_CALL_CONTAINER_UNLOCK: return .sharing(.unlock(low(a)))
    case PM_CALL_CONTAINER_PIN:
      return .placement(.pin(low(a), start: low(b), count: low(c), microseconds: d, physical: e))
    case PM_CALL_CONTAINER_UNPIN: return .placement(.unpin(low(a), start: low(b), count: low(c)))
    case PM_CALL_CONTAINER_ALLOCATE_PLACED:
      return .placement(.allocatePlaced(low(a), start: low(b), countAddress: c, flags: low(d), placement: e))
    case PM_CALL_PLACEMENT_OBSTACLE: return .placement(.placementObstacle(result: a))
    case PM_CALL_DEFRAGMENT: return .placement(.defragment(low(a), result: b))
    case PM_CALL_RELEASE_PAGES: return .memory(.releasePages(low(a), frames: b, count: low(c)))
    case PM_CALL_RECOVER_PAGES: return .memory(.recoverPages(low(a), frames: b, count: low(c), frameError: d))
    case PM_CALL_EXPIRED_PAGES: return .memory(.expiredPages(low(a), frames: b, count: low(c), result: d))
    default: return nil
    }
  }

  /// What the holder of control does.
  private static func decodePolicy(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c) = (registers.rdi, registers.rsi, registers.rdx)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_GET_CONTROL: return .policy(.getControl(result: a))
    case PM_CALL_GET_POLICY_BUFFER: return .policy(.getPolicyBuffer(low(a), address: b, result: c))
    case PM_CALL_POLICY_COMMIT: return .policy(.commitPolicy(low(a)))
    case PM_CALL_TASK_NAME: return .policy(.taskName(low(a), id: b, result: c))
    default: return nil
    }
  }

  /// What drivers do.
  @inline(__always)
  private static func decodeDevices(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c) = (registers.rdi, registers.rsi, registers.rdx)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_DEVICE_INFO: return .device(.deviceInformation(low(a), result: b))
    case PM_CALL_DEVICE_CLAIM: return .device(.claimDevice(low(a)))
    case PM_CALL_DEVICE_RELEASE: return .device(.releaseDevice(low(a)))
    case PM_CALL_DEVICE_READ: return .device(.readDevice(low(a), offset: low(b), result: c))
    case PM_CALL_DEVICE_WRITE: return .device(.writeDevice(low(a), offset: low(b), value: low(c)))
    case PM_CALL_ON_INTERRUPT: return .vcpu(.onInterrupt(entry: a, stackTop: b))
    case PM_CALL_INTERRUPT_WAIT: return .vcpu(.waitForInterrupt(microseconds: a))
    default: return nil
    }
  }

  /// Endpoints, messages and names.
  @inline(__always)
  private static func decodeMessages(_ registers: borrowing kvm_regs) -> ServerCall? {
    let (a, b, c) = (registers.rdi, registers.rsi, registers.rdx)
    func low(_ value: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
    switch pm_call(rawValue: low(registers.rax)) {
    case PM_CALL_ENDPOINT_CREATE: return .message(.createEndpoint(result: a))
    case PM_CALL_CALL: return .waiting(.call(low(a), message: b, microseconds: c))
    case PM_CALL_RECEIVE: return .waiting(.receive(low(a), message: b, microseconds: c))
    case PM_CALL_REPLY: return .message(.reply(message: a))
    case PM_CALL_REPLY_RECEIVE: return .waiting(.replyAndReceive(low(a), message: b, microseconds: c))
    case PM_CALL_NAME_REGISTER: return .message(.registerName(a, endpoint: low(b)))
    case PM_CALL_NAME_LOOKUP: return .waiting(.lookUpName(a, result: b, microseconds: c))
    case PM_CALL_CAP_DROP: return .message(.dropCapability(low(a)))
    default: return nil
    }
  }
}
