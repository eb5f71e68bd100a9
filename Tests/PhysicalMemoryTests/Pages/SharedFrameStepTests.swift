// What a step costs is what it looks at, not what it changes: one frame with thousands of leaves, and thousands of ids
// without one that share its content.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct SharedFrameStepTests {
  private let free = TestTask.free
  private static let leaves = 1200
  private static let ids: UInt32 = 3000

  /// A container of one frame that is shown at as many pages.
  private func shown(_ server: inout OpenServer) throws -> Handle {
    try server.container(1, shownAt: (0..<Self.leaves).map { free.advanced(by: $0) })
  }

  private func copy(_ server: inout OpenServer, _ source: Handle, to destination: Handle) throws {
    let zeros = [FrameID](repeating: 0, count: Int(Self.ids))
    var plan = try server.state.planCopy(
      server.task, source, .list(zeros), destination, .from(0), count: zeros.count)
    while server.state.collect(&plan) {}
    while server.state.install(&plan) {}
  }

  private func leaves(_ server: borrowing OpenServer) -> Int {
    (0..<Self.leaves).count { server.machine.leaf(server.task, free.advanced(by: $0)) != nil }
  }

  /// A container of many ids that share a frame with many leaves.
  private func sharers(_ server: inout OpenServer) throws -> Handle {
    let source = try shown(&server)
    let copies = try server.state.createContainer(server.task)
    try copy(&server, source, to: copies)
    // All of them again: the copy took most, since they could be written.
    for index in 0..<Self.leaves where server.machine.leaf(server.task, free.advanced(by: index)) == nil {
      let outcome = server.state.serveFault(server.task, free.advanced(by: index), .read)
      #expect(outcome == .served(pages: 1))
    }
    return copies
  }

  /// Each id's walk along the leaves of the frame counted, though it changed nothing.
  private func expectAllCounted(_ steps: Int, _ sourceLocation: SourceLocation = #_sourceLocation) {
    let nodes = Int(Self.ids) * Self.leaves / 3
    #expect(steps * 3 * Step.most >= nodes * Work.look, sourceLocation: sourceLocation)
  }

  @Test("a step is over when its work is done or its time is up, and stays so") func clock() {
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

  @Test("R24: a private frame with many leaves is made read-only in steps, and is nobody else's before it is")
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

  @Test("R18: thousands of ids let go of a frame with thousands of leaves, which stay") func deallocating() throws {
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

  @Test("R38: so do those that only let go of the data") func releasingData() throws {
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

  @Test("R31: and those that are released, of which as many come back as are kept") func releasing() throws {
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

  @Test("R20: a share of them is cancelled; leaves of mappings through it go, others stay") func revoking() throws {
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

  @Test("R22: they are pinned, each with a frame of its own") func pinning() throws {
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
    while let next = page {
      page = server.state.unmapPages(server.task, from: next, to: free.advanced(by: Self.leaves))
      server.check()
    }
    #expect(leaves(server) == 0)
    server.expectShortSteps()
  }

  @Test("R18: a frame with many leaves goes in steps, and is its owner's until all are gone") func dropping() throws {
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

  // MARK: What belongs to whom

  @Test("a task with many leaves of frames that it shares loses its own, and another none") func allowance() throws {
    var server = try OpenServer(frames: 256)
    let handle = try server.container(20, shownAt: [])
    let client = try server.client(of: handle)
    // The client's few leaves are surplus: the frames have three already.
    func show(_ task: TaskSlot, _ handle: Handle, _ page: PageNumber) throws {
      let range = try FrameIDRange(start: 0, count: 20)
      let pages = try PageRange(address: GuestAddress(page.address), count: 20)
      let mapping = try server.state.checkMapping(task, handle, range, pages, [.read, .write, .lazy])
      server.state.installMapping(task, mapping)
      for offset in 0..<20 where server.machine.leaf(task, page.advanced(by: offset)) == nil {
        _ = server.state.serveFault(task, page.advanced(by: offset), .write)
        #expect(server.machine.leaf(task, page.advanced(by: offset)) != nil)
      }
    }
    for round in 0..<3 { try show(server.task, handle, free.advanced(by: 32 * round)) }
    try show(client.task, client.weak, free)
    let allowance = server.state.surplusPlaces.perTask
    for round in 3..<(3 + 3 * allowance / 20) { try show(server.task, handle, free.advanced(by: 32 * round)) }
    server.check()
    for offset in 0..<20 { #expect(server.machine.leaf(client.task, free.advanced(by: offset)) != nil) }
    #expect(server.machine.leafCount <= 3 * 20 + 20 + allowance + 64)
    #expect(server.state.reverseMap.nodeCount <= 256 + allowance + 20)
  }

  @Test("R31: never touched and released: nothing is kept, and nobody's released frame goes") func neverTouched() throws
  {
    var server = try OpenServer(frames: 1024)
    let handle = try server.container(10, shownAt: [free])
    var plan = try server.state.planRelease(server.task, handle, Array(0..<10))
    while server.state.continueRelease(&plan) {}
    for round in 0..<200 as Range<UInt32> {
      let other = try server.state.createContainer(server.task)
      var allocation = try server.allocate(other, 64)
      while server.state.continueAllocation(&allocation) {}
      var plan = try server.state.planRelease(server.task, other, Array(0..<64))
      while server.state.continueRelease(&plan) {}
      if round == 0 {
        var recovery = try server.state.planRecovery(server.task, other, [3], frameError: 0)
        while server.state.continueRecovery(&recovery) {}
        #expect(recovery.error == nil)
      }
    }
    server.check()
    #expect(server.state.softReferences.count == 10 && server.state.statistics.framesExpired == 0)
  }

  @Test("R32: a frame is found at once among releases of contents that others have") func expiry() throws {
    var server = try OpenServer(frames: 1 << 13)
    let contents = try server.container(2000, shownAt: [free])
    let copies = try server.state.createContainer(server.task)
    var copy = try server.state.planCopy(server.task, contents, .from(0), copies, .from(0), count: 2000)
    while server.state.collect(&copy) {}
    while server.state.install(&copy) {}
    for (handle, ids) in [(copies, Array(0..<2000)), (contents, [7, 5])] as [(Handle, [FrameID])] {
      var plan = try server.state.planRelease(server.task, handle, ids)
      while server.state.continueRelease(&plan) {}
    }
    server.check()
    let work = server.state.step.work
    // 7 was let go by all before 5 was; who has the others does not matter.
    let isFound = server.state.expireOldest()
    #expect(isFound && server.state.step.work - work <= 2 * Work.reference)
    server.check()
    let slot = try server.state.ownedContainer(server.task, copies)
    #expect(server.state.containers[slot].frames[7] == .unused)
    #expect(server.state.containers[slot].frames[5].softReference != nil)
  }
}
