// Messages between tasks: endpoints, calls, replies. The server copies a message once, from the sender's memory to the
// receiver's, and says who sent it. Waiting is the machine's affair: a call here either has its result at once, or the
// task is left in a waiting state until `wake`, and asks again.
//
// The life of a call:
//  1. queued: at the endpoint, until its owner receives. Its message is still in the caller's memory.
//  2. received: the owner works on it. The caller waits for the reply.
//  3. answered, or cancelled because the owner is gone; the caller takes the result and goes on.
// A caller whose time is up leaves 1 or 2 by itself; a reply that comes later is refused.
//
// A task waits at two levels: its pm_return_pages handler may interrupt a wait and make waiting calls of its own. What
// the task itself waits for may come meanwhile; it is found when the handler has returned.

internal import CGuestABI
internal import GuestMemory

/// Names an endpoint for as long as it exists.
struct EndpointReference: Hashable {
  let slot: EndpointSlot
  let generation: UInt32
}

/// What runs in a task, and waits: the task itself, or its pm_return_pages handler, which interrupted it.
public enum WaitLevel: Int, Sendable, CaseIterable { case task, handler }

struct Waiter: Hashable {
  let task: TaskSlot
  let level: WaitLevel

  init(_ task: TaskSlot, _ level: WaitLevel) {
    self.task = task
    self.level = level
  }
}

struct Endpoint: ~Copyable {
  /// Who receives.
  var owner: TaskSlot
  /// Callers not received yet, the first to come first.
  var queue: [Waiter] = []
  /// Registered for it.
  var names: [[UInt8]] = []
  /// Where the owner waits for a message; the last one gets it, for the others wait for that to go on.
  var receivers: [WaitLevel] = []

  init(owner: TaskSlot) { self.owner = owner }
}

/// What a task waits for.
enum WaitState {
  case none
  /// Its call is queued; the message is at that address, and the reply will be.
  case queued(EndpointReference, address: GuestAddress)
  /// Its call has been received by that task, at whatever level; `call` is the number the reply must name.
  case received(by: TaskSlot, address: GuestAddress, call: UInt64)
  case receiving(EndpointReference, address: GuestAddress)
  case name([UInt8], address: GuestAddress)
  /// What it waited for has come.
  case finished(ServerError?)

  /// Whether what the task waits for is read from that page, or stored there.
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

/// Whether a call that may wait has its result.
public enum WaitOutcome: Equatable, Sendable {
  case finished(ServerError?)
  case waiting
}

extension ServerState {
  @inline(__always)
  func isLive(_ reference: EndpointReference) -> Bool {
    endpoints.contains(reference.slot) && endpoints.generation(at: reference.slot) == reference.generation
  }

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

  mutating func call(
    _ waiter: Waiter, _ handle: Handle, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    let task = waiter.task
    guard case .endpoint(let reference, _) = tasks[task].handles[handle] else { throw .invalid }
    guard isLive(reference) else { throw .canceled }
    guard endpoints[reference.slot].owner != task else { throw .invalid }
    // The reply comes to the same place.
    try checkWritable(task, address, Message.byteCount)
    try checkCapabilities(task, try loadMessage(task, address))
    guard !endpoints[reference.slot].receivers.isEmpty || mayWait else { throw .timedOut }
    setWait(waiter, .queued(reference, address: address))
    endpoints[reference.slot].queue.append(waiter)
    deliverNext(reference)
    return waitOutcome(waiter)
  }

  mutating func receive(
    _ waiter: Waiter, _ handle: Handle, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    let reference = try receivable(waiter.task, handle)
    try checkWritable(waiter.task, address, Message.byteCount)
    return try receive(waiter, reference, address: address, mayWait: mayWait)
  }

  /// Answers a call and receives the next. An error of the reply is the result, and nothing is received then.
  ///
  /// Whatever may have to wait for frames, or for a page that the task has to map, is done before the reply: the call is
  /// made again then, and would answer twice. Nothing behind the reply throws `.waitForFrames` or `.fault`.
  mutating func replyAndReceive(
    _ waiter: Waiter, _ handle: Handle, address: GuestAddress, mayWait: Bool
  ) throws(CallFailure) -> WaitOutcome {
    try checkWritable(waiter.task, address, Message.byteCount)
    try reply(waiter.task, address: address)
    // Only now: the reply may have moved the endpoint away.
    return try receive(waiter, try receivable(waiter.task, handle), address: address, mayWait: mayWait)
  }

