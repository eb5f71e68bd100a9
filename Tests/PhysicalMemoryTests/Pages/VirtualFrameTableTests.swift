// The ids of a container: against a dictionary, at the boundaries of leaves, and at the end of the id space.

import Testing

@testable import PhysicalMemory

@Suite struct VirtualFrameTableTests {
  private static let last = FrameID(.max)

  @Test func anEmptyTableNamesNothing() {
    let table = VirtualFrameTable()
    #expect(table.count == 0)
    for id in [0, 1, 1023, 1024, Self.last] { #expect(table[id] == .unused) }
    #expect(table.firstUsed(from: 0) == nil)
    #expect(table.run(from: 0, limit: 1 << 32, inUse: false) == 1 << 32)
    #expect(table.run(from: 0, limit: 1 << 32, inUse: true) == 0)
    #expect(table.prefix(from: 5, limit: 100, unused: 30) == 30)
  }

  @Test func wordsTellEmptyFramesFromContents() {
    #expect(!VirtualFrameWord.unused.isUsed)
    #expect(VirtualFrameWord.unused.content == nil)
    #expect(VirtualFrameWord.empty.isUsed)
    #expect(VirtualFrameWord.empty.content == nil)
    let content = ContentNumber(ContentTable.firstNumber)
    #expect(VirtualFrameWord(content).isUsed)
    #expect(VirtualFrameWord(content).content == content)
  }

  @Test func aRunAcrossLeavesIsOneRun() {
    var table = VirtualFrameTable()
    table.fill(1000, count: 3000, .empty)
    #expect(table.count == 3000)
    #expect(table.run(from: 1000, limit: 9999, inUse: true) == 3000)
    #expect(table.run(from: 0, limit: 9999, inUse: false) == 1000)
    #expect(table.run(from: 4000, limit: 50, inUse: false) == 50)
    #expect(table.firstUsed(from: 0) == 1000)
    #expect(table.firstUsed(from: 3999) == 3999)
    #expect(table.firstUsed(from: 4000) == nil)
    table.fill(1024, count: 2048, .unused)
    #expect(table.count == 952)
    #expect(table.run(from: 1000, limit: 9999, inUse: true) == 24)
    #expect(table.firstUsed(from: 1024) == 3072)
    #expect(table.run(from: 1024, limit: 9999, inUse: false) == 2048)
  }

  @Test func theLastIdsAreLikeOthers() {
    var table = VirtualFrameTable()
    table.fill(Self.last.advanced(by: -1), count: 2, .empty)
    #expect(table[Self.last] == .empty)
    #expect(table.count == 2)
    #expect(table.run(from: Self.last.advanced(by: -1), limit: 2, inUse: true) == 2)
    #expect(table.run(from: 0, limit: 1 << 32, inUse: false) == 1 << 32 - 2)
    #expect(table.firstUsed(from: 0) == Self.last.advanced(by: -1))
    #expect(table.firstUsed(from: Self.last) == Self.last)
    #expect(table.prefix(from: Self.last.advanced(by: -9), limit: 10, unused: 8) == 10)
    #expect(table.prefix(from: Self.last.advanced(by: -9), limit: 10, unused: 7) == 7)
    #expect(table.prefix(from: 0, limit: 1 << 32, unused: 1 << 32 - 3) == 1 << 32 - 3)
    #expect(table.usedCount(from: 0, count: 1 << 32) == 2)
    #expect(table.usedCount(from: Self.last, count: 1) == 1)
    table.set(Self.last, .unused)
    #expect(table.firstUsed(from: Self.last) == nil)
  }

  @Test(.timeLimit(.minutes(1))) func aSearchTakesAStepALeafAndNotAnId() {
    var table = VirtualFrameTable()
    table.fill(7, count: 1 << 20, .empty)
    for _ in 0..<600 {
      #expect(table.run(from: 8, limit: 1 << 31, inUse: true) == 1 << 20 - 1)
      #expect(table.run(from: FrameID(1 << 23), limit: 1 << 31, inUse: false) == 1 << 31)
      #expect(table.prefix(from: 0, limit: 1 << 31, unused: 9) == 1 << 20 + 9)
      #expect(table.usedCount(from: 0, count: 1 << 32) == 1 << 20)
    }
  }

  @Test(arguments: [1, 2, 3] as [UInt64]) func idsFarApartComeAndGo(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    var table = VirtualFrameTable()
    var used: Set<FrameID> = []
    for step in 0..<20_000 {
      // Grow first, then shrink.
      let id = FrameID(UInt32.random(in: 0..<200, using: &random) << 10 | 5)
      let isUsed = Int.random(in: 0..<10, using: &random) < (step / 2000 % 2 == 0 ? 8 : 2)
      table.set(id, isUsed ? .empty : .unused)
      if isUsed { used.insert(id) } else { used.remove(id) }
      let comment = Comment(rawValue: "seed \(seed), step \(step)")
      try #require(table.count == used.count && table[id].isUsed == isUsed, comment)
      let start = FrameID(UInt32.random(in: 0..<200 << 10, using: &random))
      let next = used.filter { $0 >= start }.min()
      try #require(table.firstUsed(from: start) == next, comment)
      try #require(table.usedCount(from: start, count: 1 << 20) == used.count { $0 >= start }, comment)
      let gap = next.map { start.distance(to: $0) } ?? 1 << 20
      try #require(table.run(from: start, limit: 1 << 20, inUse: false) == gap, comment)
      try #require(table.firstContent(from: start, limit: 1 << 20) == nil, comment)
      let isRight = table.forEachContent { _, _ in }
      try #require(isRight, comment)
    }
  }

  @Test func aRangeBeyondTheIdSpaceTraps() async {
    await #expect(processExitsWith: .failure) {
      var table = VirtualFrameTable()
      table.fill(FrameID(.max), count: 2, .empty)
    }
  }

