// Placed allocations (R19): validation of constraints, obstacles, and changes between two steps.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

/// A `struct pm_placement`; addresses in bytes.
struct PlacementRequest: CustomStringConvertible {
  var below: UInt64 = 0
  var alignment: UInt64 = 0
  var boundary: UInt64 = 0
  var fixed: UInt64 = 0
  var contiguous: UInt32 = 0

  static let run = PlacementRequest(contiguous: 1)

  var description: String {
    "below \(below) alignment \(alignment) boundary \(boundary) fixed \(fixed) contiguous \(contiguous)"
  }

  func placement(_ count: Int, of frames: Int = 1024) throws(CallFailure) -> Placement {
    try Placement(
      below: below, alignment: alignment, boundary: boundary, fixed: fixed, contiguous: contiguous, count: count,
      frameCount: frames)
  }

  var bytes: [UInt8] {
    func bytes(_ number: UInt64, _ size: Int) -> [UInt8] {
      (0..<size).map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) }
    }
    return [below, alignment, boundary, fixed].flatMap { bytes($0, 8) } + bytes(UInt64(contiguous), 4) + bytes(0, 4)
  }
}

extension TestTask {
  private static let request = scratch - 64

  func place(
    _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ request: PlacementRequest, _ flags: AllocationFlags = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) -> CallResult {
    #expect(throws: Never.self) { try server.writeMemory(slot, Self.request, request.bytes.span) }
    let words = (0..<4).map { UInt8(truncatingIfNeeded: count >> UInt32(8 * $0)) }
    #expect(throws: Never.self) { try server.writeMemory(slot, Self.scratch, words.span) }
    var error: CallFailure?
    do throws(CallFailure) {
      try server.allocatePlaced(
        slot, handle, start: start, countAddress: Self.scratch, flags: flags.rawValue, placement: Self.request)
    } catch let thrown {
      error = thrown
    }
    bed.check(sourceLocation)
    return CallResult(error: error, count: loadWord())
  }

  /// The frames of the contents.
  func frames(_ handle: UInt32, _ ids: Range<UInt32>) -> [Int] {
    server.frames(slot, handle, Array(ids)).map { $0.map { Int($0.rawValue) } ?? 0 }
  }

  /// A container of pages that hold their numbers.
  func numbered(_ count: UInt32, at start: PageNumber = free) throws -> UInt32 {
    let handle = try container(count)
    #expect(map(handle, 0, count, start, [.read, .write, .lazy]) == nil)
    for id in 0..<Int(count) {
      #expect(write(start.advanced(by: id), UInt8(truncatingIfNeeded: id + 1)) == nil)
    }
    return handle
  }

  func checkNumbered(
    _ ids: Range<UInt32>, at start: PageNumber = free, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    for id in ids {
      let byte = read(start.advanced(by: Int(id)), sourceLocation: sourceLocation)
      #expect(byte == .success(UInt8(truncatingIfNeeded: id + 1)), sourceLocation: sourceLocation)
    }
  }

  func pin(_ handle: UInt32, _ id: UInt32) {
    #expect(throws: Never.self) {
      try server.pin(slot, handle, start: id, count: 1, microseconds: 1000, physical: Self.scratch - 8)
    }
  }
}

private let page: UInt64 = 4096

