// An address space of the model machine: its tables, and for each page the current leaf and the one remembered.

internal import GuestMemory
internal import PhysicalMemory

/// A table of an address space. Level 1 is a leaf table, for 2 MiB; level 3 covers 512 GiB.
struct TableName: Hashable {
  let level: Int
  let region: UInt64

  init(level: Int, _ page: PageNumber) {
    self.level = level
    region = page.rawValue >> UInt64(9 * level)
  }
}

/// A page of a leaf table: the current leaf, and the translation that a processor may still use.
struct LeafEntry {
  var leaf = MappedPage(frame: .none, rights: [])
  /// Without a frame: nothing is remembered.
  var remembered = MappedPage(frame: .none, rights: [])
  /// A fault found the leaf in order, and it has not changed since.
  var isSuspected = false
  /// The remembered translation permits more than the leaf.
  var isStale = false
  /// The next entry that remembers the same frame; 0: none.
  var next: UInt32 = 0
  var previous: UInt32 = 0

  var hasLeaf: Bool { !leaf.frame.isNone }
}

/// An address space of the model machine.
struct ModelSpace {
  struct LeafTable {
    let region: UInt64
    /// Index of the first of its 512 entries.
    let firstEntry: Int
    /// A bit for each page with a leaf.
    var present = [UInt64](repeating: 0, count: 8)
  }

  /// False: the slot has no space, not even a kept one.
  var isThere = false
  var isOpen = false
  /// All tables' frames, including the root's.
  var frames: [FrameNumber] = []
  var tables: [TableName] = []
  /// The leaf tables by region.
  var leafTables: [LeafTable] = []
  var leafCount = 0
  var rememberedCount = 0

  @inline(__always)
  func leafTable(_ page: PageNumber) -> Int? {
    let region = page.rawValue >> 9
    for index in leafTables.indices where leafTables[index].region == region { return index }
    return nil
  }

  mutating func add(_ table: LeafTable) {
    leafTables.insert(table, at: leafTables.firstIndex { $0.region > table.region } ?? leafTables.count)
  }

  mutating func setPresent(_ page: PageNumber, _ isPresent: Bool) {
    guard let table = leafTable(page) else { return }
    let offset = Int(page.rawValue & 511)
    let bit: UInt64 = 1 << UInt64(offset % 64)
    leafTables[table].present[offset / 64] = leafTables[table].present[offset / 64] & ~bit | (isPresent ? bit : 0)
    leafCount += isPresent ? 1 : -1
  }
}
