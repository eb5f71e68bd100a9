// The frame pool's operations one by one: sizes, zones, fixed positions, freeing.

import GuestMemory
import Testing

@testable import PhysicalMemory

/// All free runs of a pool, by zone and order.
func freeRuns(_ pool: borrowing FramePool) -> [[Int]] {
  var runs: [[Int]] = []
  for zone in FrameZone.allCases { runs.append(pool.freeRuns(zone: zone)) }
  return runs
}

private func run(_ start: Int, _ count: Int) -> FrameRun { FrameRun(start: FrameNumber(UInt32(start)), count: count) }

@Suite struct FramePoolTests {
  @Test func aRecordHas16BytesAndZeroIsInteriorAndClean() {
    #expect(MemoryLayout<FrameRecord>.size == 16)
    #expect(MemoryLayout<FrameRecord>.stride == 16)
    let record = FrameRecord()
    #expect(record.state == .interior)
    #expect(FrameState.interior.rawValue == 0)
    #expect(!record.isDirty)
  }

  @Test(arguments: [256, 257, 4095, 4096, 4097, 5000, 65_536, (1 << 20) + 1])
  func aFreshPoolIsFreeButForFrame0(frameCount: Int) throws {
    let pool = try FramePool(frameCount: frameCount)
    #expect(pool.count == frameCount)
    #expect(pool.freeCount == frameCount - 1)
    #expect(pool.checkInvariants() == [])
    let counted = freeRuns(pool).map { runs in runs.enumerated().reduce(0) { $0 + ($1.element << $1.offset) } }
    #expect(counted == FrameZone.allCases.map { pool.freeCount(in: $0) })
    #expect(counted.reduce(0, +) == frameCount - 1)
  }

  @Test func largePoolsAreAFewRuns() throws {
    let pool = try FramePool(frameCount: 1 << 24)
    #expect(pool.freeRuns(zone: .below16MiB) == [Int](repeating: 1, count: 12) + [Int](repeating: 0, count: 13))
    #expect(pool.freeRuns(zone: .below4GiB).enumerated().allSatisfy { $1 == ((12..<20).contains($0) ? 1 : 0) })
    #expect(pool.freeRuns(zone: .above4GiB).enumerated().allSatisfy { $1 == ((20..<24).contains($0) ? 1 : 0) })
    var largest = try FramePool(frameCount: FramePool.mostFrameCount)
    #expect(largest.freeCount == FramePool.mostFrameCount - 1)
    let frame = try some(largest.takeFrame())
    #expect(Int(frame.rawValue) < FramePool.mostFrameCount)
  }

  @Test(arguments: [256, 5000])
  func everyFrameIsHandedOutOnceAndAllComeBack(frameCount: Int) throws {
    var pool = try FramePool(frameCount: frameCount)
    let initial = freeRuns(pool)
    var taken: [FrameNumber] = []
    while let frame = pool.takeFrame() { taken.append(frame) }
    #expect(Set(taken) == Set((1..<frameCount).map { FrameNumber(UInt32($0)) }))
    #expect(pool.freeCount == 0)
    #expect(pool.takeZeroedFrame() == nil)
    #expect(pool.takeRun(count: 1) == nil)
    #expect(pool.checkInvariants() == [])
    for frame in taken.reversed() { pool.give(frame) }
    #expect(pool.freeCount == frameCount - 1)
    #expect(pool.checkInvariants() == [])
    pool.drainStock()
    #expect(freeRuns(pool) == initial)
  }

  @Test func ordinaryFramesComeFromTheHighestZoneFirst() throws {
    var pool = try FramePool(frameCount: (1 << 20) + 3)
    var zones: [FrameZone] = []
    for _ in 0..<4 { zones.append(FrameZone(of: try some(pool.takeFrame()))) }
    #expect(zones == [.above4GiB, .above4GiB, .above4GiB, .below4GiB])
    while pool.freeCount(in: .below4GiB) > 0 { _ = pool.takeBlock(order: 12) ?? pool.takeRun(count: 1) }
    #expect(FrameZone(of: try some(pool.takeFrame())) == .below16MiB)
    #expect(pool.checkInvariants() == [])
  }