@Suite struct PlacementValidationTests {
  private static let bad = [
    PlacementRequest(alignment: 3 * page), PlacementRequest(alignment: 1 << 63),
    PlacementRequest(alignment: 1024 * page), PlacementRequest(alignment: 256 * page),
    PlacementRequest(boundary: 3 * page, contiguous: 1), PlacementRequest(boundary: 64, contiguous: 1),
    PlacementRequest(boundary: 64), PlacementRequest(boundary: 4 * page, contiguous: 1),
    PlacementRequest(below: 4095), PlacementRequest(below: 5 * page, contiguous: 1), PlacementRequest(below: 5 * page),
    PlacementRequest(contiguous: 2), PlacementRequest(fixed: 1 << 40), PlacementRequest(fixed: ~4095),
    PlacementRequest(fixed: page + 8), PlacementRequest(fixed: 1020 * page),
    PlacementRequest(below: 12 * page, fixed: 8 * page), PlacementRequest(alignment: 4 * page, fixed: 6 * page),
    PlacementRequest(boundary: 8 * page, fixed: 6 * page),
  ]
  private static let good = [
    PlacementRequest(), PlacementRequest(alignment: 1), PlacementRequest(alignment: 128 * page),
    PlacementRequest(alignment: 512 * page, contiguous: 1), PlacementRequest(boundary: 8 * page, contiguous: 1),
    PlacementRequest(boundary: page), PlacementRequest(boundary: 1 << 63, contiguous: 1),
    PlacementRequest(below: 6 * page), PlacementRequest(below: 6 * page, contiguous: 1),
    PlacementRequest(below: .max, contiguous: 1), PlacementRequest(fixed: 1019 * page),
    PlacementRequest(below: 13 * page, alignment: 8 * page, boundary: 8 * page, fixed: 8 * page),
  ]

  @Test("R19: impossible constraints for five frames of 1024 are rejected", arguments: bad)
  func refused(_ request: PlacementRequest) {
    #expect(throws: CallFailure.invalid) { _ = try request.placement(5) }
  }

  @Test("R19: just possible constraints are not rejected", arguments: good)
  func accepted(_ request: PlacementRequest) {
    #expect(throws: Never.self) { _ = try request.placement(5) }
  }

  @Test("R19: a run begins after a boundary that it would cross") func boundary() throws {
    let eight = try PlacementRequest(boundary: 8 * page, contiguous: 1).placement(5)
    #expect([1, 3, 4, 8, 11, 12, 1018].map { eight.start(from: $0, count: 5) } == [1, 3, 8, 8, 11, 16, 1018])
    #expect(eight.start(from: 1020, count: 5) == nil)
    let aligned = try PlacementRequest(alignment: 4 * page, boundary: 8 * page, contiguous: 1).placement(5)
    #expect([1, 8, 9].map { aligned.start(from: $0, count: 5) } == [8, 8, 16])
    let fixed = try PlacementRequest(fixed: 9 * page).placement(5)
    #expect([0, 9, 10].map { fixed.start(from: $0, count: 5) } == [9, 9, nil])
  }
}

