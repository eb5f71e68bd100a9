// A task's calls in a walk. The server gets them as from a program: arguments are written to memory first and results
// read from it. The model gets the same.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  // MARK: Calls

  /// Makes a call. A call that waits for frames has changed nothing, and is repeated when they have arrived.
  func perform(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    isLacking = false
    guard let pending = task.pending else {
      try make(call, task, label)
      if isLacking { task.pending = (call, label) }
      return
    }
    if case .wake = call {
      guard try waitForFrames(task) == nil else { return }
      try make(pending.call, task, pending.label)
      if isLacking { return }
    }
    task.pending = nil
    server.endRequest(task.slot)
    model.endRequest(task)
  }

  /// - Returns: until when the task waits; nil: it need not wait.
  func waitForFrames(_ task: ModelTask) throws -> UInt64? {
    let expected = model.frameWait(task)
    let wait = server.frameWait(task.slot)
    guard wait == expected.map({ .waiting(until: $0) }) ?? .ready else {
      throw fail("\(wait) for frames, not until \(String(describing: expected))")
    }
    return expected
  }

  private func make(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    switch call {
    case .load(let address, let count, let access): try load(task, address, count, access)
    case .store(let address, let word): try store(task, address, littleEndian(word))
    case .read(let address, let count):
      var bytes = [UInt8](repeating: 0, count: count)
      let error = attempt { () throws(CallFailure) in try server.readMemory(task.slot, address, into: &bytes) }
      var expected: [UInt8] = []
      try same(error, attempt { () throws(CallFailure) in expected = try model.read(task, address, count) })
      if error == nil, bytes != expected { throw fail("other bytes at \(hex(address)) than the model has") }
    case .write(let address, let count, let byte):
      let bytes = [UInt8](repeating: byte, count: count)
      let error = attempt { () throws(CallFailure) in try server.writeMemory(task.slot, address, bytes.span) }
      try same(error, attempt { () throws(CallFailure) in try model.write(task, address, bytes) })
    case .check(let address, let count):
      let error = attempt { () throws(CallFailure) in try server.checkReadable(task.slot, address, count) }
      try same(error, attempt { () throws(CallFailure) in try model.check(task, address, Int(count), .read) })
    case .wake: try same(server.waitOutcome(task.slot), model.outcome(task), task)
    case .stopWaiting: try same(server.stopWaiting(task.slot), model.stopWaiting(task))
    case .createContainer, .destroyContainer, .allocate, .deallocate, .map, .unmap, .mapping, .sample:
      try performContainerCall(call, task, label)
    case .takeReturnRequest:
      try same(server.takeReturnRequest(task.slot), task.untold, "frames to be given back")
      task.untold = 0
    case .releasePages, .recoverPages, .expiredPages: try performRelease(call, task)
    case .copy, .releaseData, .createFilled: try performCopy(call, task, label)
    case .beginTransfer(let handle, let start, let count): try beginTransfer(task, number(handle), start, count)
    case .endTransfer(let number): endTransfer(number)
    case .share, .revoke, .lock, .unlock, .pin, .unpin, .drop: try performSharing(call, task, label)
    case .createEndpoint, .call, .receive, .reply, .replyAndReceive, .registerName, .lookUpName:
      try performMessage(call, task, label)
    case .getControl, .getPolicyBuffer, .setPolicy, .policyCommit: try performPolicy(call, task, label)
    case .allocatePlaced(let handle, let start, let count, let address, let flags, let placement, let place):
      try allocatePlaced(
        task, handle, start: start, count: count, at: address, flags: flags, placement, in: place)
    case .defragment(let handle, let result): try defragment(task, handle, result: result)
    }
  }

  private func performContainerCall(_ call: Call, _ task: ModelTask, _ label: Int) throws {
    let slot = task.slot
    switch call {
    case .createContainer(let result):
      let error = attempt { () throws(CallFailure) in try server.createContainer(slot, result: result) }
      try same(
        error,
        attempt { () throws(CallFailure) in try model.createContainer(task, HandleName(label), result: result) })
      if error == nil { try load(task, result, 4) }
    case .destroyContainer(let handle):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in try server.destroyContainer(slot, handle) }
      try same(error, attempt { () throws(CallFailure) in try model.destroyContainer(task, handle) })
    case .allocate(let handle, let start, let count, let address, let flags):
      let handle = number(handle)
      try store(task, address, littleEndian(count))
      let error = attempt { () throws(CallFailure) in
        try server.allocate(slot, handle, start: start, countAddress: address, flags: flags)
      }
      let expected = attempt { () throws(CallFailure) in
        let result = try model.allocate(task, handle, start: start, countAddress: address, flags: flags)
        if let error = result.error { throw error }
      }
      try same(error, expected)
      try load(task, address, 4)
    case .deallocate(let handle, let start, let count, let address, let flags):
      let handle = number(handle)
      try store(task, address, littleEndian(count))
      let error = attempt { () throws(CallFailure) in
        try server.deallocate(slot, handle, start: start, countAddress: address, flags: flags)
      }
      let expected = attempt { () throws(CallFailure) in
        let result = try model.deallocate(task, handle, start: start, countAddress: address, flags: flags)
        if let error = result.error { throw error }
      }
      try same(error, expected)
      try load(task, address, 4)
    case .map(let handle, let start, let count, let address, let flags):
      let handle = number(handle)
      let error = attempt { () throws(CallFailure) in
        try server.map(slot, handle, start: start, count: count, address: address, flags: flags)
      }
      let flags = MappingFlags(rawValue: flags)
      let expected = attempt { () throws(CallFailure) in
        try model.map(task, handle, start, count, address, flags)
      }
      try same(error, expected)
      if error == nil, !flags.contains(.lazy) { try checkLeaves(task, address, count) }
    case .unmap(let address, let count):
      let error = attempt { () throws(CallFailure) in try server.unmap(slot, address: address, count: count) }
      try same(error, attempt { () throws(CallFailure) in try model.unmap(task, address, count) })
    case .mapping(let address): try performMapping(task, address)
    case .sample(let address, let count, let flags, let result):
      try performSample(task, address, count, flags, result)
    default: break
    }
  }

  /// An eager mapping must have its pages at once, with all rights in force.
  private func checkLeaves(_ task: ModelTask, _ address: UInt64, _ count: UInt32) throws {
    for offset in 0..<UInt64(count) {
      let page = PageNumber(address / 4096 + offset)
      guard let mapping = task.mappings[page.rawValue],
        case .content(let content) = mapping.container.frames[mapping.id],
        let leaf = machine.leaf(task.slot, page)
      else {
        if !model.tables.has(1, task.slot, page) { return }
        throw fail("\(hex(page.address)) has no leaf")
      }
      var rights = mapping.flags.effectiveRights
      if content.sharers > 1 { rights.remove(.write) }
      if leaf.rights != rights { throw fail("\(hex(page.address)) has rights \(leaf.rights), not \(rights)") }
    }
  }

  private func performSample(
    _ task: ModelTask, _ address: UInt64, _ count: UInt32, _ flags: UInt32, _ result: UInt64
  ) throws {
    let isGood =
      address & 4095 == 0 && count > 0 && count <= PM_FRAMES_MAXIMUM && flags == 0 && address >= PM_USER_START
      && address < PM_USER_END && UInt64(count) <= (PM_USER_END - address) / 4096
    let bits = (0..<(isGood ? UInt64(count) : 0)).map { offset in
      machine.pageUse(task.slot, PageNumber(address / 4096 + offset)).rawValue
    }
    let error = attempt { () throws(CallFailure) in
      try server.sample(task.slot, address: address, count: count, flags: flags, result: result)
    }
    let expected = attempt { () throws(CallFailure) in
      guard isGood else { throw .invalid }
      try model.write(task, result, bits)
    }
    try same(error, expected)
    if error == nil { try load(task, result, bits.count) }
  }

  private func performMapping(_ task: ModelTask, _ address: UInt64) throws {
    var information: MappingInformation?
    let error = attempt { () throws(CallFailure) in
      information = try server.mappingInformation(task.slot, address: address)
    }
    var expected: (handle: UInt32, mapping: ModelMapping, content: ModelContent?)?
    try same(error, attempt { () throws(CallFailure) in expected = try model.mapping(task, address) })
    guard let information, let (handle, mapping, content) = expected else { return }
    let rights = machine.leaf(task.slot, PageNumber(containing: address))?.rights ?? []
    guard information.container.rawValue == handle, information.frame.rawValue == mapping.id,
      information.requested == mapping.flags,
      information.rights == rights, (information.physicalAddress != 0) == (content != nil)
    else { throw fail("\(information) is not what the model has") }
    if let content, let wrong = model.place(content, at: information.physicalAddress) { throw fail(wrong) }
  }
}
