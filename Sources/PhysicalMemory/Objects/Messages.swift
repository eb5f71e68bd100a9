// Messages between tasks: endpoints, calls, replies. The server copies a message once, from the sender's memory to the
// receiver's, and adds the sender's id. The machine does the waiting: a call here either has its result at once, or
// leaves the task in a wait state until `wake`, and the machine asks again.
//
// The life of a call:
//  1. queued at the endpoint, until its owner receives. The message is still in the caller's memory.
//  2. received: the owner handles it. The caller waits for the reply.
//  3. answered, or cancelled because the owner is gone; the caller takes the result and continues.
// A caller that times out leaves state 1 or 2; a later reply is refused.
//
// A task waits at two levels: its pm_return_pages handler may interrupt a wait and make waiting calls of its own. The
// interrupted wait may complete meanwhile; its result is found when the handler has returned.

internal import CGuestABI
internal import GuestMemory

/// Names an endpoint for its lifetime.
struct EndpointReference: Hashable {
  let slot: EndpointSlot
  let generation: UInt32
}

/// The context that waits: the task itself, or its pm_return_pages handler, which interrupted it.
public enum WaitLevel: Int, Sendable, CaseIterable { case task, handler }

/// A wait of a task, at one of its levels.
struct Waiter: Hashable {
  let task: TaskSlot
  let level: WaitLevel

  init(_ task: TaskSlot, _ level: WaitLevel) {
    self.task = task
    self.level = level
  }
}

/// An endpoint: its owner receives, other tasks call.
struct Endpoint: ~Copyable {
  /// The task with the receive right.
  var owner: TaskSlot
  /// Callers that were not received yet, in order.
  var queue: [Waiter] = []
  /// Names registered for it.
  var names: [[UInt8]] = []
  /// The levels at which the owner waits for a message; the last one gets it, since it interrupted the other.
  var receivers: [WaitLevel] = []

  init(owner: TaskSlot) { self.owner = owner }
}

/// The state of a wait.
enum WaitState {
  case none
  /// The call is queued; the message is at that address, and the reply goes there.
  case queued(EndpointReference, address: GuestAddress)
  /// The call was received by that task, at either level; `call` is the number that the reply must name.
  case received(by: TaskSlot, address: GuestAddress, call: UInt64)
  case receiving(EndpointReference, address: GuestAddress)
  case name([UInt8], address: GuestAddress)
  /// The wait is over.
  case finished(ServerError?)

  /// Whether the page holds the message or the reply of the wait.
  func needs(_ page: PageNumber) -> Bool {
    let address: GuestAddress
    switch self {
    case .none, .finished: return false
    case .queued(_, let at), .received(_, let at, _), .receiving(_, let at), .name(_, let at): address = at
    }
    // The bytes were checked to be in the task's half.
    return page >= address.page
      && page <= address.advanced(by: Message.byteCount - 1).page
  }
}

/// The result of a call that may wait.
public enum WaitOutcome: Equatable, Sendable {
  case finished(ServerError?)
  case waiting
}

extension ServerState {
  @inline(__always)
  func isLive(_ reference: EndpointReference) -> Bool {
    endpoints.contains(reference.slot) && endpoints.generation(at: reference.slot) == reference.generation
  }

  /// Makes an endpoint and its owner's handle.
  /// - Throws: `.noMemory` when a table is full.
  mutating func createEndpoint(_ task: TaskSlot) throws(CallFailure) -> Handle {
    guard let slot = endpoints.insert(Endpoint(owner: task)) else { throw .noMemory }
    let reference = EndpointReference(slot: slot, generation: endpoints.generation(at: slot))
    guard let handle = tasks[task].handles.insert(.endpoint(reference, mayReceive: true)) else {
      _ = endpoints.remove(at: slot)
      throw .noMemory
    }
    tasks[task].endpoints.insert(reference)
    return handle
  }

  // MARK: Calling

  /// Sends the message at `address` to an endpoint; the reply goes to the same address.
  /// - Throws: `.invalid` for a bad handle or the task's own endpoint, `.canceled` when the endpoint is gone,
  ///   `.timedOut` when the call would wait and may not, `.fault` for a bad address, an error of `checkCapabilities`.
  mutating func call(
    _ waiter: Waiter, _ handle: Handle, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    let task = waiter.task
    guard case .endpoint(let reference, _) = tasks[task].handles[handle] else { throw .invalid }
    guard isLive(reference) else { throw .canceled }
    guard endpoints[reference.slot].owner != task else { throw .invalid }
    // The reply goes to the same address.
    try checkWritable(task, address, Message.byteCount)
    try checkCapabilities(task, try loadMessage(task, address))
    guard !endpoints[reference.slot].receivers.isEmpty || mayWait else { throw .timedOut }
    setWait(waiter, .queued(reference, address: address))
    endpoints[reference.slot].queue.append(waiter)
    deliverNext(reference)
    return waitOutcome(waiter)
  }

