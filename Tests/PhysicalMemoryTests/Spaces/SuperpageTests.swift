// Superpages as the server makes and keeps them, on the model machine.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct ServerSuperpageTests {
  private static let lazy: MappingFlags = [.read, .write, .lazy]
  private let start = PageNumber((TestTask.free.rawValue + 511) & ~511)

  private func readyBlocks(_ bed: Testbed) {
    while let block = bed.server.nextBlock() { while !bed.server.zeroBlock(block) { bed.check() } }
  }

  /// A task with `count` fresh frames mapped from `start` on, and a full stock of blocks.
  private func makeTask(
    frames: Int = 1 << 14, count: UInt32 = 512, flags: MappingFlags = lazy, around: FaultAround = .automatic
  ) throws -> (TestTask, UInt32) {
    let bed = try Testbed(frames: frames, blocks: 32)
    readyBlocks(bed)
    let task = try bed.start(bed.load(), TaskParameters(faultAround: around))
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, start, flags) == nil)
    return (task, handle)
  }

  private func isSuperpage(_ task: TestTask, _ page: PageNumber) -> Bool {
    task.bed.machine.superpage(task.slot, page) != nil
  }

  private func copyOne(_ task: TestTask, _ source: UInt32, _ id: UInt32, _ destination: UInt32) throws {
    try task.server.copy(task.slot, source, .from(id), destination, .from(0), count: 1, frameError: 0)
    task.bed.check()
  }

  // MARK: Gathering

  /// Touched backwards, page by page: no two frames are in order.
  private func makeScattered(frames: Int = 1 << 14) throws -> (TestTask, UInt32) {
    let bed = try Testbed(frames: frames, blocks: 32)
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .automatic))
    let handle = try task.container(512)
    #expect(task.map(handle, 0, 512, start, Self.lazy) == nil)
    // No block is in stock yet.
    for page in (0..<512).reversed() { #expect(task.write(start.advanced(by: page), UInt8(page & 255)) == nil) }
    #expect(!isFound(task))
    readyBlocks(bed)
    return (task, handle)
  }

  @Test("a region with scattered contents is gathered into a block and promoted") func gathered() throws {
    let (task, _) = try makeScattered()
    var gathering = try #require(findScattered(task))
    #expect(gathering.task == task.slot && gathering.page == start)
    var steps = 1
    while task.server.continueGathering(&gathering) == .more {
      task.bed.check()
      steps += 1
    }
    task.bed.check()
    #expect(steps == 8)
    #expect(task.server.promote(task.slot, start) { _ in true })
    task.bed.check()
    #expect(isSuperpage(task, start))
    for page in 0..<512 { #expect(task.read(start.advanced(by: page)) == .success(UInt8(page & 255))) }
    #expect(!isFound(task))
  }

  private func find(_ task: TestTask) -> SuperpageCandidate? {
    var cursor = GatheringCursor()
    return task.server.findCandidate(&cursor)
  }

  private func isFound(_ task: TestTask) -> Bool { find(task) != nil }

  private func findScattered(_ task: TestTask) -> Gathering? {
    if case .scattered(let gathering) = find(task) { gathering } else { nil }
  }

  private func finish(_ gathering: inout Gathering, _ task: TestTask) -> Gathering.Progress {
    var progress = Gathering.Progress.more
    while progress == .more { progress = task.server.continueGathering(&gathering) }
    task.bed.check()
    return progress
  }

  @Test("regions are aligned to 2 MiB, wherever the mapping begins") func unaligned() throws {
    let (task, handle) = try makeScattered()
    #expect(task.unmap(start, 512) == nil)
    #expect(task.allocate(handle, 512, 300) == .ok(300))
    for (first, isFound) in [(-100, true), (-301, false), (1, false)] {
      #expect(task.map(handle, 0, 812, start.advanced(by: first), [.read, .write]) == nil)
      let gathering = findScattered(task)
      #expect((gathering != nil) == isFound)
      if isFound {
        var found = try #require(gathering)
        #expect(found.page == start)
        #expect(finish(&found, task) == .done)
        #expect(task.server.promote(task.slot, start) { _ in true })
      }
      #expect(task.unmap(start.advanced(by: first), 812) == nil)
    }
  }

  @Test("R24: ordered frames that were shared for a while are found and promoted again") func sharedForAWhile()
    throws
  {
    let (task, handle) = try makeTask()
    #expect(task.write(start, 1) == nil)
    let other = try task.container(1)
    try copyOne(task, handle, 300, other)
    #expect(!isSuperpage(task, start))
    #expect(!isFound(task))
    #expect(task.deallocate(other, 0, 1) == .ok(1))
    #expect(task.leaf(start.advanced(by: 300))?.rights == .read)
    guard case .ordered(task.slot, start) = find(task) else {
      Issue.record("frames in order were not found")
      return
    }
    #expect(task.server.promote(task.slot, start) { _ in true })
    task.bed.check()
    #expect(isSuperpage(task, start))
    #expect(task.fault(start.advanced(by: 300), .write) == .spurious)
  }

  @Test("R21: a region cannot be promoted while its container is locked") func locked() throws {
    var server = try OpenServer(frames: 4096)
    let handle = try server.container(512, shownAt: [start])
    let client = try server.client(of: handle)
    let before = server.state.promotableMapping(server.task, start) != nil
    #expect(before)
    let error = server.lock(client)
    #expect(error == nil)
    let locked = server.state.promotableMapping(server.task, start) != nil
    #expect(!locked)
  }

  @Test("a page freed, copied or pinned meanwhile ends the gathering, and nothing is lost", arguments: 0..<3)
  func disturbed(_ how: Int) throws {
    let (task, handle) = try makeScattered()
    let free = task.bed.statistics.freeFrames
    var gathering = try #require(findScattered(task))
    #expect(task.server.continueGathering(&gathering) == .more)
    switch how {
    case 0: #expect(task.deallocate(handle, 300, 1) == .ok(1))
    case 1: try copyOne(task, handle, 300, task.container(1))
    default:
      try task.server.pin(
        task.slot, handle, start: 300, count: 1, microseconds: 1_000_000, physical: TestTask.scratch)
    }
    #expect(finish(&gathering, task) == .failed)
    #expect(task.bed.statistics.freeFrames == free + (how == 0 ? 1 : 0))
    for page in 0..<512 where page != 300 {
      #expect(task.read(start.advanced(by: page)) == .success(UInt8(page & 255)))
    }
  }

  @Test(
    "R3, R19: the block's frames can be allocated, and the gathering is given up", arguments: 0..<2
  )
  func shortage(_ how: Int) throws {
    let (task, _) = try makeScattered(frames: 1 << 13)
    var gathering = try #require(findScattered(task))
    #expect(task.server.continueGathering(&gathering) == .more)
    if how == 0 {
      // Every frame that a task can have.
      let other = try task.bed.start(task.bed.load(), TaskParameters(faultAround: .fixed(512)))
      let count = UInt32(other.information.available)
      let handle = try other.container(count)
      let far = PageNumber(1 << 20)
      #expect(other.map(handle, 0, count, far, Self.lazy) == nil)
      for page in 0..<Int(count) where other.leaf(far.advanced(by: page)) == nil {
        #expect(other.write(far.advanced(by: page), 1) == nil)
      }
    } else {
      let block = gathering.block.start.address
      let handle = try task.container(0)
      #expect(task.place(handle, 0, 512, PlacementRequest(fixed: block)) == .ok(512))
    }
    #expect(finish(&gathering, task) == .failed)
    for page in 0..<512 { #expect(task.read(start.advanced(by: page)) == .success(UInt8(page & 255))) }
  }

  // MARK: At a fault

  @Test("one fault on untouched memory maps 2 MiB of adjacent frames", arguments: [Access.read, .write])
  func fresh(_ access: Access) throws {
    let (task, _) = try makeTask()
    let contents = task.bed.statistics.contents
    #expect(task.fault(start.advanced(by: 300), access) == .served(pages: 512))
    #expect(isSuperpage(task, start))
    let first = try #require(task.leaf(start)).frame
    #expect(first.rawValue % 512 == 0)
    for index in [1, 300, 511] {
      #expect(
        task.leaf(start.advanced(by: index)) == MappedPage(frame: first.advanced(by: index), rights: [.read, .write]))
    }
    #expect(task.bed.statistics.superpagesMapped == 1)
    #expect(task.bed.statistics.contents == contents + 512)
    #expect(task.read(start.advanced(by: 9)) == .success(0))
    let before = task.bed.statistics.freeFrames
    task.end()
    #expect(task.bed.statistics.freeFrames > before + 512)
    #expect(task.bed.statistics.superpages.current == 0)
  }

  @Test("sequential faults are served by up to four superpages") func inOrder() throws {
    let (task, _) = try makeTask(frames: 1 << 17, count: 512 * 9)
    #expect(task.fault(start, .write) == .served(pages: 512))
    #expect(task.fault(start.advanced(by: 512), .write) == .served(pages: 1024))
    #expect(task.fault(start.advanced(by: 512 * 3), .write) == .served(pages: 2048))
    #expect(task.fault(start.advanced(by: 512 * 8), .write) == .served(pages: 512))
    #expect(task.fault(start.advanced(by: 512 * 7), .write) == .served(pages: 512))
  }

  @Test("an eager mapping is filled with superpages, and with single pages when no block is left") func eager() throws {
    let (task, handle) = try makeTask(count: 512 * 4)
    #expect(task.unmap(start, 512 * 4) == nil)
    #expect(task.map(handle, 0, 512 * 4, start.advanced(by: 500), [.read, .write]) == nil)
    #expect(task.bed.statistics.superpagesMapped == 2)
    #expect(isSuperpage(task, start.advanced(by: 512)))
    #expect(!isSuperpage(task, start.advanced(by: 512 * 3)))
    for page in 0..<512 * 4 { #expect(task.leaf(start.advanced(by: 500 + page)) != nil) }
    #expect(task.read(start.advanced(by: 512 * 4)) == .success(0))
  }

  @Test(
    "no superpage for parts of a region, for read-only or executable mappings, or with a fixed fault-around")
  func notWhole() throws {
    let (task, handle) = try makeTask(count: 1024)
    #expect(task.unmap(start, 1024) == nil)
    #expect(task.map(handle, 0, 1022, start.advanced(by: 1), Self.lazy) == nil)
    #expect(task.fault(start.advanced(by: 20), .write) == .served(pages: 1))
    #expect(task.fault(start.advanced(by: 600), .write) == .served(pages: 1))
    for flags in [[.read, .lazy], [.read, .write, .execute, .lazy]] as [MappingFlags] {
      let (task, _) = try makeTask(flags: flags)
      #expect(task.fault(start, .read) == .served(pages: 1))
    }
    let (counted, _) = try makeTask(around: .fixed(16))
    #expect(counted.fault(start, .read) == .served(pages: 16))
  }

  @Test("no superpage where a page was touched, is not allocated or was released") func notUntouched() throws {
    let (task, handle) = try makeTask()
    #expect(task.map(handle, 100, 1, start.advanced(by: 4000), Self.lazy) == nil)
    #expect(task.write(start.advanced(by: 4000), 7) == nil)
    #expect(task.fault(start, .write) == .served(pages: 1))
    #expect(task.read(start.advanced(by: 100)) == .success(7))
    let (other, container) = try makeTask()
    #expect(other.deallocate(container, 100, 1) == .ok(1))
    #expect(other.fault(start, .write) == .served(pages: 1))
  }

  @Test("without a block in stock single pages are mapped, and blocks are requested") func noStock() throws {
    let bed = try Testbed(frames: 1 << 14, blocks: 32)
    let task = try bed.start()
    let handle = try task.container(1024)
    #expect(task.map(handle, 0, 1024, start, Self.lazy) == nil)
    #expect(task.fault(start, .write) == .served(pages: 1))
    #expect(bed.machine.wishes == 1)
    readyBlocks(bed)
    #expect(task.fault(start.advanced(by: 2), .write) == .served(pages: 1))
    #expect(task.fault(start.advanced(by: 600), .write) == .served(pages: 512))
  }

  // MARK: The stock

  @Test("a small pool has no blocks") func small() throws {
    let bed = try Testbed(frames: 4096, blocks: 32)
    #expect(bed.server.nextBlock() == nil)
  }

  @Test("R18: data of other tasks is zeroed before a block is in stock, a few frames at a time") func cleared() throws {
    let bed = try Testbed(frames: 1 << 13, blocks: 32, isChecked: false)
    let task = try bed.start()
    let count = UInt32(task.information.available) - 200
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, start, Self.lazy) == nil)
    for page in 0..<Int(count) { #expect(task.write(start.advanced(by: page), 0xff) == nil) }
    #expect(task.deallocate(handle, 0, count) == .ok(count))
    let block = try #require(bed.server.nextBlock())
    var steps = 1
    while !bed.server.zeroBlock(block) { steps += 1 }
    #expect(steps == 512 / 16 + 1)
    #expect(task.allocate(handle, 0, count) == .ok(count))
    #expect(task.fault(start, .read) == .served(pages: 512))
    #expect(task.leaf(start)?.frame == block.start)
    for index in 0..<512 { #expect(task.read(start.advanced(by: index)) == .success(0)) }
    #expect(bed.violations == [])
  }

  @Test("blocks in stock are free: their frames can be allocated, and then the block is gone") func free() throws {
    let bed = try Testbed(frames: 1 << 13, blocks: 32, isChecked: false)
    readyBlocks(bed)
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .fixed(1)))
    let count = UInt32(task.information.available)
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, start, Self.lazy) == nil)
    for page in 0..<Int(count) { #expect(task.write(start.advanced(by: page), 1) == nil) }
    #expect(bed.server.nextBlock() == nil)
    #expect(bed.violations == [])
  }

  /// A task writes to all frames and frees them.
  private func dirtyEverything(_ bed: Testbed, meanwhile: () -> Void = {}) throws {
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .fixed(1)))
    let count = UInt32(task.information.available)
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, start, Self.lazy) == nil)
    for page in 0..<Int(count) { #expect(task.write(start.advanced(by: page), 1) == nil) }
    meanwhile()
    #expect(task.deallocate(handle, 0, count) == .ok(count))
  }

  @Test("R18: a block in stock whose frames were used meanwhile is not used any more") func usedMeanwhile() throws {
    let bed = try Testbed(frames: 1 << 13, blocks: 32, isChecked: false)
    readyBlocks(bed)
    try dirtyEverything(bed)
    let task = try bed.start()
    #expect(task.map(try task.container(512), 0, 512, start, Self.lazy) == nil)
    #expect(task.fault(start, .write) == .served(pages: 1))
    readyBlocks(bed)
    #expect(task.map(try task.container(512), 0, 512, start.advanced(by: 512), Self.lazy) == nil)
    #expect(task.fault(start.advanced(by: 512), .write) == .served(pages: 512))
    for page in 512..<1024 { #expect(task.read(start.advanced(by: page)) == .success(0)) }
    #expect(bed.violations == [])
  }

  @Test("a block with a frame allocated during its preparation does not come into stock") func takenMeanwhile() throws {
    let bed = try Testbed(frames: 1 << 13, blocks: 32, isChecked: false)
    let block = try #require(bed.server.nextBlock())
    try dirtyEverything(bed) { #expect(bed.server.zeroBlock(block)) }
    let next = try bed.start()
    let fresh = try next.container(512)
    #expect(next.map(fresh, 0, 512, start, Self.lazy) == nil)
    #expect(next.fault(start, .write) == .served(pages: 1))
    #expect(bed.violations == [])
  }

  // MARK: Splits and promotion

  @Test("changing one page splits the superpage, keeps the other pages, and is counted by cause") func splits() throws {
    for (change, cause) in [SplitCause.unmapped, .copied, .unmapped, .freed, .freed, .moved, .withdrawn].enumerated() {
      let (task, handle) = try makeTask()
      for index in [0, 100, 511] { #expect(task.write(start.advanced(by: index), UInt8(index & 0xff)) == nil) }
      let other = try task.container(8)
      let frame = UInt64(try #require(task.leaf(start.advanced(by: 100))).frame.rawValue)
      switch change {
      case 0: #expect(task.unmap(start.advanced(by: 100), 1) == nil)
      case 1: try copyOne(task, handle, 100, other)
      case 2: #expect(task.map(other, 0, 1, start.advanced(by: 100), Self.lazy) == nil)
      case 3: #expect(task.deallocate(handle, 100, 1) == .ok(1))
      case 4: #expect(task.release(handle, [100]) == nil)
      case 5: #expect(task.bed.server.moveSomeFrame(frame))
      default: #expect(task.bed.server.revokeSomeFrame(frame))
      }
      #expect(!isSuperpage(task, start))
      #expect(task.bed.statistics.superpages == SuperpageCounts(current: 0, splits: [cause: 1]))
      #expect(task.read(start) == .success(0))
      #expect(task.read(start.advanced(by: 511)) == .success(255))
      #expect(task.leaf(start.advanced(by: 99)) != nil)
    }
  }

  @Test("ordered frames mapped again are a superpage at the first fault") func ordered() throws {
    let (task, handle) = try makeTask()
    #expect(task.write(start.advanced(by: 5), 5) == nil)
    let frame = task.leaf(start)?.frame
    let free = task.bed.statistics.freeFrames
    #expect(task.unmap(start, 512) == nil)
    #expect(task.map(handle, 0, 512, start.advanced(by: 1024), Self.lazy) == nil)
    #expect(task.fault(start.advanced(by: 1024 + 7), .read) == .served(pages: 512))
    #expect(isSuperpage(task, start.advanced(by: 1024)))
    #expect(task.leaf(start.advanced(by: 1024))?.frame == frame)
    #expect(task.read(start.advanced(by: 1024 + 5)) == .success(5))
    #expect(task.bed.statistics.freeFrames >= free - 1)
  }

  @Test("R24: a logical copy prevents a superpage") func shared() throws {
    let (task, handle) = try makeTask()
    #expect(task.write(start, 1) == nil)
    let other = try task.container(1)
    try copyOne(task, handle, 300, other)
    #expect(task.unmap(start, 512) == nil)
    #expect(task.map(handle, 0, 512, start, Self.lazy) == nil)
    #expect(task.fault(start, .write) == .served(pages: 1))
    #expect(!task.server.promote(task.slot, start) { _ in true })
  }

  @Test("ordered frames are promoted, whether all of them have leaves or not") func promoted() throws {
    let (task, handle) = try makeTask()
    #expect(task.write(start, 1) == nil)
    let frame = try #require(task.leaf(start)).frame
    #expect(!task.server.promote(task.slot, start) { _ in true })
    #expect(task.unmap(start.advanced(by: 100), 30) == nil)
    #expect(!task.server.promote(task.slot, start) { _ in true })
    #expect(task.map(handle, 100, 30, start.advanced(by: 100), Self.lazy) == nil)
    #expect(!task.server.promote(task.slot, start) { _ in false })
    #expect(!isSuperpage(task, start))
    var collapsed: FrameRun?
    let isPromoted = task.server.promote(task.slot, start.advanced(by: 44)) { run in
      collapsed = run
      return true
    }
    #expect(isPromoted)
    #expect(collapsed == FrameRun(start: frame, count: 512))
    #expect(isSuperpage(task, start))
    #expect(task.leaf(start.advanced(by: 111))?.frame == frame.advanced(by: 111))
    #expect(task.bed.statistics.superpagesPromoted == 1)
    task.bed.check()
    // The region changes while the host collapses it.
    #expect(task.unmap(start.advanced(by: 3), 1) == nil)
    #expect(task.map(handle, 3, 1, start.advanced(by: 3), Self.lazy) == nil)
    let isThere = task.server.promote(task.slot, start) { _ in task.deallocate(handle, 200, 1) == .ok(1) }
    #expect(!isThere)
    task.bed.check()
    task.end()
    #expect(!task.server.promote(task.slot, start) { _ in true })
  }
}
