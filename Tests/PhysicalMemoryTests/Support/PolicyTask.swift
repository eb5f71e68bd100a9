// A policy server for tests: a task with control that accesses the buffer through its own mapping.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

extension TestTask {
  /// Addresses of messages: in the stack's last page, below the scratch words.
  static let message = PM_STACK_TOP - 512

  private func result(_ sourceLocation: SourceLocation, _ body: () throws(CallFailure) -> Void) -> Result<
    UInt32, CallFailure
  > {
    defer { bed.check(sourceLocation) }
    return Result { () throws(CallFailure) in
      try body()
      return loadWord()
    }
  }

  func getControl(sourceLocation: SourceLocation = #_sourceLocation) -> Result<UInt32, CallFailure> {
    result(sourceLocation) { () throws(CallFailure) in try server.getControl(slot, result: Self.scratch) }
  }

  /// The number of entries in the buffer.
  func getPolicyBuffer(
    _ control: UInt32, _ address: UInt64, sourceLocation: SourceLocation = #_sourceLocation
  ) -> Result<UInt32, CallFailure> {
    result(sourceLocation) { () throws(CallFailure) in
      try server.getPolicyBuffer(slot, control, address: address, result: Self.scratch)
    }
  }

  func commitPolicy(_ control: UInt32, sourceLocation: SourceLocation = #_sourceLocation) -> CallFailure? {
    result(sourceLocation) { () throws(CallFailure) in try server.commitPolicy(slot, control) }.failure
  }

  func name(_ control: UInt32, of task: TaskID) -> Result<String, CallFailure> {
    Result { () throws(CallFailure) in
      try server.taskName(slot, control, id: task.rawValue, result: Self.message)
      var bytes = [UInt8](repeating: 0xff, count: Int(PM_NAME_MAXIMUM) + 1)
      try server.readMemory(slot, Self.message, into: &bytes)
      return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
  }

  func storeWords(_ words: [UInt64], _ address: UInt64) throws(CallFailure) {
    let bytes = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
    try server.writeMemory(slot, address, bytes.span)
  }

  func loadWords(_ count: Int, _ address: UInt64) throws(CallFailure) -> [UInt64] {
    var bytes = [UInt8](repeating: 0, count: count * 8)
    try server.readMemory(slot, address, into: &bytes)
    return (0..<count).map { word in (0..<8).reversed().reduce(0) { $0 << 8 | UInt64(bytes[word * 8 + $1]) } }
  }

  /// Makes an endpoint and registers it under a name.
  func endpoint(_ name: String) throws -> UInt32 {
    try server.createEndpoint(slot, result: Self.scratch)
    let endpoint = loadWord()
    try server.writeMemory(slot, Self.message, (Array(name.utf8) + [0]).span)
    try server.registerName(slot, name: Self.message, endpoint: endpoint)
    return endpoint
  }

  func receive(_ endpoint: UInt32, mayWait: Bool = true, sourceLocation: SourceLocation = #_sourceLocation)
    -> WaitOutcome
  {
    defer { bed.check(sourceLocation) }
    do throws(CallFailure) {
      return try server.receive(slot, endpoint, message: Self.message, mayWait: mayWait)
    } catch .error(let error) {
      return .finished(error)
    } catch {
      Issue.record("\(error)", sourceLocation: sourceLocation)
      return .waiting
    }
  }

  /// Calls a task that receives at `name`, with a capability. Returns that task's handle of it.
  func send(
    _ capability: UInt32, isMoved: Bool, to other: TestTask, _ endpoint: UInt32, named name: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> UInt32 {
    #expect(other.receive(endpoint) == .waiting, sourceLocation: sourceLocation)
    try server.writeMemory(slot, Self.message, (Array(name.utf8) + [0]).span)
    _ = try server.lookUpName(slot, name: Self.message, result: Self.scratch, mayWait: false)
    let target = loadWord()
    let capabilities = UInt64(capability)
    try storeWords([0, 0, 0, 0, 0, 0, 0, 0, capabilities, 0, isMoved ? 1 : 0, 0, 0], Self.message)
    #expect(
      try server.call(slot, target, message: Self.message, mayWait: true) == .waiting, sourceLocation: sourceLocation)
    bed.check(sourceLocation)
    #expect(server.waitOutcome(other.slot) == .finished(nil), sourceLocation: sourceLocation)
    _ = server.stopWaiting(slot)
    try server.dropCapability(slot, target)
    return UInt32(truncatingIfNeeded: try other.loadWords(9, Self.message)[8])
  }
}

extension Result where Failure == CallFailure {
  var failure: CallFailure? {
    guard case .failure(let error) = self else { return nil }
    return error
  }
}

/// A task with control and the buffer.
struct PolicyTask {
  let task: TestTask
  let control: UInt32
  static let address = TestTask.free.address

  /// An entry, as in `struct pm_policy_entry`.
  struct Entry: Equatable {
    var task: UInt64 = 0
    var allocated: UInt64 = 0
    var granted: UInt64 = 0
    var swapped: UInt64 = 0
    var guaranteed: UInt64 = 0
    var extra: UInt64 = 0
    var swapQuota: UInt64 = 0
    var reserved: UInt64 = 0

    var words: [UInt64] { [task, allocated, granted, swapped, guaranteed, extra, swapQuota, reserved] }
  }

  init(_ task: TestTask, control: UInt32? = nil, sourceLocation: SourceLocation = #_sourceLocation) throws {
    self.task = task
    self.control = try control ?? task.getControl(sourceLocation: sourceLocation).get()
    _ = try map(sourceLocation: sourceLocation)
  }

  @discardableResult
  func map(sourceLocation: SourceLocation = #_sourceLocation) throws -> UInt32 {
    try task.getPolicyBuffer(control, Self.address, sourceLocation: sourceLocation).get()
  }

  private static func address(_ slot: TaskSlot) -> UInt64 { address + UInt64(slot.rawValue) * 64 }

  func entry(_ slot: TaskSlot) throws(CallFailure) -> Entry {
    let words = try task.loadWords(8, Self.address(slot))
    return Entry(
      task: words[0], allocated: words[1], granted: words[2], swapped: words[3], guaranteed: words[4], extra: words[5],
      swapQuota: words[6], reserved: words[7])
  }

  func entry(_ other: TestTask) throws(CallFailure) -> Entry { try entry(other.slot) }

  /// Writes the policy server's fields of an entry.
  func set(_ other: TestTask, guaranteed: UInt64, extra: UInt64 = 1, swapQuota: UInt64 = 0) throws(CallFailure) {
    try task.storeWords([guaranteed, extra, swapQuota], Self.address(other.slot) + 32)
  }

  func write(_ entry: Entry, _ slot: TaskSlot) throws(CallFailure) {
    try task.storeWords(entry.words, Self.address(slot))
  }

  func commit(sourceLocation: SourceLocation = #_sourceLocation) -> CallFailure? {
    task.commitPolicy(control, sourceLocation: sourceLocation)
  }

  /// Checks that the buffer is not mapped here.
  var isUnmapped: Bool { task.leaf(TestTask.free) == nil && task.read(TestTask.free).outcome == .notMapped }
}
