// One address space of the model machine: its tables, and what each page's entry says and is remembered to have said.

internal import GuestMemory
internal import PhysicalMemory

/// A table of one address space: at level 1 a leaf table, for 2 MiB; at level 3 one for 512 GiB.
struct TableName: Hashable {
  let level: Int
  let region: UInt64

  init(level: Int, _ page: PageNumber) {
    self.level = level
    region = page.rawValue >> UInt64(9 * level)
  }
}

/// A page of a leaf table: what the table says, and what a processor could still use.
struct LeafEntry {
  var leaf = MappedPage(frame: .none, rights: [])
  /// No frame: nothing is remembered.
  var remembered = MappedPage(frame: .none, rights: [])
  /// A fault found the leaf as it should be, and it has not changed since.
  var isSuspected = false
  /// More is remembered than the leaf permits.
  var isStale = false
  /// The other entries that remember the same frame; 0: none.
  var next: UInt32 = 0
  var previous: UInt32 = 0

  var hasLeaf: Bool { !leaf.frame.isNone }
}

struct ModelSpace {
  struct LeafTable {
    let region: UInt64
    /// Of its 512 entries.
    let firstEntry: Int
    /// A bit for each page with a leaf.
    var present = [UInt64](repeating: 0, count: 8)
  }

  /// Not there: a slot that has no space, not even one that is kept.
  var isThere = false
  var isOpen = false
  /// With the root.
  var frames: [FrameNumber] = []
  var tables: [TableName] = []
  /// By region.
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
