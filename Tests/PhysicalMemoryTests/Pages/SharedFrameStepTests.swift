// The cost of a step is what it visits, not what it changes: one frame with thousands of leaves, and thousands of ids
// without a leaf that share its content.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct SharedFrameStepTests {
  let free = TestTask.free
  static let leaves = 1200
  static let ids: UInt32 = 3000

  /// A container of one frame, mapped at `pages` pages.
  func shown(_ server: inout OpenServer) throws -> Handle {
    try server.container(1, shownAt: (0..<Self.leaves).map { free.advanced(by: $0) })
  }

  private func copy(_ server: inout OpenServer, _ source: Handle, to destination: Handle) throws {
    let zeros = [FrameID](repeating: 0, count: Int(Self.ids))
    var plan = try server.state.planCopy(
      server.task, source, .list(zeros), destination, .from(0), count: zeros.count)
    while server.state.collect(&plan) {}
    while server.state.install(&plan) {}
  }

  func leaves(_ server: borrowing OpenServer) -> Int {
    (0..<Self.leaves).count { server.machine.leaf(server.task, free.advanced(by: $0)) != nil }
  }

  /// A container of many ids that share a frame with many leaves.
  func sharers(_ server: inout OpenServer) throws -> Handle {
    let source = try shown(&server)
    let copies = try server.state.createContainer(server.task)
    try copy(&server, source, to: copies)
    // Map all of them again: the copy removed most, since they were writable.
    for index in 0..<Self.leaves where server.machine.leaf(server.task, free.advanced(by: index)) == nil {
      let outcome = server.state.serveFault(server.task, free.advanced(by: index), .read)
      #expect(outcome == .served(pages: 1))
    }
    return copies
  }

  /// Counts the ids' walks along the frame's leaves, although they change nothing.
  private func expectAllCounted(_ steps: Int, _ sourceLocation: SourceLocation = #_sourceLocation) {
    let nodes = Int(Self.ids) * Self.leaves / 3
    #expect(steps * 3 * Step.most >= nodes * Work.look, sourceLocation: sourceLocation)
  }

  @Test("a step is over when its work or its time is used up, and stays over") func clock() {
    var step = Step()
    func isOver(after work: Int, at now: UInt64) -> Bool {
      step.count(work)
      return step.isOver { now }
    }
    step.begin(now: 1000)
    #expect(!isOver(after: 200, at: 1000))
    #expect(isOver(after: 200, at: 10_000_000))
    #expect(isOver(after: 0, at: 1000))
    step.begin(now: 1000)
    #expect(!isOver(after: Step.most - 1, at: 1000))
    #expect(isOver(after: 1, at: 1000))
  }

  @Test("R24: a private frame with many leaves is write-protected in steps, and stays private until that is done")
  func protecting() throws {
    var server = try OpenServer(frames: 1 << 14)
    let source = try shown(&server)
    let slot = try server.state.ownedContainer(server.task, source)
    let copies = try server.state.createContainer(server.task)
    var plan = try server.state.planCopy(server.task, source, .from(0), copies, .from(0), count: 1)
    var steps = 0
    while server.state.collect(&plan) {
      steps += 1
      let number = try some(server.state.containers[slot].frames[0].content)
      #expect(server.state.contents[number].sharers == 1)
      #expect(server.machine.store(server.task, free.address, UInt8(steps)) || leaves(server) < Self.leaves)
      server.check()
    }
    #expect(steps > 0)
    while server.state.install(&plan) {}
    server.check()
    #expect(!server.machine.store(server.task, free.address, 9))
    server.expectShortSteps()
  }

  @Test("R18: thousands of ids drop a frame with thousands of leaves, which stay") func deallocating() throws {
    var server = try OpenServer(frames: 1 << 14)
    let copies = try sharers(&server)
    let slot = try server.state.ownedContainer(server.task, copies)
    var next: UInt64? = 0
    var steps = 0
    while let id = next {
      next = server.state.releaseFrames(slot, id..<UInt64(Self.ids))
      steps += 1
    }
    expectAllCounted(steps)
    server.check()
    #expect(leaves(server) == Self.leaves)
    server.expectShortSteps()
  }

  @Test("R38: pm_release_data takes as many steps for them") func releasingData() throws {
    var server = try OpenServer(frames: 1 << 14)
    let copies = try sharers(&server)
    var plan = try server.state.planDataRelease(server.task, copies, Array(0..<FrameID(Self.ids)))
    var steps = 1
    while server.state.continueDataRelease(&plan) { steps += 1 }
    expectAllCounted(steps)
    server.check()
    #expect(leaves(server) == Self.leaves)
    server.expectShortSteps()
  }

  @Test("R31: pm_release_pages takes as many steps for them, and as many as are kept can be recovered") func releasing()
    throws
  {
    var server = try OpenServer(frames: 1 << 14)
    let copies = try sharers(&server)
    var plan = try server.state.planRelease(server.task, copies, Array(0..<FrameID(Self.ids)))
    var steps = 1
    while server.state.continueRelease(&plan) { steps += 1 }
    expectAllCounted(steps)
    server.check()
    #expect(plan.error == nil && leaves(server) == Self.leaves)
    let kept = server.state.softReferences.count
    #expect(kept == 257)
    let last = Array(FrameID(Self.ids - UInt32(kept) + 1)..<FrameID(Self.ids)) + [0]
    var recovery = try server.state.planRecovery(server.task, copies, last, frameError: 0)
    while server.state.continueRecovery(&recovery) {}
    #expect(recovery.error == nil && server.state.softReferences.count == 0)
    server.check()
    server.expectShortSteps()
  }

  @Test("R20: revoking a share of them removes the leaves of its mappings, and no others") func revoking() throws {
    var server = try OpenServer(frames: 1 << 14)
    let copies = try sharers(&server)
    let weak = try server.state.share(server.task, copies, remote: 0)
    let page = PageNumber(0x7000_0000)
    for (handle, offset) in [(weak, 0), (copies, 1)] {
      let range = try FrameIDRange(start: 5, count: 1)
      let pages = try PageRange(address: GuestAddress(page.advanced(by: offset).address), count: 1)
      let mapping = try server.state.checkMapping(server.task, handle, range, pages, [.read, .lazy])
      server.state.installMapping(server.task, mapping)
      let outcome = server.state.serveFault(server.task, page.advanced(by: offset), .read)
      #expect(outcome == .served(pages: 1))
    }
    let container = try some(try server.state.revokeShares(server.task, copies))
    var next: UInt64? = 0
    var steps = 0
    while let id = next {
      next = server.state.cutOff(container, .shares, from: id)
      steps += 1
    }
    expectAllCounted(steps)
    server.check()
    #expect(server.machine.leaf(server.task, page) == nil)
    #expect(server.machine.leaf(server.task, page.advanced(by: 1)) != nil)
    #expect(leaves(server) == Self.leaves)
    server.expectShortSteps()
  }

  @Test("R22: they are pinned, each with a private frame") func pinning() throws {
    var server = try OpenServer(frames: 1 << 14)
    let copies = try sharers(&server)
    try server.showAddresses(server.task)
    var plan = try server.planPin(server.task, copies, 0, 1000)
    while server.state.continuePin(&plan) {}
    #expect(plan.error == nil && leaves(server) == Self.leaves)
    server.check()
    server.expectShortSteps()
  }

  @Test("R25: the leaves of one frame are unmapped from the oldest on, the last of a long chain first") func unmapping()
    throws
  {
    var server = try OpenServer(frames: 1 << 14)
    _ = try shown(&server)
    var page: PageNumber? = free
    var steps = 0
    while let next = page {
      page = server.state.unmapPages(server.task, from: next, to: free.advanced(by: Self.leaves))
      steps += 1
      server.check()
    }
    // Half of the leaves are found at the end of a chain, on average half as long as at the start.
    let nodes = Self.leaves / 3
    #expect(steps * Step.most >= nodes * Self.leaves / 4 * Work.look)
    #expect(leaves(server) == 0)
    server.expectShortSteps()
  }

  @Test("R18: a frame with many leaves is dropped in steps, and stays allocated until all are gone") func dropping()
    throws
  {
    var server = try OpenServer(frames: 1 << 14)
    let handle = try shown(&server)
    let slot = try server.state.ownedContainer(server.task, handle)
    let free = server.state.pool.freeCount
    var steps = 0
    while server.state.releaseFrames(slot, 0..<1) != nil {
      steps += 1
      #expect(server.state.pool.freeCount == free && server.state.containers[slot].frames.count == 1)
      server.check()
    }
    #expect(steps > 0 && server.state.pool.freeCount == free + 1 && leaves(server) == 0)
    server.expectShortSteps()
  }

  @Test("R22: an id's own leaves are removed before it is pinned, in steps that count each look-up of a mapping")
  func pinningShown() throws {
    var server = try OpenServer(frames: 1 << 14)
    _ = try sharers(&server)
    try server.showAddresses(server.task)
    let source = try server.state.mappingInformation(server.task, address: GuestAddress(free.address)).container
    var plan = try server.planPin(server.task, source, 0, 1)
    _ = server.state.continuePin(&plan)
    let gone = Self.leaves - leaves(server)
    #expect(server.state.pins.count == 0 && gone <= Step.most / (Work.leaf + Work.place))
    while server.state.continuePin(&plan) { server.check() }
    #expect(plan.error == nil && server.state.pins.count == 1 && leaves(server) == 0)
    server.check()
  }

  @Test("R31: the recovery of thousands of frames takes several steps") func recovering() throws {
    var server = try OpenServer(frames: 1 << 13)
    let handle = try server.container(Self.ids, shownAt: [free])
    try server.releaseAll(server.task, handle, 0..<Self.ids)
    #expect(server.state.softReferences.count == Int(Self.ids))
    var plan = try server.state.planRecovery(
      server.task, handle, (0..<Self.ids).map { FrameID($0) }, frameError: 0)
    var steps = 1
    while server.state.continueRecovery(&plan) {
      steps += 1
      server.check()
    }
    #expect(steps * Step.most >= Int(Self.ids) * (Work.look + Work.reference))
    #expect(plan.error == nil && server.state.softReferences.count == 0)
    server.check()
  }
}
