// The frame pool against a naive model, a set of free frames: thousands of random operations on both.

import GuestMemory
import Testing

@testable import PhysicalMemory

/// Repeatable randomness (SplitMix64): a failure reports its seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

/// The model: the state of the pool, kept as simply as possible.
private struct PoolModel {
  let frameCount: Int
  var isFree: [Bool]
  var isDirty: [Bool]
  var freeCount: Int
  /// Frames in use, unordered.
  private(set) var taken: [FrameNumber] = []
  /// The index in `taken` of each frame in use.
  private var takenIndex: [Int?]
  var batches: [ZeroingBatch] = []

  init(frameCount: Int) {
    self.frameCount = frameCount
    isFree = [Bool](repeating: true, count: frameCount)
    isFree[0] = false
    isDirty = [Bool](repeating: false, count: frameCount)
    takenIndex = [Int?](repeating: nil, count: frameCount)
    freeCount = frameCount - 1
  }

  func allFree(_ start: Int, _ count: Int) -> Bool {
    guard start + count <= frameCount else { return false }
    var index = start
    while index < start + count, isFree[index] { index += 1 }
    return index == start + count
  }

  func hasRun(count: Int, alignment: Int, end: Int) -> Bool {
    var start = 0
    while start + count <= end {
      if allFree(start, count) { return true }
      start += alignment
    }
    return false
  }

  /// Records that frames were allocated; they must have been free.
  mutating func take(_ frames: [FrameNumber], sourceLocation: SourceLocation = #_sourceLocation) {
    lend(frames, sourceLocation: sourceLocation)
    for frame in frames {
      takenIndex[Int(frame.rawValue)] = taken.count
      taken.append(frame)
    }
  }

  /// Records that frames went into a batch; they must have been free.
  mutating func lend(_ frames: [FrameNumber], sourceLocation: SourceLocation = #_sourceLocation) {
    for frame in frames {
      if !isFree[Int(frame.rawValue)] {
        Issue.record("frame \(frame.rawValue) was allocated twice", sourceLocation: sourceLocation)
      }
      isFree[Int(frame.rawValue)] = false
    }
    freeCount -= frames.count
  }

  mutating func give(_ frame: FrameNumber, isDirty: Bool) {
    isFree[Int(frame.rawValue)] = true
    freeCount += 1
    self.isDirty[Int(frame.rawValue)] = isDirty
  }

  /// Picks a frame in use and removes it from the model.
  mutating func removeAnyTaken(_ random: inout SeededGenerator) -> FrameNumber? {
    guard let frame = taken.randomElement(using: &random) else { return nil }
    removeTaken(frame)
    return frame
  }

  /// False if the frame is not in use.
  @discardableResult
  mutating func removeTaken(_ frame: FrameNumber) -> Bool {
    guard Int(frame.rawValue) < frameCount, let index = takenIndex[Int(frame.rawValue)] else { return false }
    let last = taken.removeLast()
    if last != frame {
      taken[index] = last
      takenIndex[Int(last.rawValue)] = index
    }
    takenIndex[Int(frame.rawValue)] = nil
    return true
  }
}

private func frames(_ run: FrameRun) -> [FrameNumber] { (0..<run.count).map { run.start.advanced(by: $0) } }

@Suite struct FramePoolModelTests {
  @Test(arguments: zip([1, 2, 3, 4] as [UInt64], [700, 5000, 4096, 8200]))
  func randomOperationsAgreeWithTheModel(seed: UInt64, frameCount: Int) throws {
    var random = SeededGenerator(state: seed)
    var pool = try FramePool(frameCount: frameCount)
    var model = PoolModel(frameCount: frameCount)
    let initial = freeRuns(pool)
    for step in 0..<12_000 {
      // Alternately grow and shrink, so that both a full and an empty pool occur.
      let isGrowing = (step / 1500) % 2 == 0
      if Int.random(in: 0..<10, using: &random) < (isGrowing ? 7 : 3) {
        takeSomething(&pool, &model, &random)
      } else {
        giveSomething(&pool, &model, &random)
      }
      if step % 600 == 0 {
        try #require(pool.checkInvariants() == [], "seed \(seed), step \(step)")
        try #require(pool.freeCount == model.freeCount, "seed \(seed), step \(step)")
      }
    }
    for batch in model.batches { pool.giveZeroed(batch) }
    for frame in model.taken { pool.give(frame) }
    pool.drainStock()
    #expect(pool.checkInvariants() == [])
    #expect(freeRuns(pool) == initial)
  }

