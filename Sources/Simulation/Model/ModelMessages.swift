// The naive model of endpoints, messages and replies.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// A message in memory: eight words, four handles, a mask of moved handles, the sender, and the call that it answers.
struct ModelMessage {
  static let size = 104
  var bytes: [UInt8]

  var handles: [UInt32] {
    get { (0..<4).map { word(bytes, 64 + 4 * $0) } }
    set { for (index, handle) in newValue.enumerated() { set(64 + 4 * index, littleEndian(handle)) } }
  }
  var moves: UInt32 {
    get { word(bytes, 80) }
    set { set(80, littleEndian(newValue) + littleEndian(UInt32(0))) }
  }
  var sender: UInt64 {
    get { longWord(bytes, 88) }
    set { set(88, littleEndian(newValue)) }
  }
  var reply: UInt64 {
    get { longWord(bytes, 96) }
    set { set(96, littleEndian(newValue)) }
  }

  private mutating func set(_ offset: Int, _ new: [UInt8]) {
    bytes.replaceSubrange(offset..<offset + new.count, with: new)
  }
}

/// The result of a call that may wait.
enum ModelOutcome: Equatable {
  case finished(CallFailure?)
  case waiting
}

extension Model {
  mutating func createEndpoint(_ task: ModelTask, _ name: HandleName, result: UInt64) throws(CallFailure) {
    try check(task, result, 4, .write)
    let endpoint = ModelEndpoint(owner: task.name)
    try writeWord(task, result, task.handles.insert(.endpoint(endpoint, mayReceive: true), name))
  }

  private mutating func loadMessage(_ task: ModelTask, _ address: UInt64) throws(CallFailure) -> ModelMessage {
    ModelMessage(bytes: try read(task, address, ModelMessage.size))
  }

  private func checkHandles(_ task: ModelTask, _ message: ModelMessage) throws(CallFailure) {
    for handle in message.handles where handle != 0 {
      switch task.handles[handle] {
      case nil: throw .invalid
      case .container: throw .notPermitted
      default: break
      }
    }
  }

  // MARK: Calls

  /// - Parameter label: the message's.
  mutating func call(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, mayWait: Bool, label: Int
  ) throws(CallFailure) -> ModelOutcome {
    guard case .endpoint(let endpoint, _) = task.handles[handle] else { throw .invalid }
    guard endpoint.isLive else { throw .canceled }
    guard endpoint.owner != task.name else { throw .invalid }
    try check(task, address, ModelMessage.size, .write)
    try checkHandles(task, try loadMessage(task, address))
    guard mayWait || receiver(endpoint) != nil else { throw .timedOut }
    task.wait = .queued(endpoint, at: address)
    task.message = label
    endpoint.queue.append(task.name)
    bringTogether(endpoint)
    return outcome(task)
  }

  mutating func receive(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, mayWait: Bool
  ) throws(CallFailure) -> ModelOutcome {
    guard case .endpoint(let endpoint, let mayReceive) = task.handles[handle] else { throw .invalid }
    guard mayReceive else { throw .notPermitted }
    guard endpoint.isLive else { throw .canceled }
    try check(task, address, ModelMessage.size, .write)
    if takeNews(task) { throw .again }
    guard mayWait || !endpoint.queue.isEmpty else { throw .timedOut }
    task.wait = .receiving(endpoint, at: address)
    bringTogether(endpoint)
    return outcome(task)
  }

  /// The endpoint's owner, if it waits there.
  func receiver(_ endpoint: ModelEndpoint) -> (task: ModelTask, address: UInt64)? {
    guard let owner = task(endpoint.owner), case .receiving(let other, let address) = owner.wait, other === endpoint
    else { return nil }
    return (owner, address)
  }

  private mutating func bringTogether(_ endpoint: ModelEndpoint) {
    while let (receiver, address) = receiver(endpoint), let first = endpoint.queue.first, let caller = task(first),
      case .queued(_, let callerAddress) = caller.wait
    {
      let message: ModelMessage
      do throws(CallFailure) {
        message = try forAnother { (model) throws(CallFailure) in try model.loadMessage(caller, callerAddress) }
      } catch {
        endpoint.queue.removeFirst()
        finish(caller, error)
        continue
      }
      callCount += 1
      let number = callCount << 16 | UInt64(caller.slot.rawValue)
      do throws(CallFailure) {
        try forAnother { (model) throws(CallFailure) in
          try model.deliver(message, from: caller, to: receiver, at: address, reply: number, label: caller.message)
        }
      } catch {
        return finish(receiver, .fault)
      }
      endpoint.queue.removeFirst()
      caller.wait = .received(by: receiver.name, at: callerAddress, call: number)
      if receiver.calls.count >= 8 { receiver.calls.removeFirst() }
      receiver.calls.append((caller.message, number, false))
      finish(receiver, nil)
    }
  }