  /// Receives a call to an endpoint; the message goes to `address`.
  /// - Throws: `.invalid` for a bad handle, `.notPermitted` without the receive right, `.canceled` when the endpoint
  ///   is gone, `.again` to report new or ended tasks (R14), `.timedOut` when the call would wait and may not, `.fault`
  ///   for a bad address.
  mutating func receive(
    _ waiter: Waiter, _ handle: Handle, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    let reference = try receivable(waiter.task, handle)
    try checkWritable(waiter.task, address, Message.byteCount)
    return try receive(waiter, reference, address: address, mayWait: mayWait)
  }

  /// Answers a call and receives the next one. If the reply fails, its error is the result, and nothing is received.
  ///
  /// Everything that may wait for frames, or for a page that the task must map, comes before the reply, because the
  /// call is then repeated and would answer twice. Nothing after the reply throws `.waitForFrames` or `.fault`.
  /// - Throws: as `reply` and `receive`.
  mutating func replyAndReceive(
    _ waiter: Waiter, _ handle: Handle, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    try checkWritable(waiter.task, address, Message.byteCount)
    try reply(waiter.task, address: address)
    // Look it up after the reply, which may have moved the endpoint away.
    return try receive(waiter, try receivable(waiter.task, handle), address: address, mayWait: mayWait)
  }

