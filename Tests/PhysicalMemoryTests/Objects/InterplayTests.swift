// Interactions between steps, allowances, grace periods and stopped calls.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct InterplayTests {
  private let free = TestTask.free
  private let other = PageNumber(0x7000_0000)

  @Test("R24: a copy stopped after its last source id releases the source container")
  func copyGivenUp() throws {
    // The least count for which one step is not enough: the step ends with the last id.
    var (done, isMore) = (1, 4096)
    while isMore - done > 1 {
      let count = (done + isMore) / 2
      if try collectAndGiveUp(count) { isMore = count } else { done = count }
    }
    let isNeverDone = try collectAndGiveUp(isMore)
    #expect(isNeverDone)
  }

  /// - Returns: whether more steps were needed after the first.
  private func collectAndGiveUp(_ count: Int) throws -> Bool {
    var server = try OpenServer(frames: 1 << 14)
    let source = try server.container(UInt32(count), shownAt: [free])
    let copies = try server.state.createContainer(server.task)
    var plan = try server.state.planCopy(server.task, source, .from(0), copies, .from(0), count: count)
    let hasMore = server.state.collect(&plan)
    while server.state.abandon(&plan) {}
    server.check()
    return hasMore
  }

  @Test("R31: a frame is released while a task with a leaf of it ends") func releasedUnderAnEnd() throws {
    var server = try OpenServer(frames: 1 << 12)
    let source = try server.container(1, shownAt: [])
    let (client, weak) = try server.client(of: source)
    try server.map(client, weak, at: other)
    var outcome = server.state.serveFault(client, other, .write)
    #expect(outcome == .served(pages: 1))
    // Its content is shared with a released id.
    let copies = try server.state.createContainer(server.task)
    try server.copy(source, to: copies)
    outcome = server.state.serveFault(client, other, .read)
    #expect(outcome == .spurious)
    var plan = try server.state.planRelease(server.task, copies, [0])
    while server.state.continueRelease(&plan) {}
    server.state.beginEnding(client)
    let slot = try server.state.ownedContainer(server.task, source)
    let next = server.state.releaseFrames(slot, 0..<1)
    // Only the released id names it: its frame may be reused.
    let isExpired = server.state.expireOldest()
    #expect(next == nil && isExpired)
    while server.state.continueEnding(client) == .more {}
    server.check()
  }

  @Test("Safety: a content released in a step is not reused in it while a vCPU may access it")
  func releasedAndReused() throws {
    let bed = try Testbed()
    let (owner, client) = (try bed.start(), try bed.start())
    let handle = try owner.numbered(2)
    let weak = try owner.share(handle, with: client)
    // Both contents have one other sharer, which is released.
    let copies = try owner.container(0)
    try bed.server.copy(owner.slot, handle, .from(0), copies, .from(0), count: 2, frameError: 0)
    #expect(client.map(weak, 0, 2, other, [.read]) == nil)
    try owner.release(copies, [0, 1])
    let rest = UInt32(owner.information.available)
    let filler = try owner.container(rest)
    let page = PageNumber(0x6000_0000)
    #expect(owner.map(filler, 0, rest, page, [.read, .write]) == nil)
    bed.machine.enter(client.slot)
    #expect(owner.map(handle, 0, 2, free.advanced(by: 64), [.read, .write, .forceWrite]) == nil)
    bed.check()
    for task in [owner, client] { task.end() }
  }

  @Test("R25: ordered frames with many leaves are mapped where they were mapped before") func orderedAgain() throws {
    let start = PageNumber((TestTask.free.rawValue + 511) & ~511)
    let bed = try Testbed(frames: 1 << 14, tasks: 256, blocks: 32)
    while let block = bed.server.nextBlock() { while !bed.server.zeroBlock(block) {} }
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .automatic))
    let handle = try task.container(512)
    // Leaves of the fourth mapping count against the task's allowance of 256; all are written at once.
    for index in [0, 1, 2, 3, 3, 0, 3] {
      let page = start.advanced(by: 512 * index)
      #expect(task.unmap(page, 512) == nil)
      #expect(task.map(handle, 0, 512, page, [.read, .write]) == nil)
    }
    task.end()
  }

  @Test("R16: a check of more memory than a step covers does not run out of waiting frames")
  func longCheck() throws {
    let bed = try Testbed(isChecked: false)
    let task = try bed.start()
    let count = UInt32(task.information.available)
    // Enough for the next step is free, and the rest waits.
    let handle = try task.container(count - 300)
    #expect(task.map(handle, 0, count - 300, free, [.read, .write]) == nil)
    bed.machine.enter(task.slot)
    #expect(task.deallocate(handle, 0, count - 300) == .ok(count - 300))
    #expect(task.allocate(handle, 0, count) == .ok(count))
    #expect(task.map(handle, 0, count, free, [.read, .write, .lazy]) == nil)
    #expect(bed.server.waitingFrames > 0)
    #expect(throws: Never.self) { try bed.server.checkReadable(task.slot, free.address, UInt64(count) << 12) }
    #expect(bed.violations == [])
    task.end()
  }
}

extension OpenServer {
  fileprivate mutating func map(_ task: TaskSlot, _ handle: Handle, at page: PageNumber) throws {
    let range = try FrameIDRange(start: 0, count: 1)
    let pages = try PageRange(address: GuestAddress(page.address), count: 1)
    state.installMapping(task, try state.checkMapping(task, handle, range, pages, [.read, .write, .lazy]))
  }

  /// A container of one frame, sent to the client.
  fileprivate mutating func copy(_ source: Handle, to destination: Handle) throws {
    var plan = try state.planCopy(task, source, .from(0), destination, .from(0), count: 1)
    while state.collect(&plan) {}
    while state.install(&plan) {}
  }
}

extension TestTask {
  fileprivate func release(_ handle: UInt32, _ ids: [UInt32]) throws {
    let bytes = ids.flatMap { id in (0..<4).map { UInt8(truncatingIfNeeded: id >> UInt32(8 * $0)) } }
    try server.writeMemory(slot, Self.scratch - 256, bytes.span)
    try server.releasePages(slot, handle, frames: Self.scratch - 256, count: UInt32(ids.count))
  }

  fileprivate func share(_ handle: UInt32, with client: TestTask) throws -> UInt32 {
    try server.share(slot, handle, remote: 0, result: Self.scratch)
    return try send(loadWord(), isMoved: false, to: client, client.endpoint("client"), named: "client")
  }
}
