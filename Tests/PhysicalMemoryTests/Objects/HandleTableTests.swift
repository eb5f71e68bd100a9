// Handles: each names one object forever, and a stale one names nothing.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

private func container(_ slot: ContainerSlot) -> HandleTarget {
  .container(ContainerReference(slot: slot, generation: 1))
}

@Suite struct HandleTableTests {
  private static func table() -> HandleTable {
    HandleTable(initialContainer: ContainerReference(slot: 77, generation: 1))
  }

  @Test func aTaskBeginsWithItselfAndItsContainer() {
    let table = Self.table()
    #expect(table[.none] == nil)
    #expect(table[.ownTask] == .task)
    #expect(table[.initialContainer] == container(77))
    for handle in [3, 0xffff, 0x10001, 0x10002, 0xffff_ffff] as [Handle] { #expect(table[handle] == nil) }
  }

  @Test func aStaleHandleNamesNothing() throws {
    var table = Self.table()
    let old = try some(table.insert(container(5)))
    #expect(table[old] == container(5))
    table.remove(old)
    #expect(table[old] == nil)
    let new = try some(table.insert(container(6)))
    #expect(new != old)
    #expect(new.rawValue & 0xffff == old.rawValue & 0xffff)
    #expect(table[old] == nil)
    #expect(table[new] == container(6))
  }

  @Test func noHandleIsEverGivenTwice() throws {
    var table = Self.table()
    var seen: Set<Handle> = []
    for _ in 0..<70_000 {
      let handle = try some(table.insert(container(9)))
      #expect(seen.insert(handle).inserted)
      table.remove(handle)
    }
  }

  @Test func aFullTableRefuses() throws {
    var table = Self.table()
    var handles: Set<Handle> = []
    while let handle = table.insert(container(ContainerSlot(UInt32(handles.count)))) { handles.insert(handle) }
    #expect(handles.count == 1 << 16 - 3)
    #expect(!handles.contains(0))
    let one = try #require(handles.first)
    table.remove(one)
    #expect(table.insert(container(1)) != nil)
    #expect(table.insert(container(1)) == nil)
    var count = 0
    table.forEach { _ in count += 1 }
    #expect(count == 1 << 16 - 1)
  }
}

/// The objects a handle can name, by the call that makes it.
enum HandleKind: CaseIterable {
  case container, weak, endpoint

  func make(_ task: TestTask) throws -> UInt32 {
    switch self {
    case .container: return try task.container(1)
    case .weak: try task.server.share(task.slot, TestTask.container, remote: 0, result: TestTask.scratch)
    case .endpoint: try task.server.createEndpoint(task.slot, result: TestTask.scratch)
    }
    return task.loadWord()
  }
}

@Suite struct StaleHandleTests {
  @Test(
    "R15, R20: a dropped handle is PM_EINVAL in every call, even when its table entry is reused",
    arguments: HandleKind.allCases, HandleKind.allCases)
  func stale(_ before: HandleKind, _ after: HandleKind) throws {
    let task = try Testbed().start()
    let (server, slot, memory) = (task.server, task.slot, TestTask.scratch)
    let old = try before.make(task)
    if before == .container {
      try server.destroyContainer(slot, old)
    } else {
      _ = try server.dropCapability(slot, old)
    }
    let new = try after.make(task)
    #expect(new & 0xffff == old & 0xffff && new != old, "the entry is reused")
    let good = TestTask.container
    let calls: [(String, () throws -> Void)] = [
      ("destroy", { try server.destroyContainer(slot, old) }),
      ("allocate", { try server.allocate(slot, old, start: 9, countAddress: memory, flags: 0) }),
      ("deallocate", { try server.deallocate(slot, old, start: 0, countAddress: memory, flags: 0) }),
      ("map", { try server.map(slot, old, start: 0, count: 1, address: TestTask.free.address, flags: 1) }),
      ("copy from", { try server.copy(slot, old, .from(0), good, .from(900), count: 1, frameError: 0) }),
      ("copy to", { try server.copy(slot, good, .from(0), old, .from(0), count: 1, frameError: 0) }),
      ("release", { try server.releaseData(slot, old, frames: memory + 8, count: 1) }),
      ("share", { try server.share(slot, old, remote: 0, result: memory) }),
      ("revoke", { try server.revoke(slot, old) }),
      ("lock", { try server.lock(slot, old, microseconds: 1) }),
      ("unlock", { try server.unlock(slot, old) }),
      ("pin", { try server.pin(slot, old, start: 0, count: 1, microseconds: 1, physical: memory) }),
      ("unpin", { try server.unpin(slot, old, start: 0, count: 1) }),
      ("call", { _ = try server.call(slot, old, message: memory, mayWait: false) }),
      ("receive", { _ = try server.receive(slot, old, message: memory, mayWait: false) }),
      ("register", { try server.registerName(slot, name: memory + 16, endpoint: old) }),
      ("drop", { try server.dropCapability(slot, old) }),
    ]
    try server.writeMemory(slot, memory, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 65, 0].span)
    for (name, call) in calls { #expect(throws: CallFailure.invalid, "\(name)") { try call() } }
    _ = try server.dropCapability(slot, new)
    task.end()
  }
}
