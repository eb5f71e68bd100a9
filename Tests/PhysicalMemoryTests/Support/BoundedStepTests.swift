// Long work runs in steps and releases the server's lock between them. Each step is bounded whatever a task made of its
// memory, leaves nothing unfinished, and takes nothing from other tasks.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct BoundedStepTests {
  private let free = TestTask.free

  @Test("unmapping runs in steps, with every zap done") func unmapping() throws {
    var server = try OpenServer(frames: 8192)
    _ = try server.container(2000, shownAt: [free])
    var page: PageNumber? = free
    var steps = 0
    while let next = page {
      page = server.state.unmapPages(server.task, from: next, to: free.advanced(by: 2000))
      server.check()
      steps += 1
      #expect(page != next && server.machine.leaf(server.task, next) == nil)
    }
    #expect(steps > 1)
    server.expectShortSteps()
  }

  @Test("frames with many leaves reduce the frames of a step") func releasing() throws {
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
    #expect(steps > 1)
    #expect(server.machine.leafCount == before - 4000)
    server.expectShortSteps()
    server.check()
  }

  @Test("a dying container cannot be mapped any more") func dying() throws {
    var server = try OpenServer(frames: 1024)
    let handle = try server.container(2, shownAt: [free])
    let range = try FrameIDRange(start: 0, count: 2)
    let pages = try PageRange(address: GuestAddress(free.address), count: 2)
    let prepared = try server.state.checkMapping(server.task, handle, range, pages, .forceWrite)
    _ = try server.state.beginDestroying(server.task, handle)
    _ = server.state.unmapPages(server.task, from: free, to: free.advanced(by: 2))
    let outcome = server.state.serveFault(server.task, free, .write)
    #expect(outcome == .notMapped)
    let next = server.state.fillNext(server.task, free, to: free.advanced(by: 2))
    #expect(next == nil)
    do throws(CallFailure) {
      _ = try server.state.prepareEager(server.task, prepared, free)
      Issue.record("a mapping of a dying container was prepared")
    } catch {
      #expect(error == .canceled)
    }
  }

  @Test("an allocation that drops old contents runs in steps, and its frames cannot be taken between them")
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
    #expect(steps > 2)
    #expect(plan.result == CountedResult(count: 50, error: nil))
    server.expectShortSteps()
  }

  @Test("a large allocation runs in steps") func allocating() throws {
    var server = try OpenServer(frames: 8192)
    let handle = try server.state.createContainer(server.task)
    var plan = try server.allocate(handle, 5000)
    let claimed = server.state.ledger.claimed
    var steps = 0
    while server.state.continueAllocation(&plan) {
      server.check()
      steps += 1
    }
    #expect(steps > 1)
    #expect(server.state.ledger.claimed == claimed)
    server.expectShortSteps()
  }

  @Test("R21: a container is not locked during a call of its owner on it") func lockBetweenSteps() throws {
    var server = try OpenServer(frames: 8192)
    let handle = try server.state.createContainer(server.task)
    let client = try server.client(of: handle)
    var plan = try server.allocate(handle, 5000)
    server.state.beginChanging(plan.container, for: server.task)
    _ = server.state.continueAllocation(&plan)
    let early = server.lock(client)
    #expect(early == .busy)
    while server.state.continueAllocation(&plan) {}
    server.state.endChanges(of: server.task)
    let late = server.lock(client)
    #expect(late == nil)
    server.check()
  }

  @Test("R26: forced write copies a few pages a step") func copying() throws {
    let bytes = [UInt8](repeating: 7, count: 200 << 12)
    let text = ImageSegment(
      start: PageNumber(0x400), pageCount: 200, isWritable: false, isExecutable: true, bytes: bytes[...], offset: 0)
    var server = try OpenServer(frames: 1024, [text])
    let range = try FrameIDRange(start: 0, count: 200)
    let pages = try PageRange(address: GuestAddress(free.address), count: 200)
    let mapping = try server.state.checkMapping(server.task, .initialContainer, range, pages, .forceWrite)
    var next: PageNumber? = free
    var copies: [UInt64] = []
    while let page = next {
      let before = server.state.statistics.copiesOnWrite
      next = try server.state.prepareEager(server.task, mapping, page)
      copies.append(server.state.statistics.copiesOnWrite - before)
      server.check()
    }
    #expect(copies.reduce(0, +) == 200 && copies.allSatisfy { (1...32).contains($0) })
    server.expectShortSteps()
  }

  @Test("an image is loaded, and given to a task, a few pages a step; of shared text, many") func imageInSteps()
    throws
  {
    let bytes = [UInt8](repeating: 7, count: 2000 << 12)
    let parts = [true, false].enumerated().map { index, isWritable in
      ImageSegment(
        start: PageNumber(0x1000 + 4096 * UInt64(index)), pageCount: 2000, isWritable: isWritable, isExecutable: false,
        bytes: bytes[...], offset: 0)
    }
    var server = try OpenServer(frames: 1 << 14)
    var loading = try server.state.planLoading(parts)
    var image: ImageNumber?
    var steps = 0
    while image == nil {
      let before = server.state.contents.count
      image = try server.state.continueLoading(&loading)
      #expect(server.state.contents.count - before <= 64)
      steps += 1
      server.check()
    }
    #expect(steps == 4000 / 64 + 1)
    let task = try server.state.createTask(try some(image), TaskParameters()).0
    var plan = try server.state.startTask(task)
    steps = 0
    repeat {
      let before = server.state.statistics.copiesOnWrite
      steps += 1
      server.check()
      guard try server.state.continueStarting(&plan) else { break }
      #expect(server.state.statistics.copiesOnWrite - before <= 64)
    } while steps < 100
    #expect(steps == 2000 / 64 + 1 + 2000 / 1024 + 1 + 1)
    #expect(server.machine.load(task, PageNumber(0x1000 + 4096).address) == 7)
  }

  @Test("the endpoints and locks of an ending task end in steps, and none is kept") func endsInSteps()
    throws
  {
    var server = try OpenServer(frames: 1024)
    let handle = try server.container(1, shownAt: [])
    let client = try server.client(of: handle)
    for index in 0..<1500 {
      _ = try server.state.createEndpoint(client.task)
      let container = try server.state.createContainer(server.task)
      let weak = try server.state.share(server.task, container, remote: 0)
      let target = try some(server.state.tasks[server.task].handles[weak])
      let given = try some(server.state.tasks[client.task].handles.insert(target))
      _ = try server.state.lock(client.task, given, microseconds: 1000)
      // Some locks end before: unlocked, or expired and removed at the next check.
      if index % 3 == 0 { try server.state.unlock(client.task, given) }
    }
    server.check()
    server.state.beginEnding(client.task)
    for _ in 0..<2 {
      let locked = server.state.locked(by: client.task)
      let step = server.state.continueEnding(client.task)
      #expect(step == .more && locked - server.state.locked(by: client.task) <= 512)
    }
    #expect(server.state.locked(by: client.task) == 0)
    var most = 0
    for _ in 0..<5 {
      let before = server.state.endpoints.count
      _ = server.state.continueEnding(client.task)
      most = max(most, before - server.state.endpoints.count)
    }
    #expect(most > 100 && most <= 512 && server.state.endpoints.count == 0)
    while case .more = server.state.continueEnding(client.task) {}
    server.check()
  }

  @Test("R21: a lock is forgotten when it is over: unlocked, expired, or its container destroyed") func locksForgotten()
    throws
  {
    var server = try OpenServer(frames: 1024)
    for round in 0..<6 {
      let handle = try server.container(1, shownAt: [])
      let client = try server.client(of: handle)
      let error = server.lock(client)
      #expect(error == nil && server.state.locked(by: client.task) == 1)
      if round % 2 == 0 {
        try server.state.unlock(client.task, client.weak)
      } else {
        server.machine.advance(microseconds: 1_000_000)
        let slot = try server.state.beginDestroying(server.task, handle)
        while !server.state.continueDestroying(slot) {}
      }
      #expect(server.state.locked(by: client.task) == 0)
      server.state.beginEnding(client.task)
      while case .more = server.state.continueEnding(client.task) {}
      server.check()
    }
  }

  @Test("R24: contents overwritten by empty frames are dropped in steps") func emptyOverContents() throws {
    var server = try OpenServer(frames: 1 << 14)
    let source = try server.container(6000, shownAt: [])
    let destination = try server.container(6000, shownAt: [free])
    let slot = try server.state.ownedContainer(server.task, destination)
    var copy = try server.state.planCopy(server.task, source, .from(0), destination, .from(0), count: 6000)
    while server.state.collect(&copy) {}
    var done: FrameID = 0
    while server.state.install(&copy) {
      let next = server.state.containers[slot].frames.firstContent(from: 0, limit: 6000)
      #expect(try some(next) > done)
      done = next ?? done
      server.check()
    }
    #expect(done > 0)
    #expect(server.state.containers[slot].frames.firstContent(from: 0, limit: 6000) == nil)
    server.check()
    server.expectShortSteps()
  }

  @Test("R38: copies drop shared data a few ids a step") func dataInSteps() throws {
    var server = try OpenServer(frames: 1 << 13)
    let source = try server.container(2000, shownAt: [free])
    let copies = try server.container(2000, shownAt: [])
    var copy = try server.state.planCopy(server.task, source, .from(0), copies, .from(0), count: 2000)
    while server.state.collect(&copy) {}
    while server.state.install(&copy) {}
    let slot = try server.state.ownedContainer(server.task, copies)
    var plan = try server.state.planDataRelease(server.task, copies, Array(0..<2000))
    while server.state.continueDataRelease(&plan) { server.check() }
    #expect(server.state.containers[slot].frames.firstContent(from: 0, limit: 2000) == nil)
    server.check()
    server.expectShortSteps()
  }

  @Test("the leaves of one frame are limited; a new one replaces an old one") func leavesOfOneFrame() throws {
    var server = try OpenServer(frames: 1 << 13)
    let count = ReverseMap.maximumPlaces + 20
    _ = try server.container(1, shownAt: (0..<count).map { free.advanced(by: $0) })
    server.check()
    let leaves = (0..<count).count { server.machine.leaf(server.task, free.advanced(by: $0)) != nil }
    #expect(leaves >= ReverseMap.maximumPlaces && leaves < count)
    // Replaced leaves come back on access.
    for offset in 0..<count where server.machine.leaf(server.task, free.advanced(by: offset)) == nil {
      let outcome = server.state.serveFault(server.task, free.advanced(by: offset), .write)
      #expect(outcome == .served(pages: 1))
    }
    server.check()
  }

  // MARK: The table of mappings

  @Test("R25: a full table of mappings rejects only what needs room") func fullTable() throws {
    var server = try OpenServer(frames: 512)
    let handle = try server.container(2, shownAt: [])
    let slot = try server.state.ownedContainer(server.task, handle)
    let reference = ContainerReference(slot: slot, generation: server.state.containers.generation(at: slot))
    // Every other mapping shows another frame, so that none are merged. The first one has three pages.
    var page = free
    while server.state.tasks[server.task].mappings.count < MappingTable.capacity {
      let isFirst = page == free
      server.state.installMapping(
        server.task,
        Mapping(start: page, count: isFirst ? 3 : 1, container: reference, frame: 0, flags: [.read, .lazy]))
      page = page.advanced(by: isFirst ? 3 : 1)
    }
    let last = page.advanced(by: -1)
    func room(_ page: PageNumber, _ count: UInt64, new: Int) throws -> Bool {
      server.state.hasRoomForMappings(
        server.task, try PageRange(address: GuestAddress(page.address), count: count), new: new)
    }
    #expect(try room(free, 1, new: 0))
    #expect(try room(free, 3, new: 0))
    #expect(try !room(free.advanced(by: 1), 1, new: 0))
    #expect(try !room(free.advanced(by: 1), 1, new: 1))
    #expect(try !room(page, 1, new: 1))
    // Only dead mappings are forgotten, and all of them are.
    var position: Int? = 0
    while let from = position { position = server.state.forgetDeadMappings(server.task, from: from) }
    #expect(server.state.tasks[server.task].mappings.count == MappingTable.capacity)
    let more = server.state.removeMappings(server.task, from: free, to: last)
    #expect(!more)
    #expect(server.state.tasks[server.task].mappings.count == MappingTable.capacity - 2048)
    let dying = try server.state.beginDestroying(server.task, handle)
    while !server.state.continueDestroying(dying) {}
    position = 0
    while let from = position { position = server.state.forgetDeadMappings(server.task, from: from) }
    // Text, data and stack.
    #expect(server.state.tasks[server.task].mappings.count == 3)
    server.check()
  }
}

extension ServerState {
  /// The number of containers that a task has locked, by its record.
  fileprivate func locked(by task: TaskSlot) -> Int {
    var count = 0
    var next = tasks[task].firstLocked
    while let slot = next {
      count += 1
      next = containers[slot].lock?.next
    }
    return count
  }
}