@Suite struct PlacementTests {
  /// A task that has all of 256 frames, most of them numbered pages from frame 9 on; `count` of them beyond frame 100
  /// are free again.
  private func fullTask(_ bed: Testbed, free count: Int) throws -> (task: TestTask, handle: UInt32) {
    let task = try bed.start()
    let all = UInt32(task.information.available)
    let handle = try task.numbered(all)
    let rest = UInt32(SampleProgram.pages - 3)
    #expect(task.map(TestTask.container, 3, rest, TestTask.free.advanced(by: 4096), [.read]) == nil)
    let ids = task.frames(handle, 0..<all).enumerated().filter { $0.element > 100 }.map { UInt32($0.offset) }
    for id in ids.prefix(count) { #expect(task.deallocate(handle, id, 1) == .ok(1)) }
    return (task, handle)
  }

  private func id(_ task: TestTask, _ handle: UInt32, at frame: Int) throws -> UInt32 {
    UInt32(try #require(task.frames(handle, 0..<224).firstIndex(of: frame)))
  }

  private func checkRest(_ task: TestTask, _ handle: UInt32) {
    for (id, frame) in task.frames(handle, 0..<224).enumerated() where frame != 0 {
      task.checkNumbered(UInt32(id)..<UInt32(id) + 1)
    }
  }

  @Test("R19: the search continues behind a pinned frame") func obstacleInTheMiddle() throws {
    let bed = try Testbed(frames: 256)
    let (task, handle) = try fullTask(bed, free: 70)
    let request = PlacementRequest(below: 101 * page, contiguous: 1)
    task.pin(handle, try id(task, handle, at: 30))
    #expect(task.place(handle, 1000, 60, request) == .ok(60))
    let frames = task.frames(handle, 1000..<1060)
    #expect(frames == Array(frames[0]..<frames[0] + 60) && (31...41).contains(frames[0]))
    checkRest(task, handle)
    #expect(bed.statistics.placements == 1 && bed.statistics.framesMoved > 50)
  }

  @Test("R19: the obstacle is reported, and nothing has changed") func noPlace() throws {
    let bed = try Testbed(frames: 256)
    let (task, handle) = try fullTask(bed, free: 70)
    for frame in [30, 45] { task.pin(handle, try id(task, handle, at: frame)) }
    let before = (bed.balance, bed.server.frameUses())
    #expect(task.place(handle, 1000, 60, PlacementRequest(below: 101 * page, contiguous: 1)) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(task.slot) == Obstacle(address: 45 * page, kind: .pinned))
    #expect(task.place(handle, 1000, 3, PlacementRequest(fixed: 29 * page)) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(task.slot) == Obstacle(address: 30 * page, kind: .pinned))
    #expect(task.place(handle, 1000, 3, PlacementRequest(fixed: 222 * page)) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(task.slot) == Obstacle(address: 224 * page, kind: .pageTable))
    #expect(bed.balance == before.0)
    #expect(bed.server.frameUses() == before.1)
    // A placed frame is an obstacle while it is in use.
    #expect(task.place(handle, 1000, 1, PlacementRequest(fixed: 60 * page)) == .ok(1))
    #expect(task.place(handle, 1001, 2, PlacementRequest(fixed: 59 * page)) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(task.slot) == Obstacle(address: 60 * page, kind: .placed))
    #expect(task.release(handle, [1000]) == nil)
    #expect(task.place(handle, 1001, 2, PlacementRequest(fixed: 59 * page)) == .ok(2))
    checkRest(task, handle)
  }

  @Test("R19: single frames below a limit and aligned, free ones first") func singles() throws {
    let bed = try Testbed(frames: 256)
    let (task, handle) = try fullTask(bed, free: 70)
    let two = PlacementRequest(below: 40 * page, alignment: 4 * page)
    task.pin(handle, try id(task, handle, at: 20))
    // Multiples of four, except the pinned one; none of them is free.
    #expect(task.place(handle, 1000, 9, two) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(task.slot) == Obstacle(address: 20 * page, kind: .pinned))
    // Contents moved for that are out of the way now.
    #expect(bed.statistics.framesMoved == 8)
    #expect(task.place(handle, 1000, 8, two) == .ok(8))
    #expect(Set(task.frames(handle, 1000..<1008)) == [4, 8, 12, 16, 24, 28, 32, 36])
    #expect(bed.statistics.framesMoved == 8)
    checkRest(task, handle)
  }

  @Test("R19, R31: released contents make room, the oldest first and no more than necessary") func released() throws {
    let bed = try Testbed(frames: 256)
    let (task, handle) = try fullTask(bed, free: 10)
    let frames = task.frames(handle, 0..<224)
    let low = frames.indices.filter { (20..<24).contains(frames[$0]) }.map { UInt32($0) }
    let high = frames.indices.filter { (80..<84).contains(frames[$0]) }.map { UInt32($0) }
    // Inside the window, and outside.
    #expect(task.release(handle, low + high) == nil)
    let count = UInt32(bed.server.frameUses().count { $0 == .free } + 4)
    #expect(task.place(handle, 1000, count, PlacementRequest(fixed: 20 * page)) == .ok(count))
    #expect(bed.statistics.framesExpired == 4)
    #expect(task.expired(handle, low + high) == low)
    #expect(task.deallocate(handle, 1000, count) == .ok(count))
    #expect(task.recover(handle, high) == nil)
    checkRest(task, handle)
  }

  @Test("R19: with too few free frames, only the positions of contents change")
  func starved() throws {
    let bed = try Testbed(frames: 256)
    let (task, handle) = try fullTask(bed, free: 10)
    // They are charged already, but no frames are left to move contents to.
    #expect(task.place(handle, 0, 60, .run, .squash) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(task.slot).kind == .none)
    checkRest(task, handle)
    #expect(task.place(handle, 0, 10, .run, .squash) == .ok(10))
    #expect(task.read(TestTask.free) == .success(0))
  }

  @Test("R19: tables kept for an ended task are no obstacle") func keptTables() throws {
    let bed = try Testbed(frames: 256)
    let image = try bed.load()
    let first = try bed.start(image)
    let second = try bed.start(image)
    // Beyond their area: one of the last tables is elsewhere, among other frames.
    for task in [first, second] {
      let handle = try task.container(1)
      for region in 0..<14 {
        let page = TestTask.free.advanced(by: region * 512)
        #expect(task.map(handle, 0, 1, page, [.read, .write]) == nil)
      }
    }
    let outside = bed.server.frameUses().indices.filter { $0 < 224 && bed.server.frameUses()[$0] == .table }
    let frame = try #require(outside.first)
    let handle = try first.createContainer().get()
    let there = PlacementRequest(fixed: UInt64(frame) * page)
    #expect(first.place(handle, 0, 1, there) == .failed(.noMemory, 0))
    #expect(bed.server.placementObstacle(first.slot) == Obstacle(address: there.fixed, kind: .pageTable))
    second.end()
    #expect(bed.server.frameUses()[frame] == .table)
    #expect(first.place(handle, 0, 1, there) == .ok(1))
  }

  @Test("R19: at most three quarters of the pool can be placed") func limit() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let handle = try task.createContainer().get()
    let most = UInt32(bed.statistics.allocatableFrames / 4 * 3)
    #expect(task.place(handle, 0, most - 10, PlacementRequest()) == .ok(most - 10))
    #expect(task.place(handle, 1000, 11, PlacementRequest()) == .failed(.noMemory, 0))
    #expect(task.place(handle, 1000, 10, PlacementRequest()) == .ok(10))
    // Released frames do not count.
    #expect(task.release(handle, Array(0..<10)) == nil)
    #expect(task.place(handle, 2000, 10, PlacementRequest()) == .ok(10))
  }
}

// MARK: Between two steps

extension OpenServer {
  fileprivate mutating func plan(
    _ handle: Handle, _ count: UInt32, _ request: PlacementRequest, _ flags: AllocationFlags = []
  ) throws -> (AllocationPlan, PlacementPlan) {
    let range = try FrameIDRange(start: 5000, count: count)
    let allocation = try state.planAllocation(task, handle, range, flags, placed: true)
    return (allocation, state.planPlacement(task, allocation, try request.placement(Int(count), of: state.pool.count)))
  }

