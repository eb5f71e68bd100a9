// What a task does in a walk: to the server as a program would, arguments written to its memory first and results read
// from it, and the same to the model.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  // MARK: The task's memory

  /// Writes as the task itself would, up to the first fault that is not served.
  /// - Returns: whether all of it is there.
  @discardableResult
  func store(_ task: ModelTask, _ address: UInt64, _ bytes: [UInt8]) throws -> Bool {
    var done = 0
    while done < bytes.count {
      let next = address &+ UInt64(done)
      let part = bytes[done..<done + Model.firstPart(next, bytes.count - done)]
      let outcome = try retry(task, next, .write) { machine.store(task.slot, next, part.span) }
      let expected = model.store(task, next, part)
      guard outcome == expected else { throw disagreement(next, .write, outcome, expected) }
      try absorb()
      guard outcome == nil else { return false }
      done += part.count
    }
    return true
  }

  /// Reads as the task itself would, and compares.
  /// - Returns: nil: a fault that is not served.
  @discardableResult
  func load(_ task: ModelTask, _ address: UInt64, _ count: Int, _ access: Access = .read) throws -> [UInt8]? {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let next = address &+ UInt64(bytes.count)
      var part = [UInt8](repeating: 0, count: Model.firstPart(next, count - bytes.count))
      let outcome = try retry(task, next, access) {
        var span = part.mutableSpan
        return machine.load(task.slot, next, access, into: &span)
      }
      switch model.access(task, PageNumber(containing: next), access) {
      case .fault(let expected):
        guard outcome == expected else { throw disagreement(next, access, outcome, expected) }
      case .content(let content):
        guard outcome == nil else { throw disagreement(next, access, outcome, nil) }
        let start = Int(next & 4095)
        for index in part.indices where part[index] != content.bytes[start + index] {
          throw fail(
            "the byte at \(hex(next + UInt64(index))) is \(part[index]), not \(content.bytes[start + index])")
        }
      }
      try absorb()
      guard outcome == nil else { return nil }
      bytes += part
    }
    return bytes
  }

  /// Tries until it succeeds, or the fault is not the server's; nil: it succeeded.
  private func retry(
    _ task: ModelTask, _ address: UInt64, _ access: Access, _ body: () -> Bool
  ) throws -> FaultOutcome? {
    for _ in 0..<4 {
      if body() { return nil }
      switch server.fault(task.slot, PageNumber(containing: address), access) {
      case .served, .spurious: continue
      case let outcome: return outcome
      }
    }
    throw fail("an access to \(hex(address)) faults for ever")
  }

  private func disagreement(
    _ address: UInt64, _ access: Access, _ outcome: FaultOutcome?, _ expected: FaultOutcome?
  ) -> Disagreement {
    func text(_ outcome: FaultOutcome?) -> String { outcome.map { "\($0)" } ?? "done" }
    return fail("\(access) at \(hex(address)): the server says \(text(outcome)), the model \(text(expected))")
  }

  func hex(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }

  /// A fault serves neighbours too, which only the leaves tell. They are seen after a call: where the call changes what
  /// the neighbours name, the page must be there before.
  private func touch(_ task: ModelTask, _ address: UInt64, _ count: Int) throws {
    if task.around != 1, address != 0 { try store(task, address, [UInt8](repeating: 0xaa, count: count)) }
  }

  // MARK: Arguments

  private func number(_ handle: HandleArgument) -> UInt32 {
    switch handle {
    case .number(let number): return number
    case .name(let name):
      for task in model.tasks { if let number = task.handles.number(name) { return number } }
      // What would have brought it is not in the list: a number that nobody has.
      return 0xfff0
    }
  }

  /// Writes a list of ids to the task's memory.
  private func prepare(_ task: ModelTask, _ ids: IDArgument) throws -> (FrameIDArgument, ModelIDs) {
    switch ids {
    case .from(let start): return (.from(start), .from(start))
    case .list(let list, let address):
      try prepare(task, list, address)
      return (.array(address), .array(address))
    }
  }

  /// Where it cannot be written the call reads what is there, and the page must be there before: see `touch`.
  private func prepare(_ task: ModelTask, _ list: [UInt32], _ address: UInt64) throws {
    let isThere = try store(task, address, list.flatMap(littleEndian))
    if !isThere, task.around != 1 { try load(task, address, list.count * 4) }
  }

  private func prepare(
    _ task: ModelTask, _ message: MessageArgument, _ address: UInt64, label: Int, reply: UInt64 = 0
  ) throws {
    var it = ModelMessage(bytes: [UInt8](repeating: UInt8(truncatingIfNeeded: label), count: ModelMessage.size))
    it.handles = (0..<4).map { $0 < message.handles.count ? number(message.handles[$0]) : 0 }
    it.moves = message.moves
    it.reply = reply
    try store(task, address, it.bytes)
  }

  private func number(_ task: ModelTask, _ reply: ReplyArgument) -> UInt64 {
    switch reply {
    case .number(let number): number
    case .call(let label): task.calls.last { $0.label == label }?.number ?? 0x7777_0000
    }
  }

  private static func name(_ number: Int) -> [UInt8] {
    switch number {
    case 0: [0]
    case 1: [UInt8](repeating: 0x61, count: 64) + [0]
    case 2: [0xff, 0xfe, 0]
    case 3: [UInt8](repeating: 0x62, count: 63) + [0]
    default: Array("n\(number)".utf8) + [0]
    }
  }

  // MARK: Calls

  func perform(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    switch call {
    case .load(let address, let count, let access): try load(task, address, count, access)
    case .store(let address, let word): try store(task, address, littleEndian(word))
    case .read(let address, let count):
      var bytes = [UInt8](repeating: 0, count: count)
      let error = attempt { () throws(ServerError) in try server.readMemory(task.slot, address, into: &bytes) }
      var expected: [UInt8] = []
      try same(error, attempt { () throws(ServerError) in expected = try model.read(task, address, count) })
      if error == nil, bytes != expected { throw fail("other bytes at \(hex(address)) than the model has") }
    case .write(let address, let count, let byte):
      let bytes = [UInt8](repeating: byte, count: count)
      let error = attempt { () throws(ServerError) in try server.writeMemory(task.slot, address, bytes.span) }
      try same(error, attempt { () throws(ServerError) in try model.write(task, address, bytes) })
    case .check(let address, let count):
      let error = attempt { () throws(ServerError) in try server.checkReadable(task.slot, address, count) }
      try same(error, attempt { () throws(ServerError) in try model.check(task, address, Int(count), .read) })
    case .wake: try same(server.waitOutcome(task.slot), model.outcome(task), task)
    case .stopWaiting: try same(server.stopWaiting(task.slot), model.stopWaiting(task))
    case .createContainer, .destroyContainer, .allocate, .deallocate, .map, .unmap, .mapping:
      try performContainerCall(call, task, label)
    case .copy, .releaseData, .createFilled: try performCopy(call, task, label)
    case .share, .revoke, .lock, .unlock, .pin, .unpin, .drop: try performSharing(call, task, label)
    case .createEndpoint, .call, .receive, .reply, .replyAndReceive, .registerName, .lookUpName:
      try performMessage(call, task, label)
    }
  }

  private func performContainerCall(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .createContainer(let result):
      let error = attempt { () throws(ServerError) in try server.createContainer(slot, result: result) }
      try same(
        error,
        attempt { () throws(ServerError) in try model.createContainer(task, HandleName(label), result: result) })
      if error == nil { try load(task, result, 4) }
    case .destroyContainer(let handle):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in try server.destroyContainer(slot, handle) }
      try same(error, attempt { () throws(ServerError) in try model.destroyContainer(task, handle) })
    case .allocate(let handle, let start, let count, let address, let flags):
      let handle = number(handle)
      try store(task, address, littleEndian(count))
      let error = attempt { () throws(ServerError) in
        try server.allocate(slot, handle, start: start, countAddress: address, flags: flags)
      }
      let expected = attempt { () throws(ServerError) in
        let result = try model.allocate(task, handle, start: start, countAddress: address, flags: flags)
        if let error = result.error { throw error }
      }
      try same(error, expected)
      try load(task, address, 4)
    case .deallocate(let handle, let start, let count, let address, let flags):
      let handle = number(handle)
      try store(task, address, littleEndian(count))
      let error = attempt { () throws(ServerError) in
        try server.deallocate(slot, handle, start: start, countAddress: address, flags: flags)
      }
      let expected = attempt { () throws(ServerError) in
        let result = try model.deallocate(task, handle, start: start, countAddress: address, flags: flags)
        if let error = result.error { throw error }
      }
      try same(error, expected)
      try load(task, address, 4)
    case .map(let handle, let start, let count, let address, let flags):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in
        try server.map(slot, handle, start: start, count: count, address: address, flags: flags)
      }
      let flags = MappingFlags(rawValue: flags)
      let expected = attempt { () throws(ServerError) in
        try model.map(task, handle, start, count, address, flags)
      }
      try same(error, expected)
      if error == nil, !flags.contains(.lazy) { try checkLeaves(task, address, count) }
    case .unmap(let address, let count):
      let error = attempt { () throws(ServerError) in try server.unmap(slot, address: address, count: count) }
      try same(error, attempt { () throws(ServerError) in try model.unmap(task, address, count) })
    case .mapping(let address): try performMapping(task, address)
    default: break
    }
  }

  /// What was mapped eagerly is there at once, with all rights that it can have.
  private func checkLeaves(_ task: ModelTask, _ address: UInt64, _ count: UInt32) throws {
    for offset in 0..<UInt64(count) {
      let page = PageNumber(address / 4096 + offset)
      guard let mapping = task.mappings[page.rawValue],
        case .content(let content) = mapping.container.frames[mapping.id],
        let leaf = machine.leaf(task.slot, page)
      else { throw fail("\(hex(page.address)) has no leaf") }
      var rights = mapping.flags.effectiveRights
      if content.sharers > 1 { rights.remove(.write) }
      if leaf.rights != rights { throw fail("\(hex(page.address)) has rights \(leaf.rights), not \(rights)") }
    }
  }

  private func performMapping(_ task: ModelTask, _ address: UInt64) throws {
    var information: MappingInformation?
    let error = attempt { () throws(ServerError) in
      information = try server.mappingInformation(task.slot, address: address)
    }
    var expected: (handle: UInt32, mapping: ModelMapping, content: ModelContent?)?
    try same(error, attempt { () throws(ServerError) in expected = try model.mapping(task, address) })
    guard let information, let (handle, mapping, content) = expected else { return }
    let rights = machine.leaf(task.slot, PageNumber(containing: address))?.rights ?? []
    guard information.container == handle, information.frame == mapping.id, information.requested == mapping.flags,
      information.rights == rights, (information.physicalAddress != 0) == (content != nil)
    else { throw fail("\(information) is not what the model has") }
    if let content, let wrong = model.place(content, at: information.physicalAddress) { throw fail(wrong) }
  }

  private func performCopy(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .copy(let source, let from, let destination, let to, let count, let frameError):
      let (source, destination) = (number(source), number(destination))
      try touch(task, frameError, 4)
      let (sourceIDs, modelSourceIDs) = try prepare(task, from)
      let (destinationIDs, modelDestinationIDs) = try prepare(task, to)
      let error = attempt { () throws(ServerError) in
        try server.copy(slot, source, sourceIDs, destination, destinationIDs, count: count, frameError: frameError)
      }
      let expected = attempt { () throws(ServerError) in
        try model.copy(
          task, source, modelSourceIDs, destination, modelDestinationIDs, count: count, frameError: frameError)
      }
      try same(error, expected)
      if frameError != 0, error != nil { try load(task, frameError, 4) }
    case .releaseData(let handle, let ids, let address):
      let handle = number(handle)
      try prepare(task, ids, address)
      let count = UInt32(ids.count)
      let error = attempt { () throws(ServerError) in
        try server.releaseData(slot, handle, frames: address, count: count)
      }
      try same(error, attempt { () throws(ServerError) in try model.releaseData(task, handle, at: address, count) })
    case .createFilled(let source, let ids, let count, let remote, let result, let weak):
      let (source, remote) = (number(source), number(remote))
      try touch(task, result, 4)
      try touch(task, weak, 4)
      var initial = PhysicalMemoryServer.InitialFrames.fresh
      var modelSource: (UInt32, ModelIDs)?
      if let ids {
        let (ids, modelIDs) = try prepare(task, ids)
        initial = .copies(source: source, ids)
        modelSource = (source, modelIDs)
      }
      let error = attempt { () throws(ServerError) in
        try server.createContainer(slot, initial, count: count, remote: remote, result: result, weakResult: weak)
      }
      let expected = attempt { () throws(ServerError) in
        try model.createFilled(
          task, (HandleName(label), HandleName(label, 1)), from: modelSource, count: count, remote: remote,
          result: result, weak: weak)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
      if error == nil, weak != 0 { try load(task, weak, 4) }
    default: break
    }
  }

  private func performSharing(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .share(let handle, let remote, let result):
      let (handle, remote) = (number(handle), number(remote))
      let error = attempt { () throws(ServerError) in
        try server.share(slot, handle, remote: remote, result: result)
      }
      let expected = attempt { () throws(ServerError) in
        try model.share(task, HandleName(label), handle, remote: remote, result: result)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
    case .revoke(let handle):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in try server.revoke(slot, handle) }
      try same(error, attempt { () throws(ServerError) in try model.revoke(task, handle) })
    case .lock(let handle, let time):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in try server.lock(slot, handle, microseconds: time) }
      try same(error, attempt { () throws(ServerError) in try model.lock(task, handle, microseconds: time) })
    case .unlock(let handle):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in try server.unlock(slot, handle) }
      try same(error, attempt { () throws(ServerError) in try model.unlock(task, handle) })
    case .pin(let handle, let start, let count, let time, let physical):
      try performPin(task, number(handle), start, count, time, physical)
    case .unpin(let handle, let start, let count):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in try server.unpin(slot, handle, start: start, count: count) }
      try same(error, attempt { () throws(ServerError) in try model.unpin(task, handle, start, count) })
    case .drop(let handle):
      let handle = number(handle)
      let error = attempt { () throws(ServerError) in try server.dropCapability(slot, handle) }
      try same(error, attempt { () throws(ServerError) in try model.drop(task, handle) })
    default: break
    }
  }

  private func performPin(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ time: UInt64, _ physical: UInt64
  ) throws {
    if count < 100 { try touch(task, physical, Int(count) * 8) }
    let error = attempt { () throws(ServerError) in
      try server.pin(task.slot, handle, start: start, count: count, microseconds: time, physical: physical)
    }
    var addresses: [UInt64] = []
    if error == nil {
      // Where frames are is the server's choice.
      var bytes = [UInt8](repeating: 0, count: Int(count) * 8)
      _ = attempt { () throws(ServerError) in try server.readMemory(task.slot, physical, into: &bytes) }
      addresses = (0..<Int(count)).map { longWord(bytes, $0 * 8) }
    }
    var wrong: String?
    let expected = attempt { () throws(ServerError) in
      wrong = try model.pin(
        task, handle, start, count, microseconds: time, physical: physical, addresses: addresses)
    }
    try same(error, expected)
    if let wrong { throw fail(wrong) }
    if error == nil { try load(task, physical, Int(count) * 8) }
  }

  // MARK: Messages

  private func same(_ outcome: WaitOutcome?, _ expected: ModelOutcome?, _ task: ModelTask) throws {
    switch (outcome, expected) {
    case (nil, nil), (.waiting, .waiting): break
    case (.finished(let error), .finished(let expected)): try same(error, expected)
    default:
      throw fail("the server says \(String(describing: outcome)), the model \(String(describing: expected))")
    }
  }

  /// Does a call that may wait to both. What it has at once is read from `result`.
  private func perform(
    _ task: ModelTask, result: UInt64, count: Int, server: () throws(ServerError) -> WaitOutcome,
    model: () throws(ServerError) -> ModelOutcome
  ) throws {
    var outcome: WaitOutcome?
    let error = attempt { () throws(ServerError) in outcome = try server() }
    var expected: ModelOutcome?
    try same(error, attempt { () throws(ServerError) in expected = try model() })
    try same(outcome, expected, task)
    if outcome == .finished(nil) { try load(task, result, count) }
  }

  private func performMessage(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    let size = ModelMessage.size
    switch call {
    case .createEndpoint(let result):
      let error = attempt { () throws(ServerError) in try server.createEndpoint(slot, result: result) }
      let expected = attempt { () throws(ServerError) in
        try model.createEndpoint(task, HandleName(label), result: result)
      }
      try same(error, expected)
      if error == nil { try load(task, result, 4) }
    case .call(let handle, let message, let address, let mayWait):
      let handle = number(handle)
      try prepare(task, message, address, label: label)
      try perform(task, result: address, count: size) { () throws(ServerError) in
        try server.call(slot, handle, message: address, mayWait: mayWait)
      } model: { () throws(ServerError) in
        try model.call(task, handle, at: address, mayWait: mayWait, label: label)
      }
    case .receive(let handle, let address, let mayWait):
      let handle = number(handle)
      try perform(task, result: address, count: size) { () throws(ServerError) in
        try server.receive(slot, handle, message: address, mayWait: mayWait)
      } model: { () throws(ServerError) in
        try model.receive(task, handle, at: address, mayWait: mayWait)
      }
    case .reply(let reply, let message, let address):
      try prepare(task, message, address, label: label, reply: number(task, reply))
      let error = attempt { () throws(ServerError) in try server.reply(slot, message: address) }
      try same(error, attempt { () throws(ServerError) in try model.reply(task, at: address, label: label) })
    case .replyAndReceive(let handle, let reply, let message, let address, let mayWait):
      let handle = number(handle)
      try prepare(task, message, address, label: label, reply: number(task, reply))
      try perform(task, result: address, count: size) { () throws(ServerError) in
        try server.replyAndReceive(slot, handle, message: address, mayWait: mayWait)
      } model: { () throws(ServerError) in
        try model.reply(task, at: address, label: label)
        return try model.receive(task, handle, at: address, mayWait: mayWait)
      }
    case .registerName(let name, let address, let handle):
      let handle = number(handle)
      try store(task, address, Self.name(name))
      let error = attempt { () throws(ServerError) in
        try server.registerName(slot, name: address, endpoint: handle)
      }
      try same(error, attempt { () throws(ServerError) in try model.registerName(task, address, handle) })
    case .lookUpName(let name, let address, let result, let mayWait):
      try store(task, address, Self.name(name))
      try perform(task, result: result, count: 4) { () throws(ServerError) in
        try server.lookUpName(slot, name: address, result: result, mayWait: mayWait)
      } model: { () throws(ServerError) in
        try model.lookUpName(task, address, result: result, mayWait: mayWait, label: label)
      }
    default: break
    }
  }
}
