// The page tables of one address space, in frames of the pool.
//
// A directory entry, once written, never changes while the tree lives: KVM may keep a shadow of it that
// only a flush of all translations removes. Superpages (Superpages.swift) are the one exception, and wait
// for that flush. Leaves are rewritten freely; the caller zaps the frame after it takes away a right or a frame.
//
//      root ──▶ 512 GiB each ──▶ 1 GiB each ──▶ leaf table, 2 MiB ──▶ frame
//      47..39       38..30          29..21            20..12

internal import CKVM
public import GuestMemory

// SAFETY: every table pointer is a whole frame inside the pool, which this value keeps alive. It follows only
// tables that it has linked itself; guests cannot write them, since no leaf ever names one.
@safe
public struct PageTables: ~Copyable {
  public let root: FrameNumber
  /// Frames of the tree, the root included; the shared supervisor half is not counted.
  public private(set) var tableCount = 1

  let memory: PoolMemory
  let history: TranslationHistory
  /// Leaf tables detached from their directory entries, by region.
  var aside: [UInt64: AsideTable] = [:]
  var splits: [UInt64: SplitHistory] = [:]
  /// The region of the last leaf table looked up: faults are local.
  private var lastRegion: UInt64 = .max
  private var lastTable: UnsafeMutablePointer<UInt64>
  var lastIsSuperpage = false

  public static let pagesPerTable = 512

  /// - root: a zeroed frame, which this tree owns from now on.
  /// - history: shared by all trees of the machine.
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

  /// Points a root entry at a table shared with other trees.
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

  /// The leaf table for a page of which a leaf is about to change: detaches a superpage first.
  @inline(__always)
  private mutating func changingLeafTable(_ page: PageNumber, _ cause: SplitCause) -> UnsafeMutablePointer<UInt64>? {
    guard let table = unsafe leafTable(page) else { return nil }
    if lastIsSuperpage { detach(page, cause) }
    return unsafe table
  }

  /// The address of the directory entry of a page's region, if its directory exists.
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
  /// - Returns: false if `takeFrame` has none; tables linked so far stay, for the next attempt.
  public mutating func makeTables(for page: PageNumber, takeFrame: () -> FrameNumber?) -> Bool {
    guard let slot = unsafe makeDirectories(for: page, takeFrame: takeFrame) else { return false }
    return unsafe PageTableEntry(rawValue: ckvm_load(slot)).hasTable || makeTable(at: slot, takeFrame) != nil
  }

  /// Links the two directories above a leaf table; returns the entry that is to name it.
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

  /// A frame for a table, owned by this tree from now on.
  mutating func takeTable(_ takeFrame: () -> FrameNumber?) -> FrameNumber? {
    guard let frame = takeFrame() else { return nil }
    tableCount += 1
    return frame
  }

  /// Passes every frame of the tree to `giveFrame`, the root last. The lower half must hold no leaf any more.
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

  /// The leaf entry of a page; empty if there is no table.
  public mutating func entry(_ page: PageNumber) -> PageTableEntry {
    guard let table = unsafe leafTable(page) else { return .empty }
    return unsafe PageTableEntry(rawValue: ckvm_load(table + Self.index(page, level: 0)))
  }

  /// Writes a leaf; its tables must exist. If the region is detached, it takes effect at the attach.
  public mutating func set(_ page: PageNumber, _ entry: PageTableEntry) {
    guard let table = unsafe changingLeafTable(page, .unmapped) else { preconditionFailure("no table for the page") }
    unsafe ckvm_store(table + Self.index(page, level: 0), entry.rawValue)
  }

  /// Clears a leaf and returns its old value, with accessed and dirty bits set up to this moment.
  public mutating func clear(_ page: PageNumber, _ cause: SplitCause) -> PageTableEntry {
    guard let table = unsafe changingLeafTable(page, cause) else { return .empty }
    return unsafe PageTableEntry(rawValue: ckvm_exchange(table + Self.index(page, level: 0), 0))
  }

  /// Makes a leaf read-only. Takes effect only after the frame is zapped.
  public mutating func writeProtect(_ page: PageNumber) {
    guard let table = unsafe changingLeafTable(page, .copied) else { return }
    _ = unsafe ckvm_and(
      table + Self.index(page, level: 0), ~(PageTableEntry.writable | PageTableEntry.suspected))
  }

  /// Marks a leaf that a fault found correct.
  /// - Returns: whether it was marked already, and has not changed since.
  public mutating func suspect(_ page: PageNumber) -> Bool {
    guard let table = unsafe leafTable(page) else { return false }
    let before = unsafe ckvm_or(table + Self.index(page, level: 0), PageTableEntry.suspected)
    return before & PageTableEntry.suspected != 0
  }

  /// The maximum of entries that one search visits: a task can make as many empty tables as there are frames.
  public static let searchLimit = 1 << 15

  /// The first page in `page ..< end` with a present leaf; skips absent tables as a whole.
  /// - Returns: nil if there is none; at the search limit, a page without a leaf at which to continue.
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

  /// The number of pages from `page` on without a present leaf: up to `limit`, and not past the end of the leaf table.
  public mutating func absentRun(from page: PageNumber, limit: Int) -> Int {
    guard let table = unsafe leafTable(page) else { return 0 }
    let first = Self.index(page, level: 0)
    let most = min(limit, Self.pagesPerTable - first)
    var count = 0
    while count < most, unsafe ckvm_load(table + first + count) & PageTableEntry.present == 0 { count += 1 }
    return count
  }
}
