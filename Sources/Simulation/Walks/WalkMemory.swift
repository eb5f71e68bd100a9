// A task's accesses to its own memory in a walk, and the call arguments that it writes there.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  // MARK: The task's memory

  /// Writes as the task would, up to the first fault that is not served.
  /// - Returns: whether all bytes were written.
  @discardableResult
  func store(_ task: ModelTask, _ address: UInt64, _ bytes: [UInt8]) throws -> Bool {
    var done = 0
    while done < bytes.count {
      let next = address &+ UInt64(done)
      let part = bytes[done..<done + Model.firstPart(next, bytes.count - done)]
      let outcome = try retry(task, next, .write) { machine.store(task.slot, next, part.span) }
      let expected = model.store(task, next, part)
      if outcome == .waitForFrames { isLacking = true }
      guard outcome == expected else { throw disagreement(next, .write, outcome, expected) }
      try absorb()
      guard outcome == nil else { return false }
      done += part.count
    }
    return true
  }

  /// Reads as the task would, and compares with the model.
  /// - Returns: nil after a fault that is not served.
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
        if outcome == .waitForFrames { isLacking = true }
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

  /// Repeats an access until it succeeds or faults beyond the server.
  /// - Returns: the fault's outcome; nil: the access succeeded.
  private func retry(
    _ task: ModelTask, _ address: UInt64, _ access: Access, _ body: () -> Bool
  ) throws -> FaultOutcome? {
    for _ in 0..<4 {
      if body() { return nil }
      let page = PageNumber(containing: address)
      let region = expectedSuperpage(task, page, access)
      switch server.fault(task.slot, page, access) {
      case .served: try checkServed(region)
      case .spurious: continue
      case let outcome: return outcome
      }
    }
    throw fail("an access to \(hex(address)) faults forever")
  }

  private func disagreement(
    _ address: UInt64, _ access: Access, _ outcome: FaultOutcome?, _ expected: FaultOutcome?
  ) -> Disagreement {
    func text(_ outcome: FaultOutcome?) -> String { outcome.map { "\($0)" } ?? "done" }
    return fail("\(access) at \(hex(address)): the server says \(text(outcome)), the model \(text(expected))")
  }

  func hex(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }

  /// A fault fills in neighbours too, and only the leaves reveal which. The walk sees them after the call. If the call
  /// changes what the neighbours name, the page must be mapped before it.
  func touch(_ task: ModelTask, _ address: UInt64, _ count: Int) throws {
    if task.around != 1, address != 0 { try store(task, address, [UInt8](repeating: 0xaa, count: count)) }
  }

  // MARK: Arguments

  func number(_ handle: HandleArgument) -> UInt32 {
    switch handle {
    case .number(let number): return number
    case .name(let name):
      for task in model.tasks { if let number = task.handles.number(name) { return number } }
      // The operation that brings this handle is not in the list: use a number that is never valid.
      return 0xfff0
    }
  }

  /// Writes a list of ids to the task's memory.
  func prepare(_ task: ModelTask, _ ids: IDArgument) throws -> (PhysicalMemoryServer.FrameIDs, ModelIDs) {
    switch ids {
    case .from(let start): return (.from(start), .from(start))
    case .list(let list, let address):
      try prepare(task, list, address)
      return (.array(address), .array(address))
    }
  }

  /// If the list cannot be written, the call reads the memory as it is, and the page must be mapped before it: see
  /// `touch`.
  func prepare(_ task: ModelTask, _ list: [UInt32], _ address: UInt64) throws {
    let isThere = try store(task, address, list.flatMap(littleEndian))
    if !isThere, task.around != 1 { try load(task, address, list.count * 4) }
  }

  func prepare(
    _ task: ModelTask, _ message: MessageArgument, _ address: UInt64, label: Int, reply: UInt64 = 0
  ) throws {
    var it = ModelMessage(bytes: [UInt8](repeating: UInt8(truncatingIfNeeded: label), count: ModelMessage.size))
    it.handles = (0..<4).map { $0 < message.handles.count ? number(message.handles[$0]) : 0 }
    it.moves = message.moves
    it.reply = reply
    try store(task, address, it.bytes)
  }

  func number(_ task: ModelTask, _ reply: ReplyArgument) -> UInt64 {
    switch reply {
    case .number(let number): number
    case .call(let label): task.calls.last { $0.label == label }?.number ?? 0x7777_0000
    }
  }

  static func name(_ number: Int) -> [UInt8] {
    switch number {
    case 0: [0]
    case 1: [UInt8](repeating: 0x61, count: 64) + [0]
    case 2: [0xff, 0xfe, 0]
    case 3: [UInt8](repeating: 0x62, count: 63) + [0]
    default: Array("n\(number)".utf8) + [0]
    }
  }
}
