// The area for page tables: as long as it has room, it holds all tables and no contents.

import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct TableAreaTests {
  @Test("its frames are not used for requests for a frame, a run or a fixed frame") func pool() throws {
    var pool = try FramePool(frameCount: 256, tableFrames: 32)
    #expect(pool.freeCount == 255 && pool.spareCount == 32)
    let isTaken = pool.takeFixed(FrameRun(start: FrameNumber(224), count: 1))
    #expect(!isTaken)
    let crossing = pool.takeFixed(FrameRun(start: FrameNumber(220), count: 8))
    #expect(!crossing)
    let run = pool.takeRun(count: 224)
    #expect(run == nil)
    var frames: [FrameNumber] = []
    while let frame = pool.takeFrame() { frames.append(frame) }
    #expect(Set(frames.map(\.rawValue)) == Set(1..<224))
    #expect(pool.freeCount == 32)
    #expect(pool.checkInvariants() == [])
  }

  @Test("its frames are taken one by one and come back dirty") func spare() throws {
    var pool = try FramePool(frameCount: 256, tableFrames: 32)
    var frames: [FrameNumber] = []
    while let (frame, isZero) = pool.takeSpareFrame() {
      #expect(isZero)
      frames.append(frame)
    }
    #expect(Set(frames.map(\.rawValue)) == Set(224..<256))
    #expect(pool.freeCount == 223 && pool.spareCount == 0)
    for frame in frames { pool.give(frame) }
    #expect(pool.freeCount == 255 && pool.spareCount == 32)
    #expect(pool.checkInvariants() == [])
    let again = pool.takeSpareFrame()
    #expect(again?.isZero == false)
    // A freed run may be partly inside the area.
    var whole = try FramePool(frameCount: 256, tableFrames: 32)
    while whole.takeFrame() != nil {}
    while whole.takeSpareFrame() != nil {}
    whole.give(FrameRun(start: FrameNumber(200), count: 50))
    #expect(whole.spareCount == 26 && whole.freeCount == 50)
    #expect(whole.checkInvariants() == [])
  }

  /// A page in each of `count` leaf tables.
  private func touch(_ task: TestTask, _ handle: UInt32, regions: Int) {
    for region in 0..<regions {
      let page = TestTask.free.advanced(by: region * 512)
      #expect(task.map(handle, 0, 1, page, [.read, .write]) == nil)
    }
  }

  @Test("tables use the area first, then other frames; contents use it when nothing else is free") func usedUp() throws
  {
    let bed = try Testbed(frames: 256)
    let contents = 0..<224
    let area = 224..<256
    func uses(_ use: FrameUse, _ frames: Range<Int>) -> Int { bed.server.frameUses()[frames].count { $0 == use } }
    let image = try bed.load()
    let first = try bed.start(image)
    let second = try bed.start(image)
    #expect(uses(.table, contents) == 0 && uses(.table, area) == bed.statistics.tableFrames)
    // Its tables are kept.
    first.end()
    touch(second, try second.container(1), regions: 25)
    #expect(uses(.table, area) == 32)
    #expect(uses(.table, contents) > 0)
    bed.server.releaseClosedSpaces()
    #expect(uses(.spare, area) > 0)
    // All frames that the task can have: some are in the area, since no others are left.
    let pages = TestTask.free.advanced(by: 100)
    let all = UInt32(second.information.available)
    let handle = try second.numbered(all, at: pages)
    let rest = UInt32(SampleProgram.pages - 3)
    #expect(second.map(TestTask.container, 3, rest, TestTask.free.advanced(by: 16), [.read]) == nil)
    let movable = uses(.movable, area)
    #expect(uses(.free, contents) == 0 && movable > 0)
    second.checkNumbered(0..<all, at: pages)
    // A content there can be moved, and its frame is for tables again.
    #expect(second.deallocate(handle, 0, 3) == .ok(3))
    #expect(uses(.free, contents) == 3)
    #expect(bed.server.moveSomeFrame(224))
    #expect(uses(.movable, area) == movable - 1)
    second.checkNumbered(3..<all, at: pages)
    second.end()
    bed.server.releaseClosedSpaces()
    #expect(uses(.spare, area) == 32)
  }
}
