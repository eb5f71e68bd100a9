// Page tables in a real pool: as the processor reads them, and as the server sees them.

import GuestMemory
import Paging
import Testing

/// Hands out frames from 1 on, and records those that come back.
private final class Frames {
  var next: UInt32 = 1
  var limit: UInt32 = .max
  var returned: [FrameNumber] = []

  func take() -> FrameNumber? {
    guard next < limit else { return nil }
    defer { next += 1 }
    return FrameNumber(next)
  }
}

/// The leaf that the processor finds for a page by walking the tables in memory.
private func walk(_ memory: PoolMemory, root: FrameNumber, _ page: PageNumber) -> PageTableEntry? {
  var table = root
  for level in [3, 2, 1, 0] as [UInt64] {
    var bytes = [UInt8](repeating: 0, count: 8)
    var span = bytes.mutableSpan
    memory.read(table, at: Int(page.rawValue >> (9 * level) & 511) * 8, into: &span)
    let entry = PageTableEntry(rawValue: bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) })
    guard entry.isPresent else { return nil }
    if level == 0 { return entry }
    guard entry.isWritable, entry.isExecutable, entry.isUser else { return nil }
    table = entry.frame
  }
  return nil
}

private func leaf(_ frame: UInt32, isWritable: Bool = true) -> PageTableEntry {
  PageTableEntry(leaf: FrameNumber(frame), isWritable: isWritable, isExecutable: false)
}

@Suite struct PageTablesTests {
  private let memory: PoolMemory
  private let frames = Frames()
  private let root: FrameNumber
  private let page = PageNumber(0x12345)

  init() throws {
    memory = try PoolMemory(frameCount: 512)
    root = try #require(frames.take())
  }

  private func tables() -> PageTables { PageTables(root: root, memory: memory) }
  private func make(_ tables: inout PageTables, _ page: PageNumber) -> Bool {
    tables.makeTables(for: page, takeFrame: frames.take)
  }

  // MARK: Tables

  @Test func aPageNeedsThreeTablesAndItsNeighboursFewer() {
    var tables = tables()
    #expect(tables.missingTables(for: page) == 3)
    #expect(make(&tables, page))
    #expect(tables.missingTables(for: page) == 0)
    #expect(tables.tableCount == 4)
    #expect(tables.missingTables(for: PageNumber(page.rawValue ^ 511)) == 0)
    #expect(tables.missingTables(for: PageNumber(page.rawValue ^ 512)) == 1)
    #expect(tables.missingTables(for: PageNumber(page.rawValue ^ 1 << 18)) == 2)
    #expect(tables.missingTables(for: PageNumber(page.rawValue ^ 1 << 27)) == 3)
    #expect(make(&tables, page))
    #expect(tables.tableCount == 4)
    #expect(make(&tables, PageNumber(page.rawValue ^ 1 << 18)))
    #expect(tables.tableCount == 6)
    #expect(frames.next == 7)
  }

  @Test func tablesThatWereLinkedBeforeFramesRanOutAreUsedByTheNextAttempt() {
    var tables = tables()
    frames.limit = 4
    #expect(!make(&tables, page))
    #expect(tables.missingTables(for: page) == 1)
    #expect(tables.tableCount == 3)
    #expect(tables.entry(page) == .empty)
    #expect(tables.absentRun(from: page, limit: 5) == 0)
    frames.limit = .max
    #expect(make(&tables, page))
    #expect(tables.tableCount == 4)
    #expect(frames.next == 5)
  }

  @Test func everyFrameOfATreeIsFreedOnceTheRootLast() throws {
    var tables = tables()
    let shared = try #require(frames.take())
    tables.shareTopLevel(index: 256, table: shared)
    let pages: [UInt64] = [1, 1 << 9, 1 << 18, 1 << 27, 0x7_ffff_fdff, 0x7_ffff_ffff, 0x12345]
    for page in pages { #expect(make(&tables, PageNumber(page))) }
    let count = tables.tableCount
    #expect(count == Int(frames.next) - 2)
    tables.dismantle { frames.returned.append($0) }
    #expect(frames.returned.count == count)
    #expect(Set(frames.returned).count == count)
    #expect(!frames.returned.contains(shared))
    #expect(frames.returned.last == root)
  }

  @Test func theSharedHalfIsReachedThroughTheRoot() throws {
    var tables = tables()
    let shared = try #require(frames.take())
    tables.shareTopLevel(index: 256, table: shared)
    #expect(tables.missingTables(for: PageNumber(256 << 27)) == 2)
    #expect(tables.tableCount == 1)
  }

  // MARK: Leaves

  @Test func aLeafIsWhereTheProcessorLooksForIt() {
    var tables = tables()
    for page in [0x12345, 1, 0x7_ffff_ffff, 0x1ff, 0x200] as [UInt64] {
      let page = PageNumber(page)
      #expect(tables.entry(page) == .empty)
      #expect(walk(memory, root: root, page) == nil)
      #expect(make(&tables, page))
      #expect(tables.entry(page) == .empty)
      tables.set(page, leaf(400))
      #expect(tables.entry(page) == leaf(400))
      #expect(walk(memory, root: root, page) == leaf(400))
      #expect(tables.clear(page, .freed) == leaf(400))
      #expect(tables.clear(page, .freed) == .empty)
      #expect(walk(memory, root: root, page) == nil)
    }
    #expect(tables.clear(PageNumber(1 << 30), .freed) == .empty)
  }

  @Test func writeProtectionTakesOneBit() {
    var tables = tables()
    #expect(make(&tables, page))
    tables.set(page, leaf(9))
    tables.writeProtect(page)
    #expect(tables.entry(page).rawValue == leaf(9).rawValue & ~PageTableEntry.writable)
    tables.writeProtect(page)
    #expect(tables.entry(page).frame == FrameNumber(9))
    tables.writeProtect(PageNumber(1 << 30))
    #expect(tables.entry(PageNumber(1 << 30)) == .empty)
  }

  @Test func aLeafWithoutATableTraps() async {
    await #expect(processExitsWith: .failure) {
      let memory = try PoolMemory(frameCount: 512)
      var tables = PageTables(root: FrameNumber(1), memory: memory)
      tables.set(PageNumber(1), PageTableEntry(leaf: FrameNumber(2), isWritable: false, isExecutable: false))
    }
  }

