// Messages between tasks: endpoints, calls, replies. The server copies a message once, from the sender's memory to the
// receiver's, and says who sent it. Waiting is the machine's affair: a call here either has its result at once, or the
// task is left in a waiting state until `wake`, and asks again.
//
// The life of a call:
//  1. queued: at the endpoint, until its owner receives. Its message is still in the caller's memory.
//  2. received: the owner works on it. The caller waits for the reply.
//  3. answered, or cancelled because the owner is gone; the caller takes the result and goes on.
// A caller whose time is up leaves 1 or 2 by itself; a reply that comes later is refused.

internal import CGuestABI
internal import GuestMemory

/// Names an endpoint for as long as it exists.
struct EndpointReference: Hashable {
  let slot: UInt32
  let generation: UInt32
}

struct Endpoint: ~Copyable {
  /// Who receives.
  var owner: TaskSlot
  /// Callers not received yet, the first to come first.
  var queue: [TaskSlot] = []
  /// The owner waits here for a message.
  var isWaiting = false

  init(owner: TaskSlot) { self.owner = owner }
}

/// What a task waits for.
enum WaitState {
  case none
  /// Its call is queued; the message is at that address, and the reply will be.
  case queued(EndpointReference, address: UInt64)
  /// Its call has been received by that task; `call` is the number the reply must name.
  case received(by: TaskSlot, address: UInt64, call: UInt64)
  case receiving(EndpointReference, address: UInt64)
  case name([UInt8], address: UInt64)
  /// What it waited for has come.
  case finished(ServerError?)

