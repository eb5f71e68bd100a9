// A task's mappings, against an array with an entry for each page.

import GuestMemory
import Testing

@testable import PhysicalMemory

private func mapping(
  _ start: UInt64, _ count: UInt64, container: ContainerSlot = 1, frame: FrameID = 0, _ flags: MappingFlags = .read
)
  -> Mapping
{
  Mapping(
    start: PageNumber(start), count: count, container: ContainerReference(slot: container, generation: 1), frame: frame,
    flags: flags)
}

/// What one page shows.
private struct Shown: Equatable {
  let container: ContainerSlot
  let frame: FrameID
  let flags: MappingFlags

  init(_ mapping: Mapping, _ page: UInt64) {
    container = mapping.container.slot
    frame = mapping.frame(at: PageNumber(page))
    flags = mapping.flags
  }
}

extension MappingTable {
  fileprivate mutating func shown(_ page: UInt64) -> Shown? {
    guard let index = find(PageNumber(page)) else { return nil }
    return Shown(self[index], page)
  }

  /// All mappings, in order.
  fileprivate func all() -> [(start: UInt64, count: UInt64)] {
    var found: [(UInt64, UInt64)] = []
    forEach(from: PageNumber(0), to: PageNumber(.max)) { found.append(($0.start.rawValue, $0.count)) }
    return found
  }
}

@Suite struct MappingTableTests {
  @Test func aMappingIsFoundByEachOfItsPages() {
    var table = MappingTable()
    table.insert(mapping(10, 5, frame: 100))
    #expect(table.shown(9) == nil)
    #expect(table.shown(10)?.frame == 100)
    #expect(table.shown(14)?.frame == 104)
    #expect(table.shown(15) == nil)
    #expect(table.shown(.max) == nil)
  }

  @Test func neighboursThatGoOnBecomeOne() {
    var table = MappingTable()
    table.insert(mapping(10, 5, frame: 0))
    table.insert(mapping(20, 5, frame: 10))
    table.insert(mapping(15, 5, frame: 5))
    #expect(table.count == 1)
    #expect(table.shown(24)?.frame == 14)
  }

  @Test func neighboursThatDoNotGoOnStayApart() {
    var table = MappingTable()
    table.insert(mapping(10, 5, frame: 0))
    table.insert(mapping(15, 5, frame: 6))
    table.insert(mapping(20, 5, container: 2, frame: 11))
    table.insert(mapping(25, 5, container: 2, frame: 16, [.read, .write]))
    table.insert(mapping(31, 5, container: 2, frame: 22, [.read, .write]))
    #expect(table.count == 5)
  }

  @Test func framesDoNotGoOnPastTheEndOfTheIdSpace() {
    var table = MappingTable()
    table.insert(mapping(10, 1, frame: FrameID(.max)))
    table.insert(mapping(11, 1, frame: 0))
    #expect(table.count == 2)
  }

  @Test func removingFromTheMiddleLeavesBothEnds() {
    var table = MappingTable()
    table.insert(mapping(10, 10, frame: 50))
    table.remove(from: PageNumber(13), to: PageNumber(17))
    #expect(table.all().map(\.start) == [10, 17])
    #expect(table.all().map(\.count) == [3, 3])
    #expect(table.shown(12)?.frame == 52)
    #expect(table.shown(13) == nil)
    #expect(table.shown(16) == nil)
    #expect(table.shown(17)?.frame == 57)
  }

  @Test func aWalkGivesTheParts() {
    var table = MappingTable()
    table.insert(mapping(10, 10))
    table.insert(mapping(30, 10, container: 2))
    var parts: [[UInt64]] = []
    table.forEach(from: PageNumber(15), to: PageNumber(32)) {
      parts.append([$0.start.rawValue, $0.count, $0.frame.position])
    }
    #expect(parts == [[15, 5, 5], [30, 2, 0]])
  }

  @Test func removingStopsAtItsLimit() {
    var table = MappingTable()
    for page in 0..<1000 as Range<UInt64> { table.insert(mapping(page * 2, 1)) }
    #expect(table.remove(from: PageNumber(10), to: PageNumber(1000), limit: 300) == false)
    #expect(table.count == 700)
    #expect(table.shown(8) != nil)
    #expect(table.shown(608) == nil)
    #expect(table.shown(610) != nil)
    #expect(table.remove(from: PageNumber(10), to: PageNumber(1000), limit: 300) == true)
    #expect(table.count == 505)
  }

  @Test func onlyCuttingFromTheMiddleMakesTwo() {
    var table = MappingTable()
    table.insert(mapping(10, 10))
    for (first, end, isCut) in [
      (11, 19, true), (10, 19, false), (11, 20, false), (5, 30, false), (15, 15, true), (30, 40, false),
    ]
      as [(UInt64, UInt64, Bool)]
    {
      #expect(table.isCutInTwo(by: PageNumber(first), PageNumber(end)) == isCut)
    }
  }

  @Test func filteringGoesChunkByChunk() {
    var table = MappingTable()
    for page in 0..<600 as Range<UInt64> {
      table.insert(mapping(page * 2, 1, container: ContainerSlot(UInt32(page / 100))))
    }
    var position: Int? = 0
    var steps = 0
    while let chunk = position {
      position = table.filter(chunk: chunk) { $0.container.slot.rawValue % 2 == 1 }
      steps += 1
    }
    #expect(steps > 4)
    #expect(table.count == 300)
    #expect(table.all().allSatisfy { $0.start / 200 % 2 == 1 })
    #expect(table.filter(chunk: 99) { _ in false } == nil)
  }

  @Test(arguments: [1, 2, 3, 4] as [UInt64])
  func randomChangesAgreeWithAnArray(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    var table = MappingTable()
    let pages: UInt64 = 3000
    var model = [Shown?](repeating: nil, count: Int(pages))
    for step in 0..<3000 {
      let comment = Comment(rawValue: "seed \(seed), step \(step)")
      // Mostly single pages, so that there are more mappings than one chunk holds.
      let count = UInt64.random(in: 1...(Int.random(in: 0..<40, using: &random) == 0 ? 400 : 3), using: &random)
      let start = UInt64.random(in: 0...(pages - count), using: &random)
      table.remove(from: PageNumber(start), to: PageNumber(start + count))
      for page in start..<(start + count) { model[Int(page)] = nil }
      if Int.random(in: 0..<4, using: &random) > 0 {
        // Often the id is the page's own number, so that neighbours are merged.
        let frame = FrameID(Bool.random(using: &random) ? UInt32(start) : UInt32.random(in: 0..<50, using: &random))
        let new = mapping(
          start, count, container: ContainerSlot(UInt32.random(in: 1...2, using: &random)), frame: frame)
        table.insert(new)
        for page in start..<(start + count) { model[Int(page)] = Shown(new, page) }
      }
      for page in [start, start + count - 1, UInt64.random(in: 0..<pages, using: &random)] {
        try #require(table.shown(page) == model[Int(page)], comment)
      }
      if step % 50 == 0 {
        for page in 0..<pages { try #require(table.shown(page) == model[Int(page)], comment) }
        try #require(table.count == table.all().count, comment)
        try #require(table.count == runs(model), comment)
      }
    }
    #expect(table.count > 128)
  }

  /// The number of maximal runs of pages with consecutive ids.
  private func runs(_ model: [Shown?]) -> Int {
    var count = 0
    for page in model.indices {
      guard let shown = model[page] else { continue }
      if page > 0, let before = model[page - 1], before.container == shown.container, before.flags == shown.flags,
        before.frame.position + 1 == shown.frame.position
      {
        continue
      }
      count += 1
    }
    return count
  }
}
