// Handles: each names one thing for ever, and a stale one names nothing.

import CGuestABI
import Testing

@testable import PhysicalMemory

private func container(_ slot: UInt32) -> HandleTarget { .container(ContainerReference(slot: slot, generation: 1)) }

@Suite struct HandleTableTests {
  private static func table() -> HandleTable {
    HandleTable(initialContainer: ContainerReference(slot: 77, generation: 1))
  }

  @Test func aTaskBeginsWithItselfAndItsContainer() {
    let table = Self.table()
    #expect(table[UInt32(PM_CAP_NONE)] == nil)
    #expect(table[UInt32(PM_CAP_SELF)] == .task)
    #expect(table[UInt32(PM_CAP_CONTAINER)] == container(77))
    for handle in [3, 0xffff, 0x10001, 0x10002, .max] as [UInt32] { #expect(table[handle] == nil) }
  }

  @Test func aStaleHandleNamesNothing() throws {
    var table = Self.table()
    let old = try some(table.insert(container(5)))
    #expect(table[old] == container(5))
    table.remove(old)
    #expect(table[old] == nil)
    let new = try some(table.insert(container(6)))
    #expect(new != old)
    #expect(new & 0xffff == old & 0xffff)
    #expect(table[old] == nil)
    #expect(table[new] == container(6))
  }

  @Test func noHandleIsEverGivenTwice() throws {
    var table = Self.table()
    var seen: Set<UInt32> = []
    for _ in 0..<70_000 {
      let handle = try some(table.insert(container(9)))
      #expect(seen.insert(handle).inserted)
      table.remove(handle)
    }
  }

  @Test func aFullTableRefuses() throws {
    var table = Self.table()
    var handles: Set<UInt32> = []
    while let handle = table.insert(container(UInt32(handles.count))) { handles.insert(handle) }
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