  /// Whether what the task waits for is read from that page, or stored there.
  func needs(_ page: PageNumber) -> Bool {
    let address: UInt64
    switch self {
    case .none, .finished: return false
    case .queued(_, let at), .received(_, let at, _), .receiving(_, let at), .name(_, let at): address = at
    }
    // The bytes were checked to be in the task's half.
    return page >= PageNumber(containing: address)
      && page <= PageNumber(containing: address + UInt64(Message.byteCount - 1))
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

  mutating func createEndpoint(_ task: TaskSlot) throws(ServerError) -> UInt32 {
    guard let slot = endpoints.insert(Endpoint(owner: task)) else { throw .noMemory }
    let reference = EndpointReference(slot: slot, generation: endpoints.generation(at: slot))
    guard let handle = tasks[task.rawValue].handles.insert(.endpoint(reference, mayReceive: true)) else {
      _ = endpoints.remove(at: slot)
      throw .noMemory
    }
    tasks[task.rawValue].endpoints.insert(reference)
    return handle
  }

  // MARK: Calling

  mutating func call(
    _ task: TaskSlot, _ handle: UInt32, address: UInt64, mayWait: Bool
  ) throws(ServerError) -> WaitOutcome {
    guard case .endpoint(let reference, _) = tasks[task.rawValue].handles[handle] else { throw .invalid }
    guard isLive(reference) else { throw .canceled }
    guard endpoints[reference.slot].owner != task else { throw .invalid }
    // The reply comes to the same place.
    try checkWritable(task, address, Message.byteCount)
    try checkCapabilities(task, try loadMessage(task, address))
    guard endpoints[reference.slot].isWaiting || mayWait else { throw .timedOut }
    tasks[task.rawValue].wait = .queued(reference, address: address)
    endpoints[reference.slot].queue.append(task)
    deliverNext(reference)
    return waitOutcome(task)
  }

  mutating func receive(
    _ task: TaskSlot, _ handle: UInt32, address: UInt64, mayWait: Bool
  ) throws(ServerError) -> WaitOutcome {
    guard case .endpoint(let reference, let mayReceive) = tasks[task.rawValue].handles[handle] else { throw .invalid }
    guard mayReceive else { throw .notPermitted }
    guard isLive(reference) else { throw .canceled }
    try checkWritable(task, address, Message.byteCount)
    if takeNews(task) { throw .again }
    guard !endpoints[reference.slot].queue.isEmpty || mayWait else { throw .timedOut }
    tasks[task.rawValue].wait = .receiving(reference, address: address)
    endpoints[reference.slot].isWaiting = true
    deliverNext(reference)
    return waitOutcome(task)
  }

  /// Brings a waiting receiver and the first caller together, if there are both.
  private mutating func deliverNext(_ endpoint: EndpointReference) {
    let receiver = endpoints[endpoint.slot].owner
    while endpoints[endpoint.slot].isWaiting, let caller = endpoints[endpoint.slot].queue.first {
      guard case .receiving(_, let address) = tasks[receiver.rawValue].wait,
        case .queued(_, let callerAddress) = tasks[caller.rawValue].wait
      else { preconditionFailure("an endpoint's waiting tasks disagree with it") }
      // The caller changes nothing while it waits, but its pages may have gone: then its call fails, not the receiver.
      let message: Message
      do throws(ServerError) {
        message = try loadMessage(caller, callerAddress)
      } catch {
        endpoints[endpoint.slot].queue.removeFirst()
        finish(caller, error)
        continue
      }
      endpoints[endpoint.slot].isWaiting = false
      callCount += 1
      let reply = callCount << 16 | UInt64(caller.rawValue)
      guard (try? deliver(message, from: caller, to: receiver, address, reply: reply)) != nil else {
        return finish(receiver, .fault)
      }
      endpoints[endpoint.slot].queue.removeFirst()
      tasks[caller.rawValue].wait = .received(by: receiver, address: callerAddress, call: reply)
      tasks[receiver.rawValue].received.insert(caller)
      finish(receiver, nil)
    }
  }

  /// Answers the call that the message names.
  mutating func reply(_ task: TaskSlot, address: UInt64) throws(ServerError) {
    let message = try loadMessage(task, address)
    let caller = TaskSlot(UInt32(message.reply & 0xffff))
    guard tasks.contains(caller.rawValue), message.reply != 0,
      case .received(let by, let callerAddress, let call) = tasks[caller.rawValue].wait, by == task,
      call == message.reply
    else {
      // A number it was given once: the caller has gone on, or is gone. Any other was never a call.
      throw tasks[task.rawValue].abandoned.remove(message.reply) != nil ? .canceled : .invalid
    }
    try checkCapabilities(task, message)
    tasks[task.rawValue].received.remove(caller)
    let delivered = (try? deliver(message, from: task, to: caller, callerAddress, reply: 0)) != nil
    finish(caller, delivered ? nil : .fault)
  }

  // MARK: Waiting

  /// The result of what the task waits for, if it has come.
  mutating func waitOutcome(_ task: TaskSlot) -> WaitOutcome {
    guard case .finished(let error) = tasks[task.rawValue].wait else { return .waiting }
    tasks[task.rawValue].wait = .none
    return .finished(error)
  }

  /// The task's time is up: it takes back what it waits for, unless it has come meanwhile.
  mutating func stopWaiting(_ task: TaskSlot) -> ServerError? {
    defer { tasks[task.rawValue].wait = .none }
    switch tasks[task.rawValue].wait {
    case .finished(let error): return error
    case .queued(let endpoint, _): endpoints[endpoint.slot].queue.removeAll { $0 == task }
    case .received(let server, _, let call): abandon(call, of: task, at: server)
    case .receiving(let endpoint, _): if isLive(endpoint) { endpoints[endpoint.slot].isWaiting = false }
    case .name: names.stopWaiting(task)
    case .none: break
    }
    return .timedOut
  }

  /// The caller of a received call goes away; whoever answers it is told so.
  private mutating func abandon(_ call: UInt64, of caller: TaskSlot, at server: TaskSlot) {
    tasks[server.rawValue].received.remove(caller)
    tasks[server.rawValue].abandoned.insert(call)
    // A server that never answers must not make this grow for ever.
    if tasks[server.rawValue].abandoned.count > 1024 { tasks[server.rawValue].abandoned = [call] }
  }

  mutating func finish(_ task: TaskSlot, _ error: ServerError?) {
    tasks[task.rawValue].wait = .finished(error)
    operations.wake(task)
  }

  // MARK: Ends

  /// The endpoint is gone: who called it learns so.
  mutating func closeEndpoint(_ reference: EndpointReference) {
    guard isLive(reference) else { return }
    names.remove(reference)
    let endpoint = endpoints.remove(at: reference.slot)
    tasks[endpoint.owner.rawValue].endpoints.remove(reference)
    for caller in endpoint.queue { finish(caller, .canceled) }
    if endpoint.isWaiting, case .receiving = tasks[endpoint.owner.rawValue].wait { finish(endpoint.owner, .canceled) }
  }

  /// A task that ends leaves every queue; those who wait for it learn so.
  mutating func leaveMessages(_ task: TaskSlot) {
    _ = stopWaiting(task)
    for caller in tasks[task.rawValue].received { finish(caller, .canceled) }
    tasks[task.rawValue].received = []
    for endpoint in tasks[task.rawValue].endpoints { closeEndpoint(endpoint) }
  }
}
