// Messages and names in a walk.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  func same(_ outcome: WaitOutcome?, _ expected: ModelOutcome?, _ task: ModelTask) throws {
    switch (outcome, expected) {
    case (nil, nil), (.waiting, .waiting): break
    case (.finished(let error), .finished(let expected)): try same(error, expected)
    default:
      throw fail("the server says \(String(describing: outcome)), the model \(String(describing: expected))")
    }
  }

  /// Performs a call that may wait, on the server and on the model. A result available at once is read from `result`.
  private func perform(
    _ task: ModelTask, result: UInt64, count: Int, server: () throws(CallFailure) -> WaitOutcome,
    model: () throws(CallFailure) -> ModelOutcome
  ) throws {
    var outcome: WaitOutcome?
    let error = attempt { () throws(CallFailure) in outcome = try server() }
    var expected: ModelOutcome?
    try same(error, attempt { () throws(CallFailure) in expected = try model() })
    try same(outcome, expected, task)
    if outcome == .finished(nil) { try load(task, result, count) }
  }

  func performMessage(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    let size = ModelMessage.size
    switch call {
    case .createEndpoint(let result):
      let error = attempt { () throws(CallFailure) in try server.createEndpoint(slot, result: result) }
      let expected = attempt { () throws(CallFailure) in
        try model.createEndpoint(task, HandleName(label), result: result)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
    case .call(let handle, let message, let address, let mayWait):
      let handle = number(handle)
      try prepare(task, message, address, label: label)
      try perform(task, result: address, count: size) { () throws(CallFailure) in
        try server.call(slot, handle, message: address, mayWait: mayWait)
      } model: { () throws(CallFailure) in
        try model.call(task, handle, at: address, mayWait: mayWait, label: label)
      }
    case .receive(let handle, let address, let mayWait):
      let handle = number(handle)
      try perform(task, result: address, count: size) { () throws(CallFailure) in
        try server.receive(slot, handle, message: address, mayWait: mayWait)
      } model: { () throws(CallFailure) in
        try model.receive(task, handle, at: address, mayWait: mayWait)
      }
    case .reply(let reply, let message, let address):
      try prepare(task, message, address, label: label, reply: number(task, reply))
      let error = attempt { () throws(CallFailure) in try server.reply(slot, message: address) }
      try same(error, attempt { () throws(CallFailure) in try model.reply(task, at: address, label: label) })
    case .replyAndReceive(let handle, let reply, let message, let address, let mayWait):
      let handle = number(handle)
      try prepare(task, message, address, label: label, reply: number(task, reply))
      try perform(task, result: address, count: size) { () throws(CallFailure) in
        try server.replyAndReceive(slot, handle, message: address, mayWait: mayWait)
      } model: { () throws(CallFailure) in
        // A call that fails for lack of memory changes nothing and sends no reply.
        try model.check(task, address, size, .write)
        try model.reply(task, at: address, label: label)
        return try model.receive(task, handle, at: address, mayWait: mayWait)
      }
    case .registerName(let name, let address, let handle):
      let handle = number(handle)
      try store(task, address, Self.name(name))
      let error = attempt { () throws(CallFailure) in
        try server.registerName(slot, name: address, endpoint: handle)
      }
      try same(error, attempt { () throws(CallFailure) in try model.registerName(task, address, handle) })
    case .lookUpName(let name, let address, let result, let mayWait):
      try store(task, address, Self.name(name))
      try perform(task, result: result, count: 4) { () throws(CallFailure) in
        try server.lookUpName(slot, name: address, result: result, mayWait: mayWait)
      } model: { () throws(CallFailure) in
        try model.lookUpName(task, address, result: result, mayWait: mayWait, label: label)
      }
    default: break
    }
  }
}
