// Frames wait while somebody may look at them, and nobody fails or waits in vain for that.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct GracePeriodTests {
  @Test("Safety: frames given back wait in two lists, are free all the same, and keep what they hold")
  func waitingFrames() throws {
    var pool = try FramePool(frameCount: 4096)
    let free = pool.freeCount
    let run = try #require(pool.takeRun(count: 3))
    let other = try #require(pool.takeFrame())
    pool.isGiving = false
    pool.give(run)
    pool.endPeriod()
    pool.give(other)
    #expect(pool.freeCount == free && pool.takeableCount == free - 4)
    #expect(pool.waitingCount == 4 && pool.endingCount == 3)
    #expect(!pool.isFree(run) && !pool.takeFixed(run))
    #expect(pool.checkInvariants() == [])
    pool.giveEnded(most: 2)
    #expect(pool.waitingCount == 2 && pool.endingCount == 1)
    pool.giveEnded(most: 2)
    pool.endPeriod()
    pool.giveEnded(most: 2)
    #expect(pool.waitingCount == 0 && pool.isFree(run) && pool.takeableCount == free)
    #expect(pool.isDirty(other))
    #expect(pool.checkInvariants() == [])
  }

  /// A task with `count` pages at `page`, in a pool of which it has nearly everything.
  private struct Scene {
    let bed: Testbed
    let task: TestTask
    let handle: UInt32
    static let page = PageNumber(0x4000_0000)
    static let pages: UInt32 = 40

    init(frames: Int = 4096) throws {
      bed = try Testbed(frames: frames)
      task = try bed.start(bed.load())
      handle = try task.container(Self.pages, at: Self.page)
    }
  }
}
