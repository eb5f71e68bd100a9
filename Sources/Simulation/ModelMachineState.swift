// What the model of the machine consists of, and the rules that the server is held to. Arrays throughout: a simulation
// does some millions of these steps a second.

internal import GuestMemory
package import PhysicalMemory

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

struct ModelMachineState: ~Copyable {
  var memory: FrameMemory
  var now: UInt64 = 1_000_000_000
  private var woken: [Bool] = []
  var processorTimes: [TaskSlot: UInt64] = [:]
  var asked: [TaskSlot] = []
  var dropped: [TaskSlot] = []
  private var spaces: [ModelSpace] = []
  /// Tables of spaces taken apart, which wait until nothing remembers what they were.
  private var retired: [FrameNumber] = []

  /// Those of all leaf tables, 512 each; entry 0 is nobody's, and so are its table's other entries.
  private var entries = [LeafEntry](repeating: LeafEntry(), count: 512)
  /// Whose entries they are, a place for 512.
  private var tablePlaces = [Place(TaskSlot(.max), PageNumber(0))]
  private var freeTables: [Int] = []
  /// For each frame an entry that remembers it; 0: none.
  private var rememberers: [UInt32]

  private let keepsLog: Bool
  /// The leaves written, and those taken away, that nobody has asked about yet.
  var written: [Place] = []
  var emptied: [Place] = []
  private(set) var violations: [String] = []
  var wishes = 0
  var framesZapped = 0

  init(frameCount: Int, keepsLog: Bool) {
    memory = FrameMemory(frameCount: frameCount)
    rememberers = Array(repeating: 0, count: frameCount)
    self.keepsLog = keepsLog
  }

  /// The first few; one mistake often shows many times.
  private mutating func report(_ violation: String) {
    if violations.count < 20 { violations.append(violation) }
  }

  mutating func wake(_ slot: TaskSlot) {
    while woken.count <= Int(slot.rawValue) { woken.append(false) }
    woken[Int(slot.rawValue)] = true
  }

  mutating func wasWoken(_ slot: TaskSlot) -> Bool {
    guard Int(slot.rawValue) < woken.count else { return false }
    defer { woken[Int(slot.rawValue)] = false }
    return woken[Int(slot.rawValue)]
  }

  // MARK: Entries

  var leafCount: Int { spaces.reduce(0) { $0 + $1.leafCount } }

  private func space(_ slot: TaskSlot) -> Int? {
    let index = Int(slot.rawValue)
    return index < spaces.count && spaces[index].isThere ? index : nil
  }

  /// Where the entry of a page is; 0: it has no leaf table.
  @inline(__always)
  private func entry(_ slot: TaskSlot, _ page: PageNumber) -> Int {
    let space = Int(slot.rawValue)
    guard space < spaces.count, let table = spaces[space].leafTable(page) else { return 0 }
    return spaces[space].leafTables[table].firstEntry + Int(page.rawValue & 511)
  }

  private func place(_ entry: Int) -> Place {
    let table = tablePlaces[entry / 512]
    return Place(table.slot, table.page.advanced(by: entry % 512))
  }

