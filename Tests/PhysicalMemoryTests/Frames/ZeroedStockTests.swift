// Prezeroing: which frames are known to be zero, the stock, and draining it.

import GuestMemory
import Testing

@testable import PhysicalMemory

@Suite struct ZeroedStockTests {
  @Test func freshFramesAreZeroAndReturnedOnesAreNot() throws {
    var pool = try FramePool(frameCount: 256)
    let fresh = try some(pool.takeZeroedFrame())
    #expect(fresh.isZero)
    #expect(pool.isDirty(fresh.frame) == false)
    pool.give(fresh.frame)
    pool.drainStock()
    let again = try some(pool.takeZeroedFrame())
    #expect(again.frame == fresh.frame)
    #expect(!again.isZero)
    #expect(pool.isDirty(again.frame) == true)
    pool.give(FrameRun(start: again.frame, count: 1), contentIsZero: true)
    #expect(try some(pool.takeZeroedFrame()).isZero)
  }

  @Test func dirtyFramesAreToldApartInsideAMergedRun() throws {
    var pool = try FramePool(frameCount: 1024)
    let block = try some(pool.takeBlock(order: 6))
    pool.give(FrameRun(start: block.start, count: 20), contentIsZero: true)
    pool.give(FrameRun(start: block.start.advanced(by: 20), count: 44))
    let again = try some(pool.takeRun(count: 64, alignment: 64))
    #expect(again == block)
    for offset in 0..<64 { #expect(pool.isDirty(block.start.advanced(by: offset)) == (offset >= 20)) }
  }

  @Test func theStockIsServedFirstAndInAscendingRuns() throws {
    var pool = try FramePool(frameCount: 65_536)
    let batch = pool.takeForZeroing(most: 64)
    #expect(batch.count == 64)
    #expect(batch.dirtyRuns == [])
    #expect(pool.freeCount == 65_535 - 64)
    #expect(pool.checkInvariants() == [])
    pool.giveZeroed(batch)
    #expect(pool.stockedCount == 64)
    #expect(pool.freeCount == 65_535)
    #expect(pool.checkInvariants() == [])
    for run in batch.runs {
      for offset in 0..<run.count {
        let (frame, isZero) = try some(pool.takeZeroedFrame())
        #expect(frame == run.start.advanced(by: offset))
        #expect(isZero)
      }
    }
    #expect(pool.stockedCount == 0)
  }

  @Test func aBatchSaysWhatMustBeCleared() throws {
    var pool = try FramePool(frameCount: 256)
    let all = try some(pool.takeRun(count: 255))
    #expect(all.count == 255)
    pool.give(FrameRun(start: FrameNumber(16), count: 3))
    pool.give(FrameRun(start: FrameNumber(19), count: 2), contentIsZero: true)
    pool.give(FrameNumber(21))
    let batch = pool.takeForZeroing(most: 100)
    #expect(batch.count == 6)
    let dirty = batch.dirtyRuns.flatMap { run in (0..<run.count).map { run.start.advanced(by: $0).rawValue } }
    #expect(Set(dirty) == [16, 17, 18, 21])
    #expect(pool.takeForZeroing(most: 100).count == 0)
    #expect(pool.takeFrame() == nil)
    pool.giveZeroed(batch)
    for _ in 0..<6 { #expect(try some(pool.takeZeroedFrame()).isZero) }
    #expect(pool.checkInvariants() == [])
  }

  @Test func theStockIsThereForEveryRequest() throws {
    var pool = try FramePool(frameCount: 512)
    let initial = freeRuns(pool)
    pool.giveZeroed(pool.takeForZeroing(most: 511))
    #expect(pool.stockedCount == 511)
    #expect(pool.freeCount(in: .below16MiB) == 0)
    #expect(pool.takeFixed(FrameRun(start: FrameNumber(100), count: 10)) == true)
    #expect(pool.stockedCount == 501)
    #expect(pool.checkInvariants() == [])
    let block = try some(pool.takeBlock(order: 8))
    #expect(block.start == FrameNumber(256))
    #expect(pool.stockedCount == 0)
    #expect(pool.checkInvariants() == [])
    pool.give(block)
    pool.give(FrameRun(start: FrameNumber(100), count: 10))
    pool.giveZeroed(pool.takeForZeroing(most: 511))
    var taken = 0
    while let frame = pool.takeFrame() {
      taken += 1
      if taken % 2 == 0 { pool.give(frame) }
      if taken == 1022 { break }
    }
    #expect(taken > 511)
    #expect(pool.checkInvariants() == [])
    for frame in 1..<512 as Range<UInt32> where pool.records[FrameNumber(frame)].state == .inUse {
      pool.give(FrameNumber(frame))
    }
    #expect(pool.drainStock() > 0)
    #expect(freeRuns(pool) == initial)
  }

  @Test func framesAroundAFaultComeInOneCall() throws {
    var pool = try FramePool(frameCount: 2000)
    pool.giveZeroed(pool.takeForZeroing(most: 10))
    var frames = [FrameNumber](repeating: .none, count: 512)
    var span = frames.mutableSpan
    #expect(pool.takeZeroedFrames(into: &span) == 512)
    #expect(Set(frames).count == 512)
    #expect(frames.allSatisfy { !$0.isNone })
    #expect(pool.freeCount == 1999 - 512)
    let adjacent = zip(frames, frames.dropFirst()).count { $0.advanced(by: 1) == $1 }
    #expect(adjacent > 490)
    var rest = [FrameNumber](repeating: .none, count: 3000)
    var restSpan = rest.mutableSpan
    #expect(pool.takeZeroedFrames(into: &restSpan) == 1999 - 512)
    #expect(pool.freeCount == 0)
    #expect(pool.checkInvariants() == [])
    #expect(Set(frames).union(rest).count == 2000)
  }

  @Test func theNumberOfLooseFramesIsBounded() throws {
    var pool = try FramePool(frameCount: 4096)
    var taken: [FrameNumber] = []
    while let frame = pool.takeFrame() { taken.append(frame) }
    for frame in taken {
      pool.give(frame)
      #expect(pool.freeCount - pool.freeCount(in: .below16MiB) <= FramePool.looseLimit)
    }
    #expect(pool.checkInvariants() == [])
  }

  @Test func stockingABatchTwiceTraps() async {
    await #expect(processExitsWith: .failure) {
      var pool = try FramePool(frameCount: 256)
      let batch = pool.takeForZeroing(most: 4)
      pool.giveZeroed(batch)
      pool.giveZeroed(batch)
    }
  }
}
