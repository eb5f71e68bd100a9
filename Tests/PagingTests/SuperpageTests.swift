// Superpages in page tables: as the processor walks them, and as the server sees them.

import GuestMemory
import Paging
import Testing

@Suite final class SuperpageTests {
  private let memory: PoolMemory
  private let history = TranslationHistory()
  private var tables: PageTables
  private var next: UInt32 = 2
  /// The first page of a region, and a page in it.
  private let start = PageNumber(512 * 700)
  private let page = PageNumber(512 * 700 + 77)

  init() throws {
    memory = try PoolMemory(frameCount: 1 << 13)
    tables = PageTables(root: FrameNumber(1), memory: memory, history: history)
  }

  private static func leaf(_ frame: UInt32, isWritable: Bool = true) -> PageTableEntry {
    PageTableEntry(leaf: FrameNumber(frame), isWritable: isWritable, isExecutable: false)
  }

  /// The frame that the processor finds for a page, and whether it is writable; nil: a page fault.
  private func walk(_ page: PageNumber) -> (frame: UInt32, isWritable: Bool)? {
    var table = FrameNumber(1)
    for level in [3, 2, 1, 0] as [UInt64] {
      var bytes = [UInt8](repeating: 0, count: 8)
      var span = bytes.mutableSpan
      memory.read(table, at: Int(page.rawValue >> (9 * level) & 511) * 8, into: &span)
      let entry = PageTableEntry(rawValue: bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) })
      guard entry.isPresent else { return nil }
      if level == 1, entry.rawValue & PageTableEntry.pageSize != 0 {
        // Bits 12 to 20 of a superpage's entry are reserved.
        #expect(entry.frame.rawValue % 512 == 0)
        return (entry.frame.rawValue + UInt32(page.rawValue & 511), entry.isWritable)
      }
      if level == 0 { return (entry.frame.rawValue, entry.isWritable) }
      table = entry.frame
    }
    return nil
  }

  private func take() -> FrameNumber? {
    defer { next += 1 }
    return FrameNumber(next)
  }

  private func makeSuperpage(_ frame: UInt32 = 1024) -> Bool {
    tables.fillAside(start, first: Self.leaf(frame), takeFrame: take) && tables.attachAsSuperpage(start)
  }

  private func makeTables() -> Bool { tables.makeTables(for: start, takeFrame: take) }

  private func fillLeaves(_ frame: UInt32 = 1024) {
    for index in 0..<512 { tables.set(start.advanced(by: index), Self.leaf(frame + UInt32(index))) }
  }

  @Test func theProcessorFindsOneEntryAndTheServer512Leaves() {
    #expect(tables.isFreeForSuperpage(page) == true)
    #expect(makeSuperpage())
    #expect(tables.tableCount == 4)
    #expect(history.superpages == 1)
    #expect(history.flushes == 0)
    #expect(tables.isFreeForSuperpage(page) == false)
    for index in [0, 1, 77, 511] {
      let page = start.advanced(by: index)
      #expect(walk(page)?.frame == 1024 + UInt32(index))
      #expect(walk(page)?.isWritable == true)
      #expect(tables.entry(page) == Self.leaf(1024 + UInt32(index)))
    }
    #expect(walk(start.advanced(by: 512)) == nil)
    #expect(tables.superpage(page)?.frame == FrameNumber(1024))
    #expect(tables.firstPresent(from: PageNumber(0), to: PageNumber(1 << 35)) == start)
    #expect(tables.firstPresent(from: start.advanced(by: 512), to: PageNumber(1 << 35)) == nil)
    #expect(tables.absentRun(from: page, limit: 5) == 0)
    #expect(tables.missingTables(for: page) == 0)
  }

  @Test(arguments: [0, 1, 2]) func anyChangeOfALeafDetachesTheRegion(change: Int) {
    #expect(makeSuperpage())
    switch change {
    case 0: #expect(tables.clear(page, .freed) == Self.leaf(1024 + 77))
    case 1: tables.writeProtect(page)
    default: tables.set(page, Self.leaf(3000))
    }
    #expect(history.superpages == 0)
    #expect(tables.superpage(page) == nil)
    #expect(tables.isDetached(page) == true)
    // The processor must not see the table before KVM has flushed its shadow of the entry.
    #expect(walk(start) == nil)
    #expect(tables.needsFlush(page) == true)
    #expect(tables.entry(start.advanced(by: 78)) == Self.leaf(1024 + 78))
    history.flushes += 1
    #expect(tables.needsFlush(page) == false)
    tables.attach(page, now: 5)
    #expect(history.splits == [[.freed, .copied, .unmapped][change]: 1])
    #expect(tables.isDetached(page) == false)
    #expect(walk(start)?.frame == 1024)
    #expect(walk(start.advanced(by: 511))?.frame == 1535)
    let frames: [UInt32] = [0, 1024 + 77, 3000]
    let found = walk(page)
    #expect((found?.frame ?? 0) == frames[change])
    #expect((found?.isWritable ?? false) == (change == 2))
  }

  @Test(arguments: [false, true]) func aRegionWithAnUnfitLeafStaysDetached(isGone: Bool) {
    #expect(makeSuperpage())
    if isGone { _ = tables.clear(page, .freed) } else { tables.writeProtect(page) }
    // No flush has happened yet.
    #expect(tables.needsFlush(page) == true)
    #expect(tables.attachAsSuperpage(page) == false)
    #expect(tables.isDetached(page) == true)
    #expect(walk(start) == nil)
  }

  @Test func anEntryIsNotAttachedBeforeAFlush() async {
    await #expect(processExitsWith: .failure) {
      let test = try SuperpageTests()
      guard test.makeSuperpage() else { return }
      _ = test.tables.clear(test.page, .freed)
      test.tables.attach(test.page, now: 0)
    }
  }

  @Test func accessedAndDirtyBitsAreKept() {
    #expect(makeTables())
    fillLeaves()
    let clean = PageTableEntry(
      rawValue: Self.leaf(1024 + 3).rawValue & ~(PageTableEntry.dirty | PageTableEntry.accessed))
    tables.set(start.advanced(by: 3), clean)
    tables.detach(start)
    history.flushes += 1
    #expect(tables.attachAsSuperpage(start) == true)
    #expect(tables.superpage(start)?.rawValue == Self.leaf(1024).rawValue | PageTableEntry.pageSize)
    #expect(tables.entry(start.advanced(by: 3)) == clean)
    _ = tables.clear(page, .freed)
    #expect(tables.entry(start.advanced(by: 3)) == Self.leaf(1024 + 3))
  }

  @Test func leavesInOrderCanBePromoted() {
    #expect(makeTables())
    #expect(tables.isFreeForSuperpage(page) == false)
    #expect(tables.promotableLeaf(page) == nil)
    fillLeaves()
    #expect(tables.promotableLeaf(page) == Self.leaf(1024))
    tables.detach(page)
    #expect(walk(page) == nil)
    #expect(tables.needsFlush(page) == true)
    history.flushes += 1
    #expect(tables.attachAsSuperpage(page) == true)
    #expect(walk(page)?.frame == UInt32(1024 + 77))
    #expect(tables.tableCount == 4)
  }

  @Test func leavesThatAreUnequalUnorderedUnalignedOrAbsentCannotBePromoted() {
    #expect(makeTables())
    fillLeaves(1025)
    #expect(tables.promotableLeaf(page) == nil)
    for index in [0, 1, 300, 511] {
      fillLeaves()
      let other = start.advanced(by: index)
      tables.set(other, Self.leaf(1024 + UInt32(index), isWritable: false))
      #expect(tables.promotableLeaf(page) == nil)
      tables.set(other, Self.leaf(2048 + UInt32(index)))
      #expect(tables.promotableLeaf(page) == nil)
      _ = tables.clear(other, .freed)
      #expect(tables.promotableLeaf(page) == nil)
      tables.set(other, Self.leaf(1024 + UInt32(index)))
      #expect(tables.promotableLeaf(page) != nil)
    }
  }

  @Test func aRegionThatIsEmptyAgainCanBeAnotherSuperpageAfterAFlush() {
    #expect(makeSuperpage(1024))
    for index in 0..<512 { _ = tables.clear(start.advanced(by: index), .freed) }
    #expect(tables.isFreeForSuperpage(page) == true)
    #expect(tables.needsFlush(page) == true)
    #expect(tables.firstPresent(from: PageNumber(0), to: PageNumber(1 << 35)) == nil)
    history.flushes += 1
    let frames = next
    #expect(makeSuperpage(2048))
    #expect(next == frames)
    #expect(walk(page)?.frame == UInt32(2048 + 77))
    #expect(history.splits == [:])
    #expect(history.superpages == 1)
  }

  @Test func aTableIsTakenBeforeAnythingChanges() {
    #expect(tables.fillAside(start, first: Self.leaf(1024), takeFrame: { nil }) == false)
    #expect(tables.isFreeForSuperpage(page) == true)
    #expect(tables.tableCount == 1)
    var left = 2
    let isFilled = tables.fillAside(start, first: Self.leaf(1024)) {
      left -= 1
      return left < 0 ? nil : FrameNumber(UInt32(10 + left))
    }
    #expect(!isFilled)
    #expect(tables.isFreeForSuperpage(page) == true)
    #expect(tables.missingTables(for: page) == 1)
    #expect(tables.entry(page) == .empty)
  }

  @Test func everyTableIsFreedOnce() {
    var tables = PageTables(root: FrameNumber(1), memory: memory)
    #expect(tables.makeTables(for: start.advanced(by: 512), takeFrame: take) == true)
    #expect(tables.fillAside(start, first: Self.leaf(1024), takeFrame: take) == true)
    #expect(tables.attachAsSuperpage(start) == true)
    for index in 0..<512 { _ = tables.clear(start.advanced(by: index), .freed) }
    #expect(tables.tableCount == 5)
    var returned: [UInt32] = []
    tables.dismantle { returned.append($0.rawValue) }
    #expect(returned.sorted() == [1, 2, 3, 4, 5])
    #expect(returned.last == 1)
  }

  @Test func aSplitRegionBacksOff() {
    let second: UInt64 = 1_000_000_000
    #expect(makeSuperpage())
    #expect(tables.wasSplit(page) == false)
    for (now, pause) in [(100, second), (3 * second, 2 * second), (9 * second, 4 * second)] {
      tables.writeProtect(page)
      history.flushes += 1
      tables.attach(page, now: now)
      #expect(tables.wasSplit(page) == true)
      #expect(tables.mayBeSuperpage(page, now: now + pause - 1) == false)
      #expect(tables.mayBeSuperpage(page, now: now + pause) == true)
      tables.set(page, Self.leaf(1024 + 77))
      tables.detach(page)
      history.flushes += 1
      #expect(tables.attachAsSuperpage(page) == true)
    }
    tables.forgetSplits()
    #expect(tables.wasSplit(page) == false)
  }
}