  @Test func frequentFramesFollowOneAnother() throws {
    var pool = try FramePool(frameCount: 65_536)
    let first = try some(pool.takeFrame())
    for offset in 1..<512 { #expect(pool.takeFrame() == first.advanced(by: offset)) }
  }

  @Test func blocksAreAlignedAndCostNoOthers() throws {
    var pool = try FramePool(frameCount: 65_536)
    for order in 0..<15 {
      let block = try some(pool.takeBlock(order: order))
      #expect(block.count == 1 << order)
      #expect(Int(block.start.rawValue) % block.count == 0)
    }
    #expect(pool.freeCount == 65_535 - 32_767)
    #expect(pool.takeBlock(order: 16) == nil)
    #expect(pool.checkInvariants() == [])
  }

  @Test func runsKeepToTheirAlignmentAndLimitAndAreTrimmed() throws {
    var pool = try FramePool(frameCount: (1 << 20) + 5000)
    let inFirstZone = try some(pool.takeRun(count: 100, alignment: 64, below: 16 << 20))
    #expect(inFirstZone.end.address <= 16 << 20)
    #expect(inFirstZone.start.rawValue % 64 == 0)
    let inSecondZone = try some(pool.takeRun(count: 1000, below: 4 << 30))
    #expect(FrameZone(of: inSecondZone.start) == .below4GiB)
    let belowOddLimit = try some(pool.takeRun(count: 7, alignment: 4, below: (24 << 20) - 1))
    #expect(belowOddLimit.end.address < 24 << 20)
    #expect(FrameZone(of: belowOddLimit.start) == .below4GiB)
    let anywhere = try some(pool.takeRun(count: 3, alignment: 512))
    #expect(FrameZone(of: anywhere.start) == .above4GiB)
    #expect(anywhere.start.rawValue % 512 == 0)
    #expect(pool.freeCount == pool.count - 1 - 100 - 1000 - 7 - 3)
    #expect(pool.takeRun(count: 1, below: 4096) == nil)
    #expect(pool.takeRun(count: 1, below: 8191) == nil)
    #expect(pool.takeRun(count: 1, below: 8192) == run(1, 1))
    #expect(pool.takeRun(count: 1, below: 8192) == nil)
    #expect(pool.takeRun(count: pool.count) == nil)
    #expect(pool.takeRun(count: 1, alignment: 1 << 40) == nil)
    #expect(pool.checkInvariants() == [])
  }

  @Test func framesAcrossRunsAndZonesAreFound() throws {
    var pool = try FramePool(frameCount: 5000)
    // All frames but frame 0 are contiguous, though no free run is longer than 2,048 frames.
    let all = try some(pool.takeRun(count: 4999))
    #expect(all == run(1, 4999))
    pool.give(run(1003, 10))
    pool.give(run(2000, 5))
    #expect(pool.takeRun(count: 11) == nil)
    #expect(pool.takeRun(count: 10, alignment: 2) == nil)
    #expect(pool.takeRun(count: 9, alignment: 4, below: 1013 << 12) == run(1004, 9))
    #expect(pool.takeRun(count: 5, below: 2004 << 12) == nil)
    #expect(pool.takeRun(count: 5) == run(2000, 5))
    #expect(pool.freeCount == 1)
    #expect(pool.checkInvariants() == [])
  }

  @Test func exactFramesAreTakenOrNothingIs() throws {
    var pool = try FramePool(frameCount: 5000)
    let initial = freeRuns(pool)
    #expect(pool.takeFixed(run(4090, 20)) == true)
    let after = freeRuns(pool)
    let refused = [
      run(4000, 100), run(4109, 1), run(0, 2), run(4990, 11), run(5000, 1), run(9000, 1), run(1, 0), run(1, -1),
    ]
    for request in refused {
      #expect(pool.takeFixed(request) == false)
      #expect(freeRuns(pool) == after)
    }
    #expect(pool.freeCount == 4999 - 20)
    #expect(pool.takeFixed(run(4110, 890)) == true)
    #expect(pool.checkInvariants() == [])
    pool.give(run(4090, 910))
    #expect(freeRuns(pool) == initial)
  }

  @Test func reservedFramesAreNeverHandedOut() throws {
    var pool = try FramePool(frameCount: 300)
    pool.reserve(run(100, 50))
    #expect(pool.takeFixed(run(149, 1)) == false)
    var taken = 0
    while let frame = pool.takeFrame() {
      #expect(!(100..<150).contains(frame.rawValue))
      taken += 1
    }
    #expect(taken == 249)
    #expect(pool.checkInvariants() == [])
  }

  @Test func looseFramesAreLentAgainAndMergedForARun() throws {
    var pool = try FramePool(frameCount: 256)
    let all = try some(pool.takeRun(count: 255))
    #expect(all.count == 255)
    for frame in 10..<20 as Range<UInt32> { pool.give(FrameNumber(frame)) }
    // All of a pool below 16 MiB is one zone, so these are loose.
    #expect(pool.freeCount(in: .below16MiB) == 0)
    #expect(pool.freeCount == 10)
    #expect(pool.takeFrame() == FrameNumber(19))
    #expect(pool.takeFixed(run(12, 2)) == true)
    #expect(pool.takeRun(count: 5) == run(14, 5))
    #expect(pool.freeCount == 2)
    #expect(pool.checkInvariants() == [])
  }

  @Test func scarceFramesGoBackToTheirZoneAtOnce() throws {
    var pool = try FramePool(frameCount: 8192)
    let low = try some(pool.takeRun(count: 1, below: 16 << 20))
    pool.give(low.start)
    #expect(pool.freeCount(in: .below16MiB) == 4095)
    #expect(try some(pool.takeFrame()).rawValue >= 4096)
  }
}

@Suite struct FramePoolPreconditionTests {
  @Test func givingBackTwiceTraps() async {
    await #expect(processExitsWith: .failure) {
      var pool = try FramePool(frameCount: 256)
      guard let frame = pool.takeFrame() else { return }
      pool.give(frame)
      pool.give(frame)
    }
    await #expect(processExitsWith: .failure) {
      var pool = try FramePool(frameCount: 256)
      guard let run = pool.takeRun(count: 8) else { return }
      pool.give(FrameNumber(run.start.rawValue + 3))
      pool.give(run)
    }
  }

  @Test func givingBackWhatWasNeverTakenTraps() async {
    await #expect(processExitsWith: .failure) {
      var pool = try FramePool(frameCount: 256)
      pool.give(FrameNumber(0))
    }
    await #expect(processExitsWith: .failure) {
      var pool = try FramePool(frameCount: 256)
      pool.give(FrameNumber(256))
    }
    await #expect(processExitsWith: .failure) {
      var pool = try FramePool(frameCount: 256)
      pool.reserve(FrameRun(start: FrameNumber(9), count: 1))
      pool.give(FrameRun(start: FrameNumber(9), count: 1))
    }
  }

  @Test func aPoolThatIsTooSmallTraps() async {
    await #expect(processExitsWith: .failure) { _ = try FramePool(frameCount: 255) }
  }
}
