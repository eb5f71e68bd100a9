// The naive model of names, and of what ends with an endpoint or its task.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Model {
  // MARK: Names

  private mutating func loadName(_ task: ModelTask, _ address: UInt64) throws(CallFailure) -> [UInt8] {
    var name: [UInt8] = []
    while name.count <= PM_NAME_MAXIMUM {
      let byte = try read(task, address &+ UInt64(name.count), 1)[0]
      if byte == 0 {
        guard !name.isEmpty else { throw .invalid }
        return name
      }
      name.append(byte)
    }
    throw .invalid
  }

  mutating func registerName(_ task: ModelTask, _ address: UInt64, _ handle: UInt32) throws(CallFailure) {
    let name = try loadName(task, address)
    guard case .endpoint(let endpoint, mayReceive: true) = task.handles[handle], endpoint.isLive else {
      throw .invalid
    }
    guard names[name] == nil else { throw .exists }
    names[name] = endpoint
    for waiter in tasks {
      guard case .name(name, let result) = waiter.wait else { continue }
      do throws(CallFailure) {
        try forAnother { (model) throws(CallFailure) in
          try model.give(waiter, endpoint, result, HandleName(waiter.message))
        }
        finish(waiter, nil)
      } catch {
        finish(waiter, error)
      }
    }
  }

  private mutating func give(
    _ task: ModelTask, _ endpoint: ModelEndpoint, _ result: UInt64, _ name: HandleName
  ) throws(CallFailure) {
    try check(task, result, 4, .write)
    try writeWord(task, result, task.handles.insert(.endpoint(endpoint, mayReceive: false), name))
  }

  mutating func lookUpName(
    _ task: ModelTask, _ address: UInt64, result: UInt64, mayWait: Bool, label: Int
  ) throws(CallFailure) -> ModelOutcome {
    let name = try loadName(task, address)
    try check(task, result, 4, .write)
    if let endpoint = names[name] {
      try give(task, endpoint, result, HandleName(label))
      return .finished(nil)
    }
    guard mayWait else { throw .noEntry }
    task.wait = .name(name, at: result)
    task.message = label
    return .waiting
  }

  // MARK: Ends

  mutating func drop(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) {
    guard handle != PM_CAP_SELF, handle != PM_CAP_CONTAINER else { throw .notPermitted }
    switch task.handles[handle] {
    case nil: throw .invalid
    case .container: return try destroyContainer(task, handle)
    case .endpoint(let endpoint, mayReceive: true): close(endpoint)
    default: break
    }
    task.handles.remove(handle)
    loseControl()
  }

  private mutating func close(_ endpoint: ModelEndpoint) {
    guard endpoint.isLive else { return }
    if let (receiver, _) = receiver(endpoint) { finish(receiver, .canceled) }
    endpoint.isLive = false
    names = names.filter { $0.value !== endpoint }
    for name in endpoint.queue { if let caller = task(name) { finish(caller, .canceled) } }
    endpoint.queue = []
  }

  mutating func leaveMessages(_ task: ModelTask) {
    _ = stopWaiting(task)
    for caller in tasks {
      if case .received(by: task.name, at: _, call: _) = caller.wait { finish(caller, .canceled) }
    }
    for entry in task.handles.entries {
      if case .endpoint(let endpoint, mayReceive: true) = entry.target, endpoint.owner == task.name { close(endpoint) }
    }
  }
}
