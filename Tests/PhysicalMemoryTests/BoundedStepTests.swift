// Long work goes in steps, between which the server's lock is free: each step is bounded whatever a task made of its
// memory, leaves nothing half done, and takes nothing from others.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct BoundedStepTests {
  private let free = TestTask.free

  @Test("unmapping stops at its limit with every zap done") func unmapping() throws {
    var server = try OpenServer(frames: 1024)
    _ = try server.container(100, shownAt: [free])
    var page: PageNumber? = free
    var steps = 0
    while let next = page {
      page = server.state.unmapPages(server.task, from: next, to: free.advanced(by: 100), limit: 30)
      server.check()
      steps += 1
      #expect(server.machine.leaf(server.task, free.advanced(by: min(99, 30 * steps - 1))) == nil)
    }
    #expect(steps == 4)
  }

  @Test("frames with many leaves make a step shorter in frames") func releasing() throws {
    var server = try OpenServer(frames: 4096)
    // 40 frames with 100 leaves each.
    let pages = (0..<100).map { free.advanced(by: 40 * $0) }
    let handle = try server.container(40, shownAt: pages)
    let before = server.machine.leafCount
    let slot = try server.state.beginDestroying(server.task, handle)
    var steps = 0
    while !server.state.continueDestroying(slot) {
      server.check()
      steps += 1
    }
    #expect(steps == 1)
    #expect(server.machine.leafCount == before - 4000)
    server.check()
  }

  @Test("what is being destroyed is shown to nobody any more") func dying() throws {
    var server = try OpenServer(frames: 1024)
    let handle = try server.container(2, shownAt: [free])
    let range = try FrameIDRange(start: 0, count: 2)
    let pages = try PageRange(address: free.address, count: 2)
    let prepared = try server.state.checkMapping(server.task, handle, range, pages, .forceWrite)
    _ = try server.state.beginDestroying(server.task, handle)
    _ = server.state.unmapPages(server.task, from: free, to: free.advanced(by: 2), limit: 9)
    let outcome = server.state.serveFault(server.task, free, .write)
    #expect(outcome == .notMapped)
    let next = server.state.fillNext(server.task, free, to: free.advanced(by: 2))
    #expect(next == nil)
    do throws(ServerError) {
      _ = try server.state.prepareEager(server.task, prepared, free)
      Issue.record("a mapping of a dying container was readied")
    } catch {
      #expect(error == .canceled)
    }
  }

  @Test("an allocation that drops what ids named goes in steps, and nobody can take its frames between them")
  func squashing() throws {
    var server = try OpenServer(frames: 4096)
    let handle = try server.container(40, shownAt: (0..<100).map { free.advanced(by: 40 * $0) })
    let claimed = server.state.ledger.claimed
    var plan = try server.allocate(handle, 50, .squash)
    #expect(server.state.ledger.claimed == claimed + 10)
    var steps = 0
    while server.state.continueAllocation(&plan) {
      server.check()
      #expect(server.state.ledger.claimed == claimed + 10)
      steps += 1
    }
    #expect(steps == 2)
    #expect(plan.result == CountedResult(count: 50, error: nil))
  }

  @Test("a large allocation goes in steps") func allocating() throws {
    var server = try OpenServer(frames: 8192)
    let handle = try server.state.createContainer(server.task)
    var plan = try server.allocate(handle, 5000)
    let claimed = server.state.ledger.claimed
    var steps = 0
    while server.state.continueAllocation(&plan) {
      server.check()
      steps += 1
    }
    #expect(steps == 3)
    #expect(server.state.ledger.claimed == claimed)
  }

  @Test("R21: a container is not locked while a call of its owner on it is under way") func lockBetweenSteps() throws {
    var server = try OpenServer(frames: 8192)
    let handle = try server.state.createContainer(server.task)
    let client = try server.client(of: handle)
    var plan = try server.allocate(handle, 5000)
    _ = server.state.continueAllocation(&plan)
    let early = server.lock(client)
    #expect(early == .busy)
    while server.state.continueAllocation(&plan) {}
    let late = server.lock(client)
    #expect(late == nil)
    server.check()
  }

  @Test("R26: enforced write copies a few pages a step") func copying() throws {
    let bytes = [UInt8](repeating: 7, count: 200 << 12)
    let text = ImageSegment(
      start: PageNumber(0x400), pageCount: 200, isWritable: false, isExecutable: true, bytes: bytes[...], offset: 0)
    var server = try OpenServer(frames: 1024, [text])
    let range = try FrameIDRange(start: 0, count: 200)
    let pages = try PageRange(address: free.address, count: 200)
    let mapping = try server.state.checkMapping(server.task, TestTask.container, range, pages, .forceWrite)
    var next: PageNumber? = free
    var copies: [UInt64] = []
    while let page = next {
      let before = server.state.statistics.copiesOnWrite
      next = try server.state.prepareEager(server.task, mapping, page)
      copies.append(server.state.statistics.copiesOnWrite - before)
      server.check()
    }
    #expect(copies == [32, 32, 32, 32, 32, 32, 8])
  }

  @Test("the leaves of one frame are bounded; a new one drops an old one") func leavesOfOneFrame() throws {
    var server = try OpenServer(frames: 2048)
    let count = ReverseMap.maximumPlaces + 20
    _ = try server.container(1, shownAt: (0..<count).map { free.advanced(by: $0) })
    server.check()
    let leaves = (0..<count).count { server.machine.leaf(server.task, free.advanced(by: $0)) != nil }
    #expect(leaves >= ReverseMap.maximumPlaces && leaves < count)
    // Those dropped come back on access.
    for offset in 0..<count where server.machine.leaf(server.task, free.advanced(by: offset)) == nil {
      let outcome = server.state.serveFault(server.task, free.advanced(by: offset), .write)
      #expect(outcome == .served(pages: 1))
    }
    server.check()
  }

  @Test("without nodes for second leaves, leaves are dropped for new ones and nobody fails") func noNodes() throws {
    var server = try OpenServer(frames: 256)
    // 60 frames with many leaves each want more nodes than there are frames.
    let pages = (0..<14).map { free.advanced(by: 60 * $0) }
    _ = try server.container(60, shownAt: pages)
    server.check()
    #expect(server.state.reverseMap.nodeCount <= 256)
    #expect(server.machine.leafCount < 14 * 60)
    for page in pages {
      for offset in 0..<60 {
        let outcome = server.state.serveFault(server.task, page.advanced(by: offset), .write)
        #expect(outcome == .served(pages: 1) || outcome == .spurious)
      }
    }
    server.check()
  }

  // MARK: The table of mappings

  @Test("R25: a full table of mappings refuses what needs room, and nothing else") func fullTable() throws {
    var server = try OpenServer(frames: 512)
    let handle = try server.container(2, shownAt: [])
    let slot = try server.state.ownedContainer(server.task, handle)
    let reference = ContainerReference(slot: slot, generation: server.state.containers.generation(at: slot))
    // Every other mapping shows another frame, so that none are joined. The first one has three pages.
    var page = free
    while server.state.tasks[0].mappings.count < MappingTable.capacity {
      let isFirst = page == free
      server.state.installMapping(
        server.task,
        Mapping(start: page, count: isFirst ? 3 : 1, container: reference, frame: 0, flags: [.read, .lazy]))
      page = page.advanced(by: isFirst ? 3 : 1)
    }
    let last = page.advanced(by: -1)
    func room(_ page: PageNumber, _ count: UInt64, new: Int) throws -> Bool {
      server.state.hasRoomForMappings(server.task, try PageRange(address: page.address, count: count), new: new)
    }
    #expect(try room(free, 1, new: 0))
    #expect(try room(free, 3, new: 0))
    #expect(try !room(free.advanced(by: 1), 1, new: 0))
    #expect(try !room(free.advanced(by: 1), 1, new: 1))
    #expect(try !room(page, 1, new: 1))
    // Nothing is forgotten that is still good, and everything that is not.
    var position: Int? = 0
    while let from = position { position = server.state.forgetDeadMappings(server.task, from: from) }
    #expect(server.state.tasks[0].mappings.count == MappingTable.capacity)
    let more = server.state.removeMappings(server.task, from: free, to: last)
    #expect(!more)
    #expect(server.state.tasks[0].mappings.count == MappingTable.capacity - 2048)
    let dying = try server.state.beginDestroying(server.task, handle)
    while !server.state.continueDestroying(dying) {}
    position = 0
    while let from = position { position = server.state.forgetDeadMappings(server.task, from: from) }
    // Text, data and stack.
    #expect(server.state.tasks[0].mappings.count == 3)
    server.check()
  }
}
