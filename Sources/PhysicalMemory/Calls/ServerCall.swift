// The calls that the server carries out, by number. The machine carries out those on a task's vCPU, console and devices
// (Machine/Exits/CallHandler.swift). The numbers of both are those of `enum pm_call`.

internal import CGuestABI

/// The argument registers of a call, in the order of C's arguments. 32-bit arguments are the low halves, as in C.
public struct CallArguments: Sendable {
  /// RDI, RSI, RDX, RCX, R8, R9.
  public let words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)

  /// RDI, RSI, RDX, RCX, R8, R9.
  public init(
    _ a: UInt64 = 0, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0, _ f: UInt64 = 0
  ) {
    words = (a, b, c, d, e, f)
  }
}

/// A register, converted to an argument's type.
extension UInt64 {
  var asCount: UInt32 { UInt32(truncatingIfNeeded: self) }
  var asFlags: UInt32 { UInt32(truncatingIfNeeded: self) }
  var asHandle: Handle { Handle(UInt32(truncatingIfNeeded: self)) }
  var asFrameID: FrameID { FrameID(UInt32(truncatingIfNeeded: self)) }
  var asAddress: GuestAddress { GuestAddress(self) }
}

/// A call: decoded from its registers, then carried out for a task. Each has a file with its checks, steps and errors,
/// read from top to bottom.
protocol ServerCall {
  /// Checks everything before it changes anything. A call that throws `.waitForFrames` has changed nothing.
  func perform(_ caller: CallContext) throws(CallFailure)
}

/// A call that may wait for another task.
protocol WaitingCall {
  /// The timeout; 0: do not wait.
  var microseconds: UInt64 { get }
  func begin(_ caller: CallContext) throws(CallFailure) -> WaitOutcome
}

/// The calls of `pm_call` that the server carries out. A test compares the numbers with the header.
public enum ServerCallNumber: UInt32, Sendable, CaseIterable {
  case taskInfo = 5
  case containerCreate = 0x20
  case containerDestroy = 0x21
  case containerAllocate = 0x22
  case containerDeallocate = 0x23
  case containerCreateWith = 0x24
  case containerCreateFrom = 0x25
  case containerCreateGather = 0x26
  case containerCopy = 0x28
  case containerCopyScatter = 0x29
  case containerCopyGather = 0x2a
  case containerCopyScatterGather = 0x2b
  case containerShare = 0x2c
  case containerRevoke = 0x2d
  case containerLock = 0x2e
  case containerUnlock = 0x2f
  case containerPin = 0x30
  case containerUnpin = 0x31
  case containerAllocatePlaced = 0x32
  case placementObstacle = 0x33
  case defragment = 0x34
  case containerMap = 0x40
  case unmap = 0x41
  case mapping = 0x42
  case sample = 0x43
  case releaseData = 0x50
  case releasePages = 0x51
  case recoverPages = 0x52
  case expiredPages = 0x53
  case getControl = 0x60
  case getPolicyBuffer = 0x61
  case policyCommit = 0x62
  case taskName = 0x63
  case endpointCreate = 0x80
  case call = 0x81
  case receive = 0x82
  case reply = 0x83
  case replyReceive = 0x84
  case nameRegister = 0x85
  case nameLookup = 0x86
  case capDrop = 0x87
}

extension ServerCallNumber {
  /// Whether the call changes what ids of a container name, in several steps.
  var changesContainers: Bool {
    switch self {
    case .containerAllocate, .containerAllocatePlaced, .containerDeallocate, .containerCreateWith,
      .containerCreateFrom, .containerCreateGather, .containerCopy, .containerCopyScatter, .containerCopyGather,
      .containerCopyScatterGather, .containerPin, .releaseData, .releasePages, .recoverPages:
      true
    default: false
    }
  }
}

extension CallContext {
  /// Decodes a call and makes one attempt at it.
  func attempt(_ number: ServerCallNumber, _ arguments: CallArguments) throws(CallFailure) -> CallProgress {
    switch number {
    case .taskInfo: try perform(TaskInfo(arguments))
    case .containerCreate: try perform(ContainerCreate(arguments))
    case .containerDestroy: try perform(ContainerDestroy(arguments))
    case .containerAllocate: try perform(ContainerAllocate(arguments))
    case .containerDeallocate: try perform(ContainerDeallocate(arguments))
    case .containerCreateWith: try perform(ContainerCreateFilled(with: arguments))
    case .containerCreateFrom: try perform(ContainerCreateFilled(from: arguments))
    case .containerCreateGather: try perform(ContainerCreateFilled(gather: arguments))
    case .containerCopy: try perform(ContainerCopy(arguments))
    case .containerCopyScatter: try perform(ContainerCopy(scatter: arguments))
    case .containerCopyGather: try perform(ContainerCopy(gather: arguments))
    case .containerCopyScatterGather: try perform(ContainerCopy(scatterGather: arguments))
    case .containerShare: try perform(ContainerShare(arguments))
    case .containerRevoke: try perform(ContainerRevoke(arguments))
    case .containerLock: try perform(ContainerLockCall(arguments))
    case .containerUnlock: try perform(ContainerUnlock(arguments))
    case .containerPin: try perform(ContainerPin(arguments))
    case .containerUnpin: try perform(ContainerUnpin(arguments))
    case .containerAllocatePlaced: try perform(ContainerAllocatePlaced(arguments))
    case .placementObstacle: try perform(PlacementObstacle(arguments))
    case .defragment: try perform(Defragment(arguments))
    case .containerMap: try perform(ContainerMap(arguments))
    case .unmap: try perform(Unmap(arguments))
    case .mapping: try perform(MappingQuery(arguments))
    case .sample: try perform(Sample(arguments))
    case .releaseData: try perform(ReleaseData(arguments))
    case .releasePages: try perform(ReleasePages(arguments))
    case .recoverPages: try perform(RecoverPages(arguments))
    case .expiredPages: try perform(ExpiredPages(arguments))
    case .getControl: try perform(GetControl(arguments))
    case .getPolicyBuffer: try perform(GetPolicyBuffer(arguments))
    case .policyCommit: try perform(PolicyCommit(arguments))
    case .taskName: try perform(TaskName(arguments))
    case .endpointCreate: try perform(EndpointCreate(arguments))
    case .call: try begin(EndpointCall(arguments))
    case .receive: try begin(Receive(arguments))
    case .reply: try perform(Reply(arguments))
    case .replyReceive: try begin(ReplyReceive(arguments))
    case .nameRegister: try perform(NameRegister(arguments))
    case .nameLookup: try begin(NameLookup(arguments))
    case .capDrop: try perform(CapDrop(arguments))
    }
  }

  private func perform(_ call: some ServerCall) throws(CallFailure) -> CallProgress {
    try call.perform(self)
    return .done
  }

  private func begin(_ call: some WaitingCall) throws(CallFailure) -> CallProgress {
    switch try call.begin(self) {
    case .finished(let error): return .finished(error)
    case .waiting: return .waits(microseconds: call.microseconds)
    }
  }
}