  /// Continues to the end.
  fileprivate mutating func finish(
    _ plan: inout (AllocationPlan, PlacementPlan), _ last: PlacementPlan.Progress = .done,
    _ sourceLocation: SourceLocation = #_sourceLocation
  ) {
    var progress = PlacementPlan.Progress.more
    for _ in 0..<1000 where progress == .more { progress = state.continuePlacement(&plan.1) }
    #expect(progress == last, sourceLocation: sourceLocation)
    if progress == .done {
      while state.installPlaced(&plan.1, &plan.0) {}
    } else {
      while state.abandon(&plan.1) {}
      state.abandon(plan.0)
    }
    check(sourceLocation)
  }
}

@Suite struct PlacementStepTests {
  private let start = TestTask.free
  private let count: UInt32 = 900
  /// Among the scattered pages.
  private let window = PlacementRequest(fixed: 200 * page)

  private func id(_ server: borrowing OpenServer, _ handle: Handle, in frames: Range<Int>) throws -> UInt32 {
    for id in 0..<count where id % 3 != 1 {
      if frames.contains(try server.frame(handle, id)) { return id }
    }
    throw CallFailure.noEntry
  }

  @Test("R19, R22: a frame pinned between two steps is an obstacle, and all frames taken so far are given back")
  func pinnedMeanwhile() throws {
    var server = try OpenServer(frames: 1024)
    let handle = try server.scattered(count, at: start)
    let target = try server.state.createContainer(server.task)
    let free = server.state.pool.freeCount
    var plan = try server.plan(target, 200, window)
    for _ in 0..<2 { _ = server.state.continuePlacement(&plan.1) }
    #expect((1..<200).contains(plan.1.frames.count))
    let id = try id(server, handle, in: 390..<400)
    let frame = try server.frame(handle, id)
    let error = server.pin(server.task, handle, id, 1)
    #expect(error == nil)
    server.finish(&plan, .failed)
    #expect(server.state.tasks[server.task].obstacle == Obstacle(address: UInt64(frame) * page, kind: .pinned))
    #expect(server.state.pool.freeCount == free)
    server.checkScattered(0..<count, at: start)
  }