  private func receivable(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) -> EndpointReference {
    guard case .endpoint(let reference, let mayReceive) = tasks[task].handles[handle] else { throw .invalid }
    guard mayReceive else { throw .notPermitted }
    guard isLive(reference) else { throw .canceled }
    return reference
  }

  /// The message can be stored at `address`.
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

  /// Brings a waiting receiver and the first caller together, if there are both.
  private mutating func deliverNext(_ endpoint: EndpointReference) {
    let owner = endpoints[endpoint.slot].owner
    while let level = endpoints[endpoint.slot].receivers.last, let caller = endpoints[endpoint.slot].queue.first {
      let receiver = Waiter(owner, level)
      guard case .receiving(_, let address) = wait(receiver), case .queued(_, let callerAddress) = wait(caller)
      else { preconditionFailure("an endpoint's waiting tasks disagree with it") }
      // The caller's pages may have gone while it waited: then its call fails, not the receiver.
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
  mutating func reply(_ task: TaskSlot, address: GuestAddress) throws(CallFailure) {
    let message = try loadMessage(task, address)
    guard let (caller, callerAddress) = receivedCall(message.reply, by: task) else {
      // A number it was given once: the caller has gone on, or is gone. Any other was never a call.
      throw tasks[task].abandoned.remove(message.reply) != nil ? .canceled : .invalid
    }
    try checkCapabilities(task, message)
    tasks[task].received.remove(caller)
    let isDelivered = isDelivered(message, from: task, to: caller.task, callerAddress, reply: 0)
    finish(caller, isDelivered ? nil : .fault)
  }

  /// False: the receiver's memory cannot take it.
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

  /// Who waits for the reply of that number, and where it shall be put; nil: nobody does.
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

  /// The result of what is waited for, if it has come.
  mutating func waitOutcome(_ waiter: Waiter) -> WaitOutcome {
    guard case .finished(let error) = wait(waiter) else { return .waiting }
    setWait(waiter, .none)
    return .finished(error)
  }

  /// The time is up: the waiter takes back what it waits for, unless it has come meanwhile.
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

  /// The caller of a received call goes away; whoever answers it is told so.
  private mutating func abandon(_ call: UInt64, of caller: Waiter, at server: TaskSlot) {
    tasks[server].received.remove(caller)
    tasks[server].abandoned.insert(call)
    // A server that never answers must not make this grow for ever.
    if tasks[server].abandoned.count > 1024 { tasks[server].abandoned = [call] }
  }

  /// `error`: of `forAnother`, or none that a call leaves with before it is done: `.stopped` is for `steps` alone to throw.
  mutating func finish(_ waiter: Waiter, _ error: ServerError?) {
    setWait(waiter, .finished(error))
    events.wake(waiter.task)
  }

  // MARK: Ends

  /// The endpoint is gone: who called it learns so.
  mutating func closeEndpoint(_ reference: EndpointReference) {
    guard isLive(reference) else { return }
    cancelReceivers(reference)
    let endpoint = endpoints.remove(at: reference.slot)
    for name in endpoint.names { names.remove(name) }
    tasks[endpoint.owner].endpoints.remove(reference)
    for caller in endpoint.queue { finish(caller, .canceled) }
  }

  /// The owner waits here no more: the endpoint is no longer its own.
  mutating func cancelReceivers(_ reference: EndpointReference) {
    let owner = endpoints[reference.slot].owner
    for level in endpoints[reference.slot].receivers { finish(Waiter(owner, level), .canceled) }
    endpoints[reference.slot].receivers = []
  }

  /// A task that ends leaves every queue. Its endpoints go with its handles.
  mutating func stopAllWaits(_ task: TaskSlot) {
    for level in WaitLevel.allCases { _ = stopWaiting(Waiter(task, level)) }
  }

  /// Whose calls the task has received learn that it answers none any more.
  mutating func cancelReceived(_ task: TaskSlot) {
    for caller in tasks[task].received { finish(caller, .canceled) }
    tasks[task].received = []
  }
}

extension PhysicalMemoryServer {
  /// Whether what the task waits for has come.
  public func waitOutcome(_ task: TaskSlot, at level: WaitLevel = .task) -> WaitOutcome {
    withState { $0.waitOutcome(Waiter(task, level)) }
  }

  /// Gives up waiting. PM_ETIMEDOUT, unless it has come meanwhile; nil: it has come without error.
  public func stopWaiting(_ task: TaskSlot, at level: WaitLevel = .task) -> ServerError? {
    withState { $0.stopWaiting(Waiter(task, level)) }
  }
}
