// Free page reporting: free frames whose memory goes back to the host.

import GuestMemory
import Testing

@testable import PhysicalMemory

@Suite struct IdleFramesTests {
  /// Runs a pass and checks that nothing else of the pool changed. Returns the reported frames.
  private func pass(_ pool: inout FramePool, most: Int = 64) -> Set<UInt32> {
    let free = pool.freeCount
    var found: Set<UInt32> = []
    pool.beginIdlePass()
    while let run = pool.takeIdleRun(most: most) {
      #expect((1...most).contains(run.count))
      for offset in 0..<UInt32(run.count) {
        let isNew = found.insert(run.start.rawValue + offset).inserted
        #expect(isNew)
      }
    }
    #expect(pool.checkInvariants() == [])
    #expect(pool.freeCount == free)
    return found
  }

  @Test func framesAreIdleOnceTheyHaveStayedFreeForAWholePass() throws {
    var pool = try FramePool(frameCount: 4096)
    let taken = pool.takeRun(count: 700)
    let run = try #require(taken)
    #expect(pass(&pool) == [])
    pool.give(run)
    #expect(pass(&pool) == [])
    let all = Set(run.start.rawValue..<run.end.rawValue)
    #expect(pass(&pool) == all)
    // They are zero now, and known to be.
    #expect(pass(&pool) == [])
    let again = pool.takeZeroedFrame()
    #expect(again?.isZero == true)
  }

  @Test func aChunkThatIsInUseIsLeftForLater() throws {
    var pool = try FramePool(frameCount: 4096)
    let taken = pool.takeRun(count: 512, alignment: 512)
    let run = try #require(taken)
    pool.give(FrameRun(start: run.start, count: 100))
    _ = pass(&pool)
    // Another frame of the chunk is freed: the chunk is young again.
    pool.give(FrameRun(start: run.start.advanced(by: 200), count: 1))
    #expect(pass(&pool) == [])
    #expect(pass(&pool).count == 101)
    // Frames in use are not touched.
    pool.give(FrameRun(start: run.start.advanced(by: 300), count: 2))
    _ = pass(&pool)
    #expect(pass(&pool) == [run.start.rawValue + 300, run.start.rawValue + 301])
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func anyOrderOfTakingAndGivingIsFound(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    var pool = try FramePool(frameCount: 3000)
    var taken: [FrameNumber] = []
    var garbage: Set<UInt32> = []
    for _ in 0..<2000 {
      if Bool.random(using: &random), let frame = pool.takeFrame() {
        garbage.remove(frame.rawValue)
        taken.append(frame)
      } else if !taken.isEmpty {
        let frame = taken.swapAt(Int.random(in: 0..<taken.count, using: &random))
        pool.give(frame)
        garbage.insert(frame.rawValue)
      }
    }
    _ = pass(&pool)
    #expect(pass(&pool, most: 7) == garbage)
  }

  @Test("R18: a frame that was given back to the host reads zero when it is allocated again") func handedOutAgain()
    throws
  {
    let bed = try Testbed(frames: 512)
    let task = try bed.start()
    let container = try task.container(100)
    #expect(task.map(container, 0, 100, TestTask.free, [.read, .write, .lazy]) == nil)
    for page in 0..<100 { #expect(task.write(TestTask.free.advanced(by: page), 7) == nil) }
    #expect(task.deallocate(container, 0, 100) == .ok(100))
    var given = 0
    for _ in 0..<2 {
      bed.server.beginIdlePass()
      while case let count = bed.server.giveBackIdleFrames(), count > 0 {
        given += count
        bed.check()
      }
    }
    #expect(given >= 100)
    #expect(bed.statistics.framesGivenBack == UInt64(given))
    #expect(task.allocate(container, 0, 100) == .ok(100))
    for page in 0..<100 { #expect(try task.read(TestTask.free.advanced(by: page)).get() == 0) }
  }
}

extension Array {
  /// Removes the element at an index; the last one takes its place.
  fileprivate mutating func swapAt(_ index: Int) -> Element {
    swapAt(index, count - 1)
    return removeLast()
  }
}