  @inline(__always)
  func leaf(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? {
    let entry = entry(slot, page)
    return entries[entry].hasLeaf ? entries[entry].leaf : nil
  }

  // MARK: Translations

  private mutating func remember(_ entry: Int, _ leaf: MappedPage) {
    forget(entry)
    let first = rememberers[Int(leaf.frame.rawValue)]
    entries[entry].remembered = leaf
    entries[entry].next = first
    entries[entry].previous = 0
    if first != 0 { entries[Int(first)].previous = UInt32(entry) }
    rememberers[Int(leaf.frame.rawValue)] = UInt32(entry)
    spaces[Int(tablePlaces[entry / 512].slot.rawValue)].rememberedCount += 1
    compare(entry)
  }

  private mutating func forget(_ entry: Int) {
    let old = entries[entry]
    guard !old.remembered.frame.isNone else { return }
    if old.previous == 0 {
      rememberers[Int(old.remembered.frame.rawValue)] = old.next
    } else {
      entries[Int(old.previous)].next = old.next
    }
    if old.next != 0 { entries[Int(old.next)].previous = old.previous }
    entries[entry].remembered = MappedPage(frame: .none, rights: [])
    entries[entry].isStale = false
    spaces[Int(tablePlaces[entry / 512].slot.rawValue)].rememberedCount -= 1
  }

  /// Compares what is remembered of a page with its leaf, one of which has changed.
  private mutating func compare(_ entry: Int) {
    let old = entries[entry].remembered
    guard !old.frame.isNone else { return }
    let leaf = entries[entry].leaf
    entries[entry].isStale = !(leaf.frame == old.frame && old.rights.isSubset(of: leaf.rights))
  }

  /// Where an access of the task lands; nil: a page fault.
  mutating func translate(_ slot: TaskSlot, _ page: PageNumber, _ access: Access) -> FrameNumber? {
    let entry = entry(slot, page)
    let old = entries[entry].remembered
    if !old.frame.isNone, old.rights.contains(access.flag) {
      if entries[entry].isStale {
        report("\(Place(slot, page)) was accessed through a translation that should have been zapped")
      }
      return old.frame
    }
    let leaf = entries[entry].leaf
    guard !leaf.frame.isNone, leaf.rights.contains(access.flag) else { return nil }
    remember(entry, leaf)
    return leaf.frame
  }

  /// From here on only what the leaves say now can be remembered of the frame, and it is, at once.
  mutating func zap(_ frame: FrameNumber) {
    var next = Int(rememberers[Int(frame.rawValue)])
    while next != 0 {
      let entry = next
      next = Int(entries[entry].next)
      if entries[entry].leaf.frame == frame {
        entries[entry].remembered = entries[entry].leaf
        entries[entry].isStale = false
      } else {
        forget(entry)
      }
    }
  }

  // MARK: Leaves

  /// Changes a leaf, or takes it away.
  private mutating func setLeaf(_ place: Place, _ entry: Int, _ leaf: MappedPage?) {
    let space = Int(place.slot.rawValue)
    let had = entries[entry].hasLeaf
    entries[entry].leaf = leaf ?? MappedPage(frame: .none, rights: [])
    if had != entries[entry].hasLeaf { spaces[space].setPresent(place.page, !had) }
    compare(entry)
  }

  mutating func map(_ place: Place, _ leaf: MappedPage) {
    guard let space = space(place.slot), spaces[space].isOpen else {
      return report("\(place) is mapped in a space that is not open")
    }
    let entry = entry(place.slot, place.page)
    guard entry != 0 else {
      for level in [3, 2, 1] where !spaces[space].tables.contains(TableName(level: level, place.page)) {
        report("\(place) is mapped without a table at level \(level)")
      }
      return
    }
    if leaf.frame.isNone { report("\(place) is mapped to no frame") }
    if !leaf.rights.contains(.read) { report("\(place) is mapped without the right to read") }
    let old = entries[entry].leaf
    if !old.frame.isNone, old.frame != leaf.frame || !old.rights.isSubset(of: leaf.rights) {
      report("\(place) is mapped over a leaf that was there")
    }
    setLeaf(place, entry, leaf)
    if entries[entry].isStale { report("\(place) is mapped, and a translation from before was not zapped") }
    checkBacked(leaf.frame, "is mapped")
    remember(entry, leaf)
    if keepsLog { written.append(place) }
  }

  mutating func unmap(_ place: Place) -> FrameNumber {
    guard let leaf = leaf(place.slot, place.page) else {
      report("unmapping \(place), which has no leaf")
      return .none
    }
    setLeaf(place, entry(place.slot, place.page), nil)
    if keepsLog { emptied.append(place) }
    return leaf.frame
  }

  mutating func writeProtect(_ place: Place) {
    guard let leaf = leaf(place.slot, place.page) else {
      return report("write-protecting \(place), which has no leaf")
    }
    let rights = leaf.rights.subtracting(.write)
    setLeaf(place, entry(place.slot, place.page), MappedPage(frame: leaf.frame, rights: rights))
  }

  func firstLeaf(_ slot: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    guard let index = space(slot) else { return nil }
    for table in spaces[index].leafTables where table.region >= page.rawValue >> 9 {
      let start = table.region << 9
      var offset = table.region == page.rawValue >> 9 ? Int(page.rawValue & 511) : 0
      while offset < 512 {
        let word = table.present[offset / 64] >> UInt64(offset % 64)
        if word != 0 {
          let found = PageNumber(start + UInt64(offset + word.trailingZeroBitCount))
          return found < end ? found : nil
        }
        offset = (offset / 64 + 1) * 64
      }
    }
    return nil
  }

  func forEachLeaf(_ slot: TaskSlot, _ body: (PageNumber, MappedPage) -> Void) {
    guard let index = space(slot) else { return }
    for table in spaces[index].leafTables {
      for word in 0..<8 {
        var bits = table.present[word]
        while bits != 0 {
          let offset = word * 64 + bits.trailingZeroBitCount
          bits &= bits - 1
          body(PageNumber(table.region << 9 + UInt64(offset)), entries[table.firstEntry + offset].leaf)
        }
      }
    }
  }

  func absentRun(_ slot: TaskSlot, from page: PageNumber, limit: Int) -> Int {
    let entry = entry(slot, page)
    guard entry != 0 else { return 0 }
    let most = min(limit, 512 - entry % 512)
    var count = 0
    while count < most, !entries[entry + count].hasLeaf { count += 1 }
    return count
  }

  // MARK: Spaces and tables

  /// - Returns: the tables of the space that was kept; nil: there is none.
  mutating func reopen(_ slot: TaskSlot) -> Int? {
    guard let space = space(slot) else { return nil }
    spaces[space].isOpen = true
    return spaces[space].frames.count
  }

  mutating func open(_ slot: TaskSlot, root: FrameNumber) {
    useAsTable(root)
    while spaces.count <= Int(slot.rawValue) { spaces.append(ModelSpace()) }
    spaces[Int(slot.rawValue)] = ModelSpace(isThere: true, isOpen: true, frames: [root])
  }

  /// The highest table that a page lacks; nil: none.
  func missingTable(_ slot: TaskSlot, _ page: PageNumber) -> TableName? {
    guard entry(slot, page) == 0, let space = space(slot) else { return nil }
    let names = [3, 2, 1].map { TableName(level: $0, page) }
    return names.first { !spaces[space].tables.contains($0) }
  }

  mutating func link(_ slot: TaskSlot, _ name: TableName, _ frame: FrameNumber) {
    useAsTable(frame)
    guard let space = space(slot) else { return }
    spaces[space].frames.append(frame)
    spaces[space].tables.append(name)
    guard name.level == 1 else { return }
    let table = ModelSpace.LeafTable(region: name.region, firstEntry: takeEntries(slot, name.region))
    spaces[space].add(table)
  }

  private mutating func takeEntries(_ slot: TaskSlot, _ region: UInt64) -> Int {
    let place = Place(slot, PageNumber(region << 9))
    if let table = freeTables.popLast() {
      tablePlaces[table] = place
      return table * 512
    }
    tablePlaces.append(place)
    entries += Array(repeating: LeafEntry(), count: 512)
    return entries.count - 512
  }

  private mutating func useAsTable(_ frame: FrameNumber) {
    checkUnreachable(frame, "becomes a table")
    if !memory.isZero(frame) { report("frame \(frame.rawValue) becomes a table and is not zero") }
    memory.fill(frame, 0xee)
  }

  /// The slot's task has ended: nothing of it may be left.
  mutating func close(_ slot: TaskSlot, tablesKept: Int) {
    guard let index = space(slot), spaces[index].isOpen else {
      return report("closing what is not open")
    }
    let space = spaces[index]
    if space.leafCount > 0 { report("slot \(slot.rawValue) is closed with \(space.leafCount) leaves") }
    if space.rememberedCount > 0 {
      for table in space.leafTables {
        for entry in table.firstEntry..<table.firstEntry + 512 where !entries[entry].remembered.frame.isNone {
          report("\(place(entry)) is closed and was not zapped")
        }
      }
    }
    spaces[index].isOpen = false
    if space.frames.count > tablesKept { retire(index) }
  }

  private mutating func retire(_ index: Int) {
    let space = spaces[index]
    for table in space.leafTables {
      for entry in table.firstEntry..<table.firstEntry + 512 {
        forget(entry)
        entries[entry] = LeafEntry()
      }
      freeTables.append(table.firstEntry / 512)
    }
    spaces[index] = ModelSpace()
    retired += space.frames
  }

  /// The tables of all closed spaces, which are no more.
  mutating func takeClosed() -> [FrameNumber] {
    for index in spaces.indices where spaces[index].isThere && !spaces[index].isOpen { retire(index) }
    defer { retired = [] }
    return retired
  }

  // MARK: What may be done to a frame

  /// Somebody may use the frame, but nobody whose leaf was taken away.
  mutating func checkBacked(_ frame: FrameNumber, _ what: String) {
    var next = Int(rememberers[Int(frame.rawValue)])
    while next != 0 {
      if entries[next].isStale {
        report("frame \(frame.rawValue) \(what) while \(place(next)) reaches it by a translation that was not zapped")
      }
      next = Int(entries[next].next)
    }
  }

  mutating func checkUnreachable(_ frame: FrameNumber, _ what: String) {
    var next = Int(rememberers[Int(frame.rawValue)])
    while next != 0 {
      report("frame \(frame.rawValue) \(what) while \(place(next)) reaches it")
      next = Int(entries[next].next)
    }
  }

  mutating func checkNobodyWrites(_ frame: FrameNumber) {
    var next = Int(rememberers[Int(frame.rawValue)])
    while next != 0 {
      if entries[next].remembered.rights.contains(.write) {
        report("frame \(frame.rawValue) is copied while \(place(next)) may write it")
      }
      next = Int(entries[next].next)
    }
  }
}

extension Access {
  package var flag: MappingFlags {
    switch self {
    case .read: .read
    case .write: .write
    case .execute: .execute
    }
  }
}