  /// Works on the memory of a waiting task. No frames are reclaimed on its behalf.
  mutating func forAnother<Result>(
    _ body: (inout Model) throws(CallFailure) -> Result
  ) throws(CallFailure) -> Result {
    isForAnother = true
    defer { isForAnother = false }
    return try body(&self)
  }

  private mutating func deliver(
    _ message: ModelMessage, from sender: ModelTask, to receiver: ModelTask, at address: UInt64, reply: UInt64,
    label: Int
  ) throws(CallFailure) {
    try check(receiver, address, ModelMessage.size, .write)
    var delivered = message
    var handles = message.handles
    for index in handles.indices {
      let isMoved = message.moves & 1 << UInt32(index) != 0
      handles[index] = transfer(handles[index], from: sender, to: receiver, isMoved: isMoved, HandleName(label, index))
    }
    delivered.handles = handles
    delivered.moves = 0
    delivered.sender = sender.id.rawValue
    delivered.reply = reply
    try write(receiver, address, delivered.bytes)
  }

  /// - Returns: the receiver's handle; 0: the sender has none.
  private mutating func transfer(
    _ handle: UInt32, from sender: ModelTask, to receiver: ModelTask, isMoved: Bool, _ name: HandleName
  ) -> UInt32 {
    guard handle != 0, let target = sender.handles[handle] else { return 0 }
    switch target {
    case .container: return 0
    case .task: return receiver.handles.insert(.peer(sender.id), name)
    case .endpoint(let endpoint, let mayReceive):
      let number = receiver.handles.insert(.endpoint(endpoint, mayReceive: mayReceive && isMoved), name)
      if mayReceive, isMoved { endpoint.owner = receiver.name }
      if isMoved { sender.handles.remove(handle) }
      return number
    case .peer, .weak, .control:
      let number = receiver.handles.insert(target, name)
      if isMoved { sender.handles.remove(handle) }
      loseControl()
      return number
    }
  }

  // MARK: Replies

  mutating func reply(_ task: ModelTask, at address: UInt64, label: Int) throws(CallFailure) {
    let message = try loadMessage(task, address)
    let caller = tasks.first {
      guard case .received(by: task.name, at: _, let call) = $0.wait else { return false }
      return call == message.reply
    }
    guard let caller, case .received(_, let callerAddress, _) = caller.wait else {
      throw task.abandoned.remove(message.reply) != nil ? .canceled : .invalid
    }
    try checkHandles(task, message)
    for index in task.calls.indices where task.calls[index].number == message.reply {
      task.calls[index].isAnswered = true
    }
    do throws(CallFailure) {
      try forAnother { (model) throws(CallFailure) in
        try model.deliver(message, from: task, to: caller, at: callerAddress, reply: 0, label: label)
      }
      finish(caller, nil)
    } catch {
      finish(caller, .fault)
    }
  }

  // MARK: Waiting

  mutating func finish(_ task: ModelTask, _ error: CallFailure?) {
    task.wait = .finished(error)
    woken.append(task.name)
  }

  mutating func outcome(_ task: ModelTask) -> ModelOutcome {
    guard case .finished(let error) = task.wait else { return .waiting }
    task.wait = .none
    return .finished(error)
  }

  mutating func stopWaiting(_ task: ModelTask) -> CallFailure? {
    let wait = task.wait
    task.wait = .none
    switch wait {
    case .finished(let error): return error
    case .queued(let endpoint, _): endpoint.queue.removeAll { $0 == task.name }
    case .received(let server, _, let call): abandon(call, at: server)
    case .none, .receiving, .name: break
    }
    return .timedOut
  }

  /// A reply to this call will be told that the caller no longer waits. The number of remembered calls is limited.
  func abandon(_ call: UInt64, at name: TaskName) {
    guard let server = task(name) else { return }
    server.abandoned.insert(call)
    if server.abandoned.count > 1024 { server.abandoned = [call] }
  }
}
