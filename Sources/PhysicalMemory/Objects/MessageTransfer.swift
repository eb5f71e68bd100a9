// The transfer of a message: out of the sender's memory, capabilities from one table to the other, into the receiver's
// memory.

internal import CGuestABI
internal import GuestMemory

/// A `struct pm_message`, in memory order.
struct Message {
  static let byteCount = 104

  var words: InlineArray<8, UInt64>
  var capabilities: InlineArray<4, Handle>
  var moves: UInt32
  var sender: UInt64
  var reply: UInt64

  init(_ bytes: [UInt8]) {
    func word(_ offset: Int) -> UInt64 { (0..<8).reversed().reduce(0) { $0 << 8 | UInt64(bytes[offset + $1]) } }
    words = InlineArray { word($0 * 8) }
    capabilities = InlineArray { Handle(UInt32(truncatingIfNeeded: word(64 + $0 / 2 * 8) >> UInt64($0 % 2 * 32))) }
    moves = UInt32(truncatingIfNeeded: word(80))
    sender = word(88)
    reply = word(96)
  }

  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.byteCount)
    func append(_ word: UInt64) {
      for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * shift))) }
    }
    for index in words.indices { append(words[index]) }
    append(UInt64(capabilities[0].rawValue) | UInt64(capabilities[1].rawValue) << 32)
    append(UInt64(capabilities[2].rawValue) | UInt64(capabilities[3].rawValue) << 32)
    append(UInt64(moves))
    append(sender)
    append(reply)
    return bytes
  }
}

extension ServerState {
  /// Reads a message from the task's memory.
  /// - Throws: `.fault` when it is unreadable, `.waitForFrames` when other tasks must give frames back first.
  mutating func loadMessage(_ task: TaskSlot, _ address: GuestAddress) throws(CallFailure) -> Message {
    var bytes = [UInt8](repeating: 0, count: Message.byteCount)
    try readMemory(task, address, into: &bytes)
    return Message(bytes)
  }

  /// - Throws: `.invalid` for a handle that names nothing, `.notPermitted` for one that cannot be sent: an owned
  ///   container.
  func checkCapabilities(_ task: TaskSlot, _ message: Message) throws(CallFailure) {
    for index in message.capabilities.indices where message.capabilities[index] != .none {
      switch tasks[task].handles[message.capabilities[index]] {
      case nil: throw .invalid
      case .container: throw .notPermitted
      default: break
      }
    }
  }

  /// Writes a message to the receiver's memory, with the sender's real id, and transfers the capabilities. Moved ones
  /// leave the sender's table.
  /// - Throws: `.fault`, with nothing changed, when the receiver's memory is not writable.
  mutating func deliver(
    _ message: Message, from sender: TaskSlot, to receiver: TaskSlot, _ address: GuestAddress, reply: UInt64
  ) throws(CallFailure) {
    try checkWritable(receiver, address, Message.byteCount)
    var delivered = message
    for index in message.capabilities.indices {
      delivered.capabilities[index] = transfer(
        message.capabilities[index], from: sender, to: receiver, isMoved: message.moves & 1 << UInt32(index) != 0)
    }
    delivered.moves = 0
    delivered.sender = tasks[sender].id.rawValue
    delivered.reply = reply
    try writeMemory(receiver, address, delivered.bytes.span)
  }

  /// - Returns: the receiver's handle; `.none` without a capability, or without room for it.
  private mutating func transfer(_ handle: Handle, from sender: TaskSlot, to receiver: TaskSlot, isMoved: Bool)
    -> Handle
  {
    guard handle != .none, let target = tasks[sender].handles[handle] else { return .none }
    let moves = isMoved && handle != .ownTask
    let given: HandleTarget
    switch target {
    case .task: given = .peer(sender, tasks[sender].id)
    case .container: return .none
    case .endpoint(let reference, let mayReceive):
      given = .endpoint(reference, mayReceive: mayReceive && moves)
    case .peer, .weak, .control: given = target
    }
    guard let received = tasks[receiver].handles.insert(given) else { return .none }
    if given == .control { countControls(receiver, 1) }
    guard moves else { return received }
    tasks[sender].handles.remove(handle)
    if case .endpoint(let reference, mayReceive: true) = given, isLive(reference) {
      moveEndpoint(reference, to: receiver)
    }
    if given == .control { countControls(sender, -1) }
    return received
  }

  /// Moves an endpoint to its new owner.
  private mutating func moveEndpoint(_ reference: EndpointReference, to task: TaskSlot) {
    let owner = endpoints[reference.slot].owner
    // The pm_return_pages handler may give away an endpoint that the task itself receives on.
    cancelReceivers(reference)
    tasks[owner].endpoints.remove(reference)
    tasks[task].endpoints.insert(reference)
    endpoints[reference.slot].owner = task
  }

  /// Drops a handle for pm_cap_drop.
  /// - Returns: whether it is an owned container, which the caller destroys in steps.
  /// - Throws: `.invalid` for a handle that names nothing, `.notPermitted` for PM_CAP_SELF and PM_CAP_CONTAINER.
  mutating func dropCapability(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> Bool {
    guard handle != .ownTask, handle != .initialContainer else { throw .notPermitted }
    switch tasks[task].handles[handle] {
    case nil: throw .invalid
    case .container: return true
    case .endpoint(let reference, mayReceive: true): closeEndpoint(reference)
    case .control: countControls(task, -1)
    default: break
    }
    tasks[task].handles.remove(handle)
    return false
  }
}