  @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
  func randomChangesAgreeWithADictionary(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    var table = VirtualFrameTable()
    var model: [UInt32: UInt32] = [:]
    // Two clusters a few leaves wide, one of them at the end of the id space.
    let islands: [UInt64] = [0, 1 << 32 - 5000]
    for step in 0..<1500 {
      let length = Int.random(in: 1...(Bool.random(using: &random) ? 8 : 1500), using: &random)
      let start = UInt32(
        islands.randomElement(using: &random)! + UInt64.random(in: 0...UInt64(5000 - length), using: &random))
      if Int.random(in: 0..<4, using: &random) == 0 {
        let word = VirtualFrameWord(rawValue: UInt32.random(in: 0..<9, using: &random))
        table.set(FrameID(start), word)
        model[start] = word.isUsed ? word.rawValue : nil
      } else {
        let word = Bool.random(using: &random) ? VirtualFrameWord.empty : .unused
        table.fill(FrameID(start), count: length, word)
        for id in start...(start + UInt32(length - 1)) { model[id] = word.isUsed ? 1 : nil }
      }
      let comment = Comment(rawValue: "seed \(seed), step \(step)")
      try #require(table.count == model.count, comment)
      let id = UInt32(islands.randomElement(using: &random)! + UInt64.random(in: 0..<5000, using: &random))
      let limit = Int(min(1 << 32 - UInt64(id), UInt64.random(in: 1...6000, using: &random)))
      let unused = Int.random(in: 0...3000, using: &random)
      try #require(table[FrameID(id)].rawValue == model[id] ?? 0, comment)
      try #require(
        table.run(from: FrameID(id), limit: limit, inUse: true) == model.run(id, limit, inUse: true), comment)
      try #require(
        table.run(from: FrameID(id), limit: limit, inUse: false) == model.run(id, limit, inUse: false), comment)
      try #require(
        table.prefix(from: FrameID(id), limit: limit, unused: unused) == model.prefix(id, limit, unused), comment)
      let used = model.keys.count { $0 >= id && UInt64($0) < UInt64(id) + UInt64(limit) }
      try #require(table.usedCount(from: FrameID(id), count: limit) == used, comment)
      try #require(table.firstUsed(from: FrameID(id))?.rawValue == model.keys.filter { $0 >= id }.min(), comment)
    }
  }
}

extension [UInt32: UInt32] {
  fileprivate func run(_ start: UInt32, _ limit: Int, inUse: Bool) -> Int {
    (0..<limit).first { (self[start + UInt32($0)] != nil) != inUse } ?? limit
  }

  fileprivate func prefix(_ start: UInt32, _ limit: Int, _ unused: Int) -> Int {
    var left = unused
    for offset in 0..<limit where self[start + UInt32(offset)] == nil {
      if left == 0 { return offset }
      left -= 1
    }
    return limit
  }
}
