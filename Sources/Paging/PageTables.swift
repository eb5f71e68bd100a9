// The page tables of one address space, in frames of the pool.
//
// A directory entry, once written, is never changed while the tree lives: KVM may keep a shadow of it that
// nothing short of a flush of all translations removes. The one exception are superpages (Superpages.swift), which wait
// for that flush. Leaves are rewritten freely; who takes away a right or a frame zaps the frame afterwards.
//
//      root ──▶ 512 GiB each ──▶ 1 GiB each ──▶ leaf table, 2 MiB ──▶ frame
//      47..39       38..30          29..21            20..12

internal import CKVM
public import GuestMemory

// SAFETY: every table pointer is a whole frame inside the pool, which this value keeps alive. The only tables
// followed are those this value linked itself; guests cannot write them, since no leaf ever names one.
@safe
public struct PageTables: ~Copyable {
  public let root: FrameNumber
  /// Frames of the tree, the root included; what lies in the shared supervisor half is not counted.
  public private(set) var tableCount = 1

  let memory: PoolMemory
  let history: TranslationHistory
  /// Leaf tables that their directory entries do not name, by region.
  var aside: [UInt64: AsideTable] = [:]
  var splits: [UInt64: SplitHistory] = [:]
  /// The leaf table looked up last: faults come in neighbourhoods.
  private var lastRegion: UInt64 = .max
  private var lastTable: UnsafeMutablePointer<UInt64>
  var lastIsSuperpage = false

  public static let pagesPerTable = 512

  /// - root: a zeroed frame, which this tree owns from now on.
  /// - history: that of the machine whose tree this is.
  public init(root: FrameNumber, memory: PoolMemory, history: TranslationHistory = TranslationHistory()) {
    self.root = root
    self.memory = memory
    self.history = history
    unsafe lastTable = unsafe Self.table(root, memory)
  }

  static func table(_ frame: FrameNumber, _ memory: PoolMemory) -> UnsafeMutablePointer<UInt64> {
    unsafe memory.pointer(to: frame).assumingMemoryBound(to: UInt64.self)
  }

  static func index(_ page: PageNumber, level: UInt64) -> Int { Int(page.rawValue >> (9 * level)) & 511 }

  /// The leaf table of a directory entry that has one.
  func leafTable(of entry: PageTableEntry, region: UInt64) -> FrameNumber {
    if entry.isPresent, !entry.isSuperpage { return entry.frame }
    guard let table = aside[region] else { preconditionFailure("a directory entry whose leaf table is lost") }
    return table.frame
  }

  // MARK: Tables

  /// Points a root entry at a table that other trees share.
  public mutating func shareTopLevel(index: Int, table: FrameNumber) {
    unsafe ckvm_store(Self.table(root, memory) + index, PageTableEntry(table: table).rawValue)
  }

  /// The leaf table for a page, if there is one.
  @inline(__always)
  mutating func leafTable(_ page: PageNumber) -> UnsafeMutablePointer<UInt64>? {
    let region = page.rawValue >> 9
    if region == lastRegion { return unsafe lastTable }
    guard let slot = unsafe directorySlot(page) else { return nil }
    let entry = unsafe PageTableEntry(rawValue: ckvm_load(slot))
    guard entry.hasTable else { return nil }
    lastRegion = region
    lastIsSuperpage = entry.isSuperpage
    unsafe lastTable = unsafe Self.table(leafTable(of: entry, region: region), memory)
    return unsafe lastTable
  }

  /// The leaf table for a page, one of whose leaves is about to change: a superpage is detached first.
  @inline(__always)
  private mutating func changingLeafTable(_ page: PageNumber, _ cause: SplitCause) -> UnsafeMutablePointer<UInt64>? {
    guard let table = unsafe leafTable(page) else { return nil }
    if lastIsSuperpage { detach(page, cause) }
    return unsafe table
  }

  /// Where the directory entry of a page's region is, if there is that directory.
  @inline(__always)
  func directorySlot(_ page: PageNumber) -> UnsafeMutablePointer<UInt64>? {
    var table = unsafe Self.table(root, memory)
    for level in stride(from: UInt64(3), through: 2, by: -1) {
      let entry = unsafe PageTableEntry(rawValue: ckvm_load(table + Self.index(page, level: level)))
      guard entry.isPresent else { return nil }
      unsafe table = unsafe Self.table(entry.frame, memory)
    }
    return unsafe table + Self.index(page, level: 1)
  }

  /// How many tables `page` still needs: 0...3.
  public mutating func missingTables(for page: PageNumber) -> Int {
    var table = root
    for level in stride(from: UInt64(3), to: 0, by: -1) {
      let entry = unsafe PageTableEntry(rawValue: ckvm_load(Self.table(table, memory) + Self.index(page, level: level)))
      guard entry.hasTable else { return Int(level) }
      if level > 1 { table = entry.frame }
    }
    return 0
  }

  /// Links the tables that `page` needs, each from a zeroed frame.
  /// - Returns: false when `takeFrame` has none; what was linked stays, and is used by the next attempt.
  public mutating func makeTables(for page: PageNumber, takeFrame: () -> FrameNumber?) -> Bool {
    guard let slot = unsafe makeDirectories(for: page, takeFrame: takeFrame) else { return false }
    return unsafe PageTableEntry(rawValue: ckvm_load(slot)).hasTable || makeTable(at: slot, takeFrame) != nil
  }