  @Test("R19: an abandoned window is given back in steps, during the search and at its end")
  func abandonedInSteps() throws {
    var server = try OpenServer(frames: 1 << 14)
    let handle = try server.container(1, shownAt: [start])
    let target = try server.state.createContainer(server.task)
    let free = server.state.pool.freeCount
    for isFixed in [false, true] {
      let request = isFixed ? PlacementRequest(fixed: 1000 * page) : .run
      var plan = try server.plan(target, 12000, request)
      for _ in 0..<10 where plan.1.frames.isEmpty { _ = server.state.continuePlacement(&plan.1) }
      // A frame in its middle is allocated and pinned: there is no other window.
      let middle = try some(plan.1.window).start.advanced(by: 6000)
      let source = FrameNumber(UInt32(try server.frame(handle, 0)))
      server.state.pool.takeFree(FrameRun(start: middle, count: 1))
      server.state.pool.records[middle].state = .inUse
      server.state.move([FrameMove(source: source, destination: middle)])
      server.state.pool.give(source)
      let error = server.pin(server.task, handle, 0, 1)
      #expect(error == nil)
      for _ in 0..<10 where plan.1.abandoned == nil { _ = server.state.continuePlacement(&plan.1) }
      #expect(server.state.pool.freeCount < free - 5900)
      var steps = 0
      while plan.1.abandoned != nil, steps < 100 {
        let before = server.state.pool.freeCount
        _ = server.state.continuePlacement(&plan.1)
        #expect(server.state.pool.freeCount - before <= 4096)
        steps += 1
        server.check()
      }
      #expect(steps == 3 && server.state.pool.freeCount == free)
      server.finish(&plan, .failed)
      let unpinned = server.unpin(server.task, handle, 0, 1)
      #expect(unpinned == nil && server.state.pool.freeCount == free)
    }
    // A failure gives back in steps the frames of a window, and single frames.
    for request in [PlacementRequest.run, PlacementRequest(alignment: 4096)] {
      var plan = try server.plan(target, 9000, request)
      for _ in 0..<1000 where plan.1.frames.count < 8000 { _ = server.state.continuePlacement(&plan.1) }
      var hasMore = true
      while hasMore {
        let before = server.state.pool.freeCount
        hasMore = server.state.abandon(&plan.1)
        #expect(server.state.pool.freeCount - before <= 4096)
        server.check()
      }
      server.state.abandon(plan.0)
      #expect(server.state.pool.freeCount == free)
    }
  }