  private func takeSomething(_ pool: inout FramePool, _ model: inout PoolModel, _ random: inout SeededGenerator) {
    switch Int.random(in: 0..<8, using: &random) {
    case 0, 1:
      let frame = pool.takeFrame()
      #expect((frame != nil) == (model.freeCount > 0))
      if let frame { model.take([frame]) }
    case 2, 3:
      let zeroed = pool.takeZeroedFrame()
      #expect((zeroed != nil) == (model.freeCount > 0))
      if let (frame, isZero) = zeroed {
        model.take([frame])
        #expect(isZero != model.isDirty[Int(frame.rawValue)])
      }
    case 4:
      var around = [FrameNumber](repeating: .none, count: Int.random(in: 1...64, using: &random))
      let expected = min(model.freeCount, around.count)
      var span = around.mutableSpan
      #expect(pool.takeZeroedFrames(into: &span) == expected)
      model.take(Array(around[..<expected]))
    case 5:
      let count = Int.random(in: 1...1 << Int.random(in: 0...9, using: &random), using: &random)
      let alignment = 1 << Int.random(in: 0...9, using: &random)
      let end = Bool.random(using: &random) ? model.frameCount : Int.random(in: 0...model.frameCount, using: &random)
      if let run = pool.takeRun(count: count, alignment: alignment, below: UInt64(end) << 12) {
        #expect(run.count == count && Int(run.start.rawValue) % alignment == 0 && Int(run.end.rawValue) <= end)
        model.take(frames(run))
      } else {
        #expect(!model.hasRun(count: count, alignment: alignment, end: end))
      }
    case 6:
      let start = Int.random(in: 0..<model.frameCount, using: &random)
      let count = Int.random(in: 1...20, using: &random)
      let run = FrameRun(start: FrameNumber(UInt32(start)), count: count)
      let isFree = model.allFree(start, count)
      #expect(pool.takeFixed(run) == isFree)
      if isFree { model.take(frames(run)) }
    default:
      takeBatch(&pool, &model, &random)
    }
  }

  private func takeBatch(_ pool: inout FramePool, _ model: inout PoolModel, _ random: inout SeededGenerator) {
    guard model.batches.count < 3 else { return }
    let most = Int.random(in: 1...64, using: &random)
    let batch = pool.takeForZeroing(most: most)
    #expect(batch.count <= most)
    let all = batch.runs.flatMap(frames)
    #expect(all.count == batch.count)
    #expect(Set(batch.dirtyRuns.flatMap(frames)) == Set(all.filter { model.isDirty[Int($0.rawValue)] }))
    model.lend(all)
    if batch.count > 0 { model.batches.append(batch) }
  }

  private func giveSomething(_ pool: inout FramePool, _ model: inout PoolModel, _ random: inout SeededGenerator) {
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<6:
      for _ in 0..<Int.random(in: 1...8, using: &random) {
        guard let frame = model.removeAnyTaken(&random) else { return }
        pool.give(frame)
        model.give(frame, isDirty: true)
      }
    case 6, 7:
      // The frames in use around one of them, freed as one run.
      guard let frame = model.removeAnyTaken(&random) else { return }
      var run = FrameRun(start: frame, count: 1)
      while model.removeTaken(run.end) {
        run = FrameRun(start: frame, count: run.count + 1)
      }
      let isZero = Bool.random(using: &random)
      pool.give(run, contentIsZero: isZero)
      for frame in frames(run) { model.give(frame, isDirty: !isZero) }
    case 8:
      guard let batch = model.batches.popLast() else { return }
      pool.giveZeroed(batch)
      for frame in batch.runs.flatMap(frames) { model.give(frame, isDirty: false) }
    default:
      if Int.random(in: 0..<10, using: &random) == 0 { pool.drainStock() }
    }
  }
}