  /// The cached region of one look-up must not be used for another.
  @Test func regionsAreDistinguished() {
    var tables = tables()
    let pages = [0, 512, 1024, 1 << 18, 1 << 27].map { PageNumber($0 + 5) }
    for (index, page) in pages.enumerated() {
      #expect(make(&tables, page))
      tables.set(page, leaf(UInt32(100 + index)))
    }
    for _ in 0..<3 {
      for (index, page) in pages.enumerated().reversed() {
        #expect(tables.entry(page).frame.rawValue == 100 + UInt32(index))
      }
    }
    #expect(tables.entry(PageNumber(2 << 18 + 5)) == .empty)
  }

  @Test func absentRunsEndAtALeafAtTheLimitOrAtTheTable() {
    var tables = tables()
    let start = PageNumber(1 << 20)
    #expect(tables.absentRun(from: start, limit: 10) == 0)
    #expect(make(&tables, start))
    #expect(tables.absentRun(from: start, limit: 10) == 10)
    #expect(tables.absentRun(from: start, limit: 5000) == 512)
    #expect(tables.absentRun(from: start.advanced(by: 510), limit: 5000) == 2)
    #expect(tables.absentRun(from: start.advanced(by: 511), limit: 5000) == 1)
    #expect(tables.absentRun(from: start.advanced(by: 512), limit: 5000) == 0)
    #expect(tables.absentRun(from: start, limit: 0) == 0)
    tables.set(start.advanced(by: 100), leaf(9))
    #expect(tables.absentRun(from: start, limit: 5000) == 100)
    #expect(tables.absentRun(from: start.advanced(by: 100), limit: 5000) == 0)
    #expect(tables.absentRun(from: start.advanced(by: 101), limit: 5000) == 411)
  }

  @Test func theFirstLeafIsFoundAcrossAbsentTables() {
    var tables = tables()
    let end = PageNumber(1 << 35)
    let pages = [5, 511, 512, 1 << 18 - 1, 1 << 27 + 77, 1 << 35 - 1].map { PageNumber($0) }
    #expect(tables.firstPresent(from: PageNumber(0), to: end) == nil)
    for page in pages {
      #expect(make(&tables, page))
      tables.set(page, leaf(9))
    }
    // Empty tables have no leaves.
    #expect(make(&tables, PageNumber(3 << 27)))
    var found: [PageNumber] = []
    var from = PageNumber(0)
    while let page = tables.firstPresent(from: from, to: end) {
      found.append(page)
      from = page.advanced(by: 1)
    }
    #expect(found == pages)
    #expect(tables.firstPresent(from: PageNumber(6), to: PageNumber(511)) == nil)
    #expect(tables.firstPresent(from: PageNumber(6), to: PageNumber(512)) == PageNumber(511))
    #expect(tables.firstPresent(from: PageNumber(513), to: PageNumber(1 << 18 - 1)) == nil)
    #expect(tables.firstPresent(from: PageNumber(9), to: PageNumber(9)) == nil)
  }

  @Test func theSharedHalfIsNotSearched() throws {
    var tables = tables()
    let shared = try #require(frames.take())
    tables.shareTopLevel(index: 256, table: shared)
    memory.write(shared, at: 0, [0xff, 0xff].span)
    #expect(tables.firstPresent(from: PageNumber(0), to: PageNumber(1 << 35)) == nil)
  }

  @Test func aSearchThroughManyEmptyTablesStopsAndContinues() throws {
    var tables = tables()
    // 300 leaf tables, empty except for the last page.
    for region in 0..<300 as Range<UInt64> { #expect(make(&tables, PageNumber(region << 9))) }
    let last = PageNumber(300 << 9 - 1)
    tables.set(last, leaf(9))
    var stops = 0
    var from = PageNumber(0)
    while true {
      let found = tables.firstPresent(from: from, to: PageNumber(1 << 35))
      let page = try #require(found)
      if page == last { break }
      #expect(page > from)
      #expect(tables.entry(page) == .empty)
      #expect(page.rawValue - from.rawValue <= UInt64(PageTables.searchLimit) + 512)
      stops += 1
      from = page
    }
    #expect(stops == 300 * 512 / PageTables.searchLimit)
  }
}