  private func receivable(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> EndpointReference {
    guard case .endpoint(let reference, let mayReceive) = tasks[task].handles[handle] else { throw .invalid }
    guard mayReceive else { throw .notPermitted }
    guard isLive(reference) else { throw .canceled }
    return reference
  }

  /// Receives a message. `address` must be writable.
  private mutating func receive(
    _ waiter: Waiter, _ reference: EndpointReference, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    if takeNews(waiter.task) { throw .again }
    guard !endpoints[reference.slot].queue.isEmpty || mayWait else { throw .timedOut }
    setWait(waiter, .receiving(reference, address: address))
    endpoints[reference.slot].receivers.append(waiter.level)
    deliverNext(reference)
    return waitOutcome(waiter)
  }

  /// Delivers the first call to a waiting receiver, if there are both.
  private mutating func deliverNext(_ endpoint: EndpointReference) {
    let owner = endpoints[endpoint.slot].owner
    while let level = endpoints[endpoint.slot].receivers.last, let caller = endpoints[endpoint.slot].queue.first {
      let receiver = Waiter(owner, level)
      guard case .receiving(_, let address) = wait(receiver), case .queued(_, let callerAddress) = wait(caller)
      else { preconditionFailure("the endpoint's waiting tasks are inconsistent") }
      // The caller's pages may have gone while it waited: then its call fails, and the receiver goes on waiting.
      let message: Message
      do throws(ServerError) {
        message = try forAnother { (state) throws(CallFailure) in
          try state.loadMessage(caller.task, callerAddress)
        }
      } catch {
        endpoints[endpoint.slot].queue.removeFirst()
        finish(caller, error)
        continue
      }
      endpoints[endpoint.slot].receivers.removeLast()
      callCount += 1
      let reply = callCount << 16 | UInt64(caller.task.rawValue)
      guard isDelivered(message, from: caller.task, to: owner, address, reply: reply) else {
        finish(receiver, .fault)
        continue
      }
      endpoints[endpoint.slot].queue.removeFirst()
      setWait(caller, .received(by: owner, address: callerAddress, call: reply))
      tasks[owner].received.insert(caller)
      finish(receiver, nil)
    }
  }

  /// Answers the call that the message names.
  /// - Throws: `.invalid` for a number that is no call, `.canceled` when the caller timed out or ended, `.fault` for a
  ///   bad address, an error of `checkCapabilities`.
  mutating func reply(_ task: TaskSlot, address: GuestAddress) throws(CallFailure) {
    let message = try loadMessage(task, address)
    guard let (caller, callerAddress) = receivedCall(message.reply, by: task) else {
      // A number of an earlier call: its caller timed out or ended. Any other number never was a call.
      throw tasks[task].abandoned.remove(message.reply) != nil ? .canceled : .invalid
    }
    try checkCapabilities(task, message)
    tasks[task].received.remove(caller)
    let isDelivered = isDelivered(message, from: task, to: caller.task, callerAddress, reply: 0)
    finish(caller, isDelivered ? nil : .fault)
  }

  /// False: the receiver's memory is not writable.
  private mutating func isDelivered(
    _ message: Message, from sender: TaskSlot, to receiver: TaskSlot, _ address: GuestAddress, reply: UInt64
  ) -> Bool {
    do throws(ServerError) {
      try forAnother { (state) throws(CallFailure) in
        try state.deliver(message, from: sender, to: receiver, address, reply: reply)
      }
      return true
    } catch {
      return false
    }
  }

  /// The caller that waits for the reply to `number`, and the address for it; nil: none.
  private func receivedCall(_ number: UInt64, by task: TaskSlot) -> (caller: Waiter, address: GuestAddress)? {
    let caller = TaskSlot(UInt32(number & 0xffff))
    guard number != 0, tasks.contains(caller) else { return nil }
    for level in WaitLevel.allCases {
      let waiter = Waiter(caller, level)
      if case .received(let by, let address, let call) = wait(waiter), by == task, call == number {
        return (waiter, address)
      }
    }
    return nil
  }

  // MARK: Waiting

  func wait(_ waiter: Waiter) -> WaitState { tasks[waiter.task].waits[waiter.level.rawValue] }

  mutating func setWait(_ waiter: Waiter, _ state: WaitState) {
    tasks[waiter.task].waits[waiter.level.rawValue] = state
  }

  /// The result of a wait, if it has come.
  mutating func waitOutcome(_ waiter: Waiter) -> WaitOutcome {
    guard case .finished(let error) = wait(waiter) else { return .waiting }
    setWait(waiter, .none)
    return .finished(error)
  }

  /// Ends a wait at its timeout, unless its result has come meanwhile.
  mutating func stopWaiting(_ waiter: Waiter) -> ServerError? {
    defer { setWait(waiter, .none) }
    switch wait(waiter) {
    case .finished(let error): return error
    case .queued(let endpoint, _): endpoints[endpoint.slot].queue.removeAll { $0 == waiter }
    case .received(let server, _, let call): abandon(call, of: waiter, at: server)
    case .receiving(let endpoint, _):
      if isLive(endpoint) { endpoints[endpoint.slot].receivers.removeAll { $0 == waiter.level } }
    case .name: names.stopWaiting(waiter)
    case .none: break
    }
    return .timedOut
  }

  /// The caller of a received call leaves; a later reply is refused.
  private mutating func abandon(_ call: UInt64, of caller: Waiter, at server: TaskSlot) {
    tasks[server].received.remove(caller)
    tasks[server].abandoned.insert(call)
    // Bounds the set for servers that never answer.
    if tasks[server].abandoned.count > 1024 { tasks[server].abandoned = [call] }
  }

  /// - Parameter error: of `forAnother`, or none: a wait never ends with `.stopped`, which only `steps` throws.
  mutating func finish(_ waiter: Waiter, _ error: ServerError?) {
    setWait(waiter, .finished(error))
    events.wake(waiter.task)
  }

  // MARK: Ends

  /// Closes an endpoint: its callers fail.
  mutating func closeEndpoint(_ reference: EndpointReference) {
    guard isLive(reference) else { return }
    cancelReceivers(reference)
    let endpoint = endpoints.remove(at: reference.slot)
    for name in endpoint.names { names.remove(name) }
    tasks[endpoint.owner].endpoints.remove(reference)
    for caller in endpoint.queue { finish(caller, .canceled) }
  }

  /// Ends the owner's waits on an endpoint that it does not own any more.
  mutating func cancelReceivers(_ reference: EndpointReference) {
    let owner = endpoints[reference.slot].owner
    for level in endpoints[reference.slot].receivers { finish(Waiter(owner, level), .canceled) }
    endpoints[reference.slot].receivers = []
  }

  /// Removes an ending task from every queue. Its endpoints are closed with its handles.
  mutating func stopAllWaits(_ task: TaskSlot) {
    for level in WaitLevel.allCases { _ = stopWaiting(Waiter(task, level)) }
  }

  /// Cancels the calls that an ending task has received.
  mutating func cancelReceived(_ task: TaskSlot) {
    for caller in tasks[task].received { finish(caller, .canceled) }
    tasks[task].received = []
  }
}

extension PhysicalMemoryServer {
  /// The result of the task's wait, if it has come.
  /// - Parameters:
  ///   - task: the task that waits.
  ///   - level: the task itself, or its pm_return_pages handler.
  public func waitOutcome(_ task: TaskSlot, at level: WaitLevel = .task) -> WaitOutcome {
    withState { $0.waitOutcome(Waiter(task, level)) }
  }

  /// Ends a wait at its timeout.
  /// - Returns: `.timedOut`, unless the result has come meanwhile; nil: it has come without error.
  public func stopWaiting(_ task: TaskSlot, at level: WaitLevel = .task) -> ServerError? {
    withState { $0.stopWaiting(Waiter(task, level)) }
  }
}
