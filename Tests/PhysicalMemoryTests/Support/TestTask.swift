// A task for tests: it accesses memory and makes calls as a program would, with results stored in its own memory.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

/// The result of a call, nil being PM_OK, and the count it stored.
struct CallResult: Equatable {
  var error: CallFailure?
  var count: UInt32

  static func ok(_ count: UInt32) -> CallResult { CallResult(error: nil, count: count) }
  static func failed(_ error: CallFailure, _ count: UInt32) -> CallResult { CallResult(error: error, count: count) }
}

struct TestTask {
  let bed: Testbed
  let slot: TaskSlot
  let id: TaskID

  static let container = UInt32(PM_CAP_CONTAINER)
  /// The address of results: in the stack's last page.
  static let scratch = PM_STACK_TOP - 256
  /// An address far from all segments, at the start of a leaf table.
  static let free = PageNumber(containing: 0x1000_0000)

  var server: PhysicalMemoryServer { bed.server }
  var information: TaskInformation { server.taskInformation(slot) }

  func end(sourceLocation: SourceLocation = #_sourceLocation) {
    server.endTask(slot)
    bed.check(sourceLocation)
  }

  // MARK: Accesses

  /// Retries an access until it succeeds or the server does not serve the fault. Nil: it succeeded.
  private func retry(_ address: UInt64, _ access: Access, _ body: () -> Bool) -> FaultOutcome? {
    for _ in 0..<4 {
      if body() { return nil }
      switch server.fault(slot, PageNumber(containing: address), access) {
      case .served, .spurious: continue
      case let outcome: return outcome
      }
    }
    Issue.record("an access to \(String(address, radix: 16)) faults forever")
    return .spurious
  }

  /// Reads a byte. A failure is the fault that was not served.
  func read(
    _ address: UInt64, _ access: Access = .read, sourceLocation: SourceLocation = #_sourceLocation
  ) -> Result<UInt8, Unserved> {
    var byte: UInt8 = 0
    let outcome = retry(address, access) {
      guard let found = bed.machine.load(slot, address, access) else { return false }
      byte = found
      return true
    }
    bed.check(sourceLocation)
    return outcome.map { .failure(Unserved(outcome: $0)) } ?? .success(byte)
  }

  /// Writes a byte. Nil: success.
  func write(
    _ address: UInt64, _ byte: UInt8, sourceLocation: SourceLocation = #_sourceLocation
  ) -> FaultOutcome? {
    let outcome = retry(address, .write) { bed.machine.store(slot, address, byte) }
    bed.check(sourceLocation)
    return outcome
  }

  func read(_ page: PageNumber, _ offset: Int = 0, sourceLocation: SourceLocation = #_sourceLocation) -> Result<
    UInt8, Unserved
  > {
    read(page.address + UInt64(offset), sourceLocation: sourceLocation)
  }

  func write(_ page: PageNumber, _ byte: UInt8, sourceLocation: SourceLocation = #_sourceLocation) -> FaultOutcome? {
    write(page.address, byte, sourceLocation: sourceLocation)
  }

  func fault(
    _ page: PageNumber, _ access: Access, sourceLocation: SourceLocation = #_sourceLocation
  ) -> FaultOutcome {
    defer { bed.check(sourceLocation) }
    return server.fault(slot, page, access)
  }

  func leaf(_ page: PageNumber) -> MappedPage? { bed.machine.leaf(slot, page) }

  // MARK: Calls

  func error(_ sourceLocation: SourceLocation, _ body: () throws(CallFailure) -> Void) -> CallFailure? {
    defer { bed.check(sourceLocation) }
    do throws(CallFailure) {
      try body()
      return nil
    } catch {
      return error
    }
  }

  private func storeWord(_ value: UInt32, _ address: UInt64) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    #expect(throws: Never.self) { try server.writeMemory(slot, address, bytes.span) }
  }

  func loadWord(_ address: UInt64 = scratch) -> UInt32 {
    var bytes = [UInt8](repeating: 0, count: 4)
    #expect(throws: Never.self) { try server.readMemory(slot, address, into: &bytes) }
    return bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  func createContainer(sourceLocation: SourceLocation = #_sourceLocation) -> Result<UInt32, CallFailure> {
    let error = error(sourceLocation) { () throws(CallFailure) in
      try server.createContainer(slot, result: Self.scratch)
    }
    return error.map { .failure($0) } ?? .success(loadWord())
  }

  func destroy(_ handle: UInt32, sourceLocation: SourceLocation = #_sourceLocation) -> CallFailure? {
    error(sourceLocation) { () throws(CallFailure) in try server.destroyContainer(slot, handle) }
  }

  func allocate(
    _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ flags: AllocationFlags = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) -> CallResult {
    storeWord(count, Self.scratch)
    let error = error(sourceLocation) { () throws(CallFailure) in
      try server.allocate(slot, handle, start: start, countAddress: Self.scratch, flags: flags.rawValue)
    }
    return CallResult(error: error, count: loadWord())
  }

  func deallocate(
    _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ flags: DeallocationFlags = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) -> CallResult {
    storeWord(count, Self.scratch)
    let error = error(sourceLocation) { () throws(CallFailure) in
      try server.deallocate(slot, handle, start: start, countAddress: Self.scratch, flags: flags.rawValue)
    }
    return CallResult(error: error, count: loadWord())
  }

  func map(
    _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ page: PageNumber, _ flags: MappingFlags,
    sourceLocation: SourceLocation = #_sourceLocation
  ) -> CallFailure? {
    error(sourceLocation) { () throws(CallFailure) in
      try server.map(slot, handle, start: start, count: count, address: page.address, flags: flags.rawValue)
    }
  }

  func unmap(_ page: PageNumber, _ count: UInt32, sourceLocation: SourceLocation = #_sourceLocation) -> CallFailure? {
    error(sourceLocation) { () throws(CallFailure) in
      try server.unmap(slot, address: page.address, count: count)
    }
  }

  func mapping(_ page: PageNumber) -> Result<MappingInformation, CallFailure> {
    Result { () throws(CallFailure) in try server.mappingInformation(slot, address: page.address) }
  }

  // MARK: Shorthands

  /// A container with `count` frames from 0 on.
  func container(_ count: UInt32, sourceLocation: SourceLocation = #_sourceLocation) throws -> UInt32 {
    let handle = try createContainer(sourceLocation: sourceLocation).get()
    if count > 0 { #expect(allocate(handle, 0, count) == .ok(count), sourceLocation: sourceLocation) }
    return handle
  }
}

/// A fault that the server did not serve.
struct Unserved: Error, Equatable {
  let outcome: FaultOutcome
}

extension Result where Failure == Unserved {
  var outcome: FaultOutcome? {
    guard case .failure(let unserved) = self else { return nil }
    return unserved.outcome
  }
}
