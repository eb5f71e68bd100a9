// Pointers in calls: resolved through the task's own mappings, otherwise PM_EFAULT with nothing changed.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

/// Addresses at which no task may read or write four bytes.
private let outside: [UInt64] = [
  0, 1, 4095, TestTask.free.address, PM_STACK_TOP, PM_STACK_TOP - 3, PM_USER_END - 2, PM_USER_END, 1 << 47,
  0xffff_8000_0000_0000, .max - 3, .max,
]

@Suite struct TaskMemoryTests {
  private func page(_ offset: Int) -> PageNumber { TestTask.free.advanced(by: offset) }

  @Test("bytes across pages, some of them not filled in yet") func acrossPages() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(3)
    #expect(task.map(handle, 0, 3, page(0), [.read, .write, .lazy]) == nil)
    let bytes = (0..<9000).map { UInt8(truncatingIfNeeded: $0 / 3) }
    try bed.server.writeMemory(task.slot, page(0).address + 1000, bytes.span)
    bed.check()
    var back = [UInt8](repeating: 0, count: 9000)
    try bed.server.readMemory(task.slot, page(0).address + 1000, into: &back)
    bed.check()
    #expect(back == bytes)
    #expect(task.read(page(0), 999) == .success(0))
    #expect(task.read(page(1), 0) == .success(bytes[3096]))
    #expect(task.read(page(2), 9000 + 1000 - 8192) == .success(0))
  }

  @Test("memory that the task itself cannot use is PM_EFAULT, and nothing is written") func badMemory() throws {
    let bed = try Testbed()
    let task = try bed.start()
    var buffer = [UInt8](repeating: 0, count: 4)
    for address in outside {
      #expect(throws: CallFailure.fault) { try bed.server.readMemory(task.slot, address, into: &buffer) }
      #expect(throws: CallFailure.fault) { try bed.server.writeMemory(task.slot, address, buffer.span) }
      #expect(throws: CallFailure.fault) { try bed.server.checkReadable(task.slot, address, 4) }
    }
    let text = SampleProgram.text.address
    #expect(throws: CallFailure.fault) { try bed.server.writeMemory(task.slot, text, buffer.span) }
    #expect(throws: Never.self) { try bed.server.readMemory(task.slot, text, into: &buffer) }
    // All or nothing: the first page is mapped, the second is not.
    let end = PM_STACK_TOP - 2
    #expect(throws: CallFailure.fault) { try bed.server.writeMemory(task.slot, end, ([7, 7, 7] as [UInt8]).span) }
    #expect(task.read(end) == .success(0))
    #expect(throws: CallFailure.fault) { try bed.server.checkReadable(task.slot, text, .max) }
    #expect(throws: CallFailure.fault) { try bed.server.checkReadable(task.slot, text, PM_USER_END) }
    #expect(throws: Never.self) { try bed.server.checkReadable(task.slot, text, 3 * 4096) }
    bed.check()
  }

  @Test("a write on behalf of the task breaks sharing like the task's own") func writingCopies() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    let witness = try bed.start(image)
    #expect(task.map(TestTask.container, 0, 1, page(0), [.read, .write, .lazy]) == nil)
    try bed.server.writeMemory(task.slot, page(0).address, ([1, 2] as [UInt8]).span)
    bed.check()
    #expect(task.read(SampleProgram.text, 1) == .success(2))
    #expect(witness.read(SampleProgram.text, 1) == .success(SampleProgram.textByte(1)))
  }

  @Test("a call with a bad result pointer changes nothing", arguments: outside + [SampleProgram.text.address])
  func badResults(address: UInt64) throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(3)
    let before = bed.balance
    #expect(throws: CallFailure.fault) { try bed.server.createContainer(task.slot, result: address) }
    #expect(throws: CallFailure.fault) {
      try bed.server.allocate(task.slot, handle, start: 3, countAddress: address, flags: 0)
    }
    #expect(throws: CallFailure.fault) {
      try bed.server.deallocate(task.slot, handle, start: 0, countAddress: address, flags: 0)
    }
    bed.check()
    #expect(bed.balance == before)
    // No handle was used up either.
    let next = try task.createContainer().get()
    #expect(next == handle + 1)
  }

  @Test("a result may span two pages that are not filled in yet") func resultAcrossPages() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(2)
    #expect(task.map(handle, 0, 2, page(0), [.read, .write, .lazy]) == nil)
    let address = page(1).address - 2
    try bed.server.createContainer(task.slot, result: address)
    bed.check()
    #expect(task.loadWord(address) == handle + 1)
    #expect(task.destroy(handle + 1) == nil)
  }
}