  /// Links the two directories above a leaf table; gives the entry that is to name it.
  mutating func makeDirectories(
    for page: PageNumber, takeFrame: () -> FrameNumber?
  ) -> UnsafeMutablePointer<UInt64>? {
    var table = unsafe Self.table(root, memory)
    for level in stride(from: UInt64(3), through: 2, by: -1) {
      let slot = unsafe table + Self.index(page, level: level)
      let entry = unsafe PageTableEntry(rawValue: ckvm_load(slot))
      guard let next = entry.isPresent ? entry.frame : unsafe makeTable(at: slot, takeFrame) else { return nil }
      unsafe table = unsafe Self.table(next, memory)
    }
    return unsafe table + Self.index(page, level: 1)
  }

  private mutating func makeTable(
    at slot: UnsafeMutablePointer<UInt64>, _ takeFrame: () -> FrameNumber?
  ) -> FrameNumber? {
    guard let frame = takeTable(takeFrame) else { return nil }
    unsafe ckvm_store(slot, PageTableEntry(table: frame).rawValue)
    return frame
  }

  /// A frame for a table that is this tree's from now on.
  mutating func takeTable(_ takeFrame: () -> FrameNumber?) -> FrameNumber? {
    guard let frame = takeFrame() else { return nil }
    tableCount += 1
    return frame
  }

  /// Hands every frame of the tree to `giveFrame`, the root last. The lower half must hold no leaf any more.
  public consuming func dismantle(giveFrame: (FrameNumber) -> Void) {
    for table in aside.values { giveFrame(table.frame) }
    dismantle(table: root, level: 3, giveFrame: giveFrame)
  }

  private func dismantle(table: FrameNumber, level: Int, giveFrame: (FrameNumber) -> Void) {
    if level > 0 {
      let lowerHalf = level == 3 ? 256 : 512
      for index in 0..<lowerHalf {
        let entry = unsafe PageTableEntry(rawValue: ckvm_load(Self.table(table, memory) + index))
        guard entry.isPresent, !entry.isSuperpage else { continue }
        dismantle(table: entry.frame, level: level - 1, giveFrame: giveFrame)
      }
    }
    giveFrame(table)
  }

  // MARK: Leaves

  /// The leaf entry of a page; empty where there is no table.
  public mutating func entry(_ page: PageNumber) -> PageTableEntry {
    guard let table = unsafe leafTable(page) else { return .empty }
    return unsafe PageTableEntry(rawValue: ckvm_load(table + Self.index(page, level: 0)))
  }

  /// Writes a leaf; its tables must exist. It takes effect once the region is attached.
  public mutating func set(_ page: PageNumber, _ entry: PageTableEntry) {
    guard let table = unsafe changingLeafTable(page, .unmapped) else { preconditionFailure("no table for the page") }
    unsafe ckvm_store(table + Self.index(page, level: 0), entry.rawValue)
  }

  /// Empties a leaf and gives what it was. Accessed and dirty bits set up to this moment are in the result.
  public mutating func clear(_ page: PageNumber, _ cause: SplitCause) -> PageTableEntry {
    guard let table = unsafe changingLeafTable(page, cause) else { return .empty }
    return unsafe PageTableEntry(rawValue: ckvm_exchange(table + Self.index(page, level: 0), 0))
  }

  /// Takes the right to write from a leaf. The frame must be zapped before that holds.
  public mutating func writeProtect(_ page: PageNumber) {
    guard let table = unsafe changingLeafTable(page, .copied) else { return }
    _ = unsafe ckvm_and(
      table + Self.index(page, level: 0), ~(PageTableEntry.writable | PageTableEntry.suspected))
  }

  /// Notes in a leaf that a fault found it as it should be.
  /// - Returns: whether that had been noted, and the leaf has not changed since.
  public mutating func suspect(_ page: PageNumber) -> Bool {
    guard let table = unsafe leafTable(page) else { return false }
    let before = unsafe ckvm_or(table + Self.index(page, level: 0), PageTableEntry.suspected)
    return before & PageTableEntry.suspected != 0
  }

  /// Entries that one search looks at, at most: a task can make as many empty tables as there are frames.
  public static let searchLimit = 1 << 15

  /// The first page in `page ..< end` with a present leaf, skipping absent tables whole.
  /// - Returns: nil when there is none; a page without a leaf, to go on from, when the search took too long.
  public func firstPresent(from page: PageNumber, to end: PageNumber) -> PageNumber? {
    var page = page
    var budget = Self.searchLimit
    while page < end, budget > 0 {
      var table = root
      var level: UInt64 = 3
      while true {
        let first = Self.index(page, level: level)
        let index = firstPresentEntry(table, from: first)
        budget -= index - first + 1
        if index > first { page = PageNumber((page.rawValue >> (9 * level) + UInt64(index - first)) << (9 * level)) }
        if index == Self.pagesPerTable || page >= end { break }
        if level == 0 { return page }
        let entry = unsafe PageTableEntry(rawValue: ckvm_load(Self.table(table, memory) + index))
        table = level == 1 ? leafTable(of: entry, region: page.rawValue >> 9) : entry.frame
        level -= 1
      }
    }
    return page < end ? page : nil
  }

  private func firstPresentEntry(_ table: FrameNumber, from first: Int) -> Int {
    let entries = unsafe Self.table(table, memory)
    var index = first
    while index < Self.pagesPerTable, unsafe !PageTableEntry(rawValue: ckvm_load(entries + index)).hasTable {
      index += 1
    }
    return index
  }

  /// How many pages from `page` on have no present leaf: up to `limit`, and not past the end of the leaf table.
  public mutating func absentRun(from page: PageNumber, limit: Int) -> Int {
    guard let table = unsafe leafTable(page) else { return 0 }
    let first = Self.index(page, level: 0)
    let most = min(limit, Self.pagesPerTable - first)
    var count = 0
    while count < most, unsafe ckvm_load(table + first + count) & PageTableEntry.present == 0 { count += 1 }
    return count
  }
}