  @Test("R19, R22: without a fixed address the search continues behind the pinned frame") func searchGoesOn() throws {
    var server = try OpenServer(frames: 1024)
    let handle = try server.scattered(count, at: start)
    let target = try server.state.createContainer(server.task)
    var plan = try server.plan(target, 200, PlacementRequest(contiguous: 1))
    while plan.1.frames.isEmpty { _ = server.state.continuePlacement(&plan.1) }
    let last = try #require(plan.1.window).start.advanced(by: 190)
    let id = try id(server, handle, in: Int(last.rawValue)..<Int(last.rawValue) + 10)
    let frame = try server.frame(handle, id)
    let error = server.pin(server.task, handle, id, 1)
    #expect(error == nil)
    server.finish(&plan)
    let first = try server.frame(target, 5000)
    #expect(first > frame)
    for offset in 0..<200 { #expect(try server.frame(target, 5000 + UInt32(offset)) == first + offset) }
    server.checkScattered(0..<count, at: start)
  }

  @Test("R19: frames allocated between two steps are moved, and freed ones need not be") func changes() throws {
    var server = try OpenServer(frames: 1024)
    let handle = try server.scattered(count, at: start)
    let target = try server.state.createContainer(server.task)
    var plan = try server.plan(target, 200, window)
    for _ in 0..<2 { _ = server.state.continuePlacement(&plan.1) }
    // All free frames but a few are allocated, including those at the window's end; others are freed there.
    let other = try server.container(60, shownAt: [start.advanced(by: 2048)])
    for id in 0..<UInt32(60) {
      #expect(server.machine.store(server.task, start.advanced(by: 2048 + Int(id)).address, 77))
    }
    let freed = try id(server, handle, in: 370..<400)
    try server.release(handle, freed)
    server.finish(&plan)
    for offset in 0..<200 { #expect(try server.frame(target, 5000 + UInt32(offset)) == 200 + offset) }
    server.checkScattered(0..<freed, at: start)
    server.checkScattered(freed + 1..<count, at: start)
    for id in 0..<UInt32(60) {
      #expect(server.machine.load(server.task, start.advanced(by: 2048 + Int(id)).address) == 77)
      #expect(!(200..<400).contains(try server.frame(other, id)))
    }
  }

  @Test("R19, R24: contents copied into an id before its frame is installed are dropped, like its old content")
  func copiedInto() throws {
    var server = try OpenServer(frames: 1024)
    let handle = try server.scattered(count, at: start)
    let target = try server.state.createContainer(server.task)
    var allocation = try server.allocate(target, 5002)
    while server.state.continueAllocation(&allocation) {}
    var plan = try server.plan(target, 2, window, .squash)
    while plan.1.frames.count < 2 { _ = server.state.continuePlacement(&plan.1) }
    var copy = try server.state.planCopy(server.task, handle, .from(0), target, .from(5000), count: 1)
    while server.state.collect(&copy) {}
    while server.state.install(&copy) {}
    server.finish(&plan)
    #expect(try server.frame(target, 5000) == 200)
    #expect(server.machine.bytes(FrameNumber(200)).allSatisfy { $0 == 0 })
    server.checkScattered(0..<count, at: start)
  }

  @Test("R25: gathering superpages does not fill in pages that are being unmapped")
  func promotedWhileUnmapped() throws {
    var server = try OpenServer(frames: 4096)
    let target = try server.state.createContainer(server.task)
    var plan = try server.plan(target, 512, PlacementRequest(alignment: 512 * page, contiguous: 1))
    server.finish(&plan)
    let region = PageNumber(start.rawValue + 511 & ~511)
    let end = region.advanced(by: 512)
    let mapping = try server.state.checkMapping(
      server.task, target, FrameIDRange(start: 5000, count: 512),
      PageRange(address: GuestAddress(region.address), count: 512),
      [.read, .write, .lazy])
    server.state.installMapping(server.task, mapping)
    var isPromoted = server.state.promoteIfPossible(server.task, region)
    #expect(isPromoted)
    server.check()
    while server.state.emptyPages(server.task, from: region, to: end) != nil {}
    isPromoted = server.state.promoteIfPossible(server.task, region)
    #expect(!isPromoted)
    while !server.state.forgetPages(server.task, from: region, to: end) {}
    server.check()
    server.state.installMapping(server.task, mapping)
    isPromoted = server.state.promoteIfPossible(server.task, region)
    #expect(isPromoted)
    server.check()
  }

  @Test("R3: a placement over ids in use is charged for both until the old frames are dropped") func placedOver() throws
  {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let available = UInt32(bed.statistics.allocatableFrames - bed.statistics.allocatedFrames)
    let handle = try task.container(available - 9)
    let allocated = bed.statistics.allocatedFrames
    #expect(task.place(handle, 0, 10, PlacementRequest(), .squash) == .failed(.noMemory, 0))
    #expect(task.place(handle, 0, 9, PlacementRequest(), .squash) == .ok(9))
    #expect(bed.statistics.allocatedFrames == allocated)
    // A failed one takes nothing.
    #expect(task.place(handle, 30, 9, PlacementRequest(fixed: page), .squash) == .failed(.noMemory, 0))
    #expect(bed.statistics.allocatedFrames == allocated)
  }
}
