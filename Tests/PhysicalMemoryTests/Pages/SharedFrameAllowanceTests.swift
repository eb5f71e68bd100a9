// Per-task allowances of shared records: a task over its allowance loses its own records, and no other task loses any.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

extension SharedFrameStepTests {
  @Test("a task with many leaves of shared frames loses its own, and another task none") func allowance() throws {
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

  @Test("R31: releasing untouched frames keeps no record and displaces no task's released frames") func neverTouched()
    throws
  {
    var server = try OpenServer(frames: 1024)
    let handle = try server.container(10, shownAt: [free])
    var plan = try server.state.planRelease(server.task, handle, (0..<10).map { FrameID($0) })
    while server.state.continueRelease(&plan) {}
    for round in 0..<200 as Range<UInt32> {
      let other = try server.state.createContainer(server.task)
      var allocation = try server.allocate(other, 64)
      while server.state.continueAllocation(&allocation) {}
      var plan = try server.state.planRelease(server.task, other, (0..<64).map { FrameID($0) })
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

  @Test("R32: an expired frame is found at once among references to contents with other sharers") func expiry() throws {
    var server = try OpenServer(frames: 1 << 13)
    let contents = try server.container(2000, shownAt: [free])
    let copies = try server.state.createContainer(server.task)
    var copy = try server.state.planCopy(server.task, contents, .from(0), copies, .from(0), count: 2000)
    while server.state.collect(&copy) {}
    while server.state.install(&copy) {}
    for (handle, ids) in [(copies, (0..<2000).map { FrameID($0) }), (contents, [7, 5])] as [(Handle, [FrameID])] {
      var plan = try server.state.planRelease(server.task, handle, ids)
      while server.state.continueRelease(&plan) {}
    }
    server.check()
    let work = server.state.step.work
    // All references to 7 were made before those to 5; those to contents with other sharers do not matter.
    let isFound = server.state.expireOldest()
    #expect(isFound && server.state.step.work - work <= 2 * Work.reference)
    server.check()
    let slot = try server.state.ownedContainer(server.task, copies)
    #expect(server.state.containers[slot].frames[7] == .unused)
    #expect(server.state.containers[slot].frames[5].softReference != nil)
  }

  @Test(
    "R31: a task keeps its most recent released ids of one content, and untouched ones; others keep theirs"
  )
  func ownReferences() throws {
    var server = try OpenServer(frames: 1 << 14)
    let handle = try server.container(1, shownAt: [free.advanced(by: 1 << 18)])
    let client = try server.client(of: handle)
    let kept = try server.state.createContainer(client.task)
    let keptSlot = try server.state.ownedContainer(client.task, kept)
    var plan = try server.state.planCopy(client.task, client.weak, .list([0, 0, 0]), kept, .from(0), count: 3)
    while server.state.collect(&plan) {}
    while server.state.install(&plan) {}
    let empty = try FrameIDRange(start: 3, count: 1)
    var allocation = try server.state.planAllocation(client.task, kept, empty, [])
    while server.state.continueAllocation(&allocation) {}
    try server.releaseAll(client.task, kept, 0..<4)

    let copies = try sharers(&server)
    try server.releaseAll(server.task, copies, 0..<Self.ids)
    let untouched = try server.state.createContainer(server.task)
    let slot = try server.state.ownedContainer(server.task, untouched)
    let most = UInt32(server.state.releasedEmpties.perTask)
    for start in stride(from: 0, to: most + 64, by: 64) {
      let range = try FrameIDRange(start: FrameID(start), count: 64)
      var allocation = try server.state.planAllocation(server.task, untouched, range, [])
      while server.state.continueAllocation(&allocation) {}
      try server.releaseAll(server.task, untouched, start..<start + 64)
    }
    server.check()
    #expect(server.state.containers[slot].frames[0] == .unused)
    #expect(server.state.containers[slot].frames[FrameID(most)] == .releasedEmpty)
    for id in 0..<3 as Range<UInt32> {
      #expect(server.state.containers[keptSlot].frames[FrameID(id)].softReference != nil)
    }
    #expect(server.state.containers[keptSlot].frames[3] == .releasedEmpty)
  }
}
