// The state of the model machine, and the rules that the server must keep. Everything is in arrays: a simulation
// performs millions of these steps a second.

internal import GuestMemory
package import PhysicalMemory

/// The state of the model machine.
struct ModelMachineState: ~Copyable {
  var memory: FrameMemory
  var now: UInt64 = 1_000_000_000
  private var woken: [Bool] = []
  var processorTimes: [TaskSlot: UInt64] = [:]
  /// How many more steps of calls a task makes before it must stop.
  var stopping: [TaskSlot: Int] = [:]
  var asked: [TaskSlot] = []
  var dropped: [TaskSlot] = []
  var spaces: [ModelSpace] = []
  /// Tables of freed spaces, which wait until no translation remembers them.
  var retired: [FrameNumber] = []

  /// The entries of all leaf tables, 512 each. The first table, and so entry 0, is unused.
  var entries = [LeafEntry](repeating: LeafEntry(), count: 512)
  /// The place of each table's first page.
  var tablePlaces = [Place(TaskSlot(.max), PageNumber(0))]
  var freeTables: [Int] = []
  /// For each frame the first entry that remembers it; 0: none.
  var rememberers: [UInt32]

  /// For each frame, the visits during which writable leaves changed without a settle since.
  var unsettled: [FrameNumber: Set<UInt64>] = [:]
  var settles = 0
  /// Current visits.
  var visits: [TaskSlot: Visit] = [:]
  var visitCount: UInt64 = 0
  var hurries = 0
  var watches = 0
  /// For each frame, the visits during which its leaves were removed. Some may have ended.
  var seenIn: [FrameNumber: [Visit]] = [:]

  private let keepsLog: Bool
  /// Superpages by their first pages.
  var superpages: Set<Place> = []
  var superpageCounts = SuperpageCounts()

  /// Leaves written and removed since last asked.
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

  /// Keeps only the first few: one mistake often causes many reports.
  mutating func report(_ violation: String) {
    if violations.count < 20 { violations.append(violation) }
  }

  mutating func mustStop(_ slot: TaskSlot) -> Bool {
    guard let left = stopping[slot] else { return false }
    stopping[slot] = max(0, left - 1)
    return left == 0
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

  func space(_ slot: TaskSlot) -> Int? {
    let index = Int(slot.rawValue)
    return index < spaces.count && spaces[index].isThere ? index : nil
  }

  /// Index of a page's entry; 0: it has no leaf table.
  @inline(__always)
  func entry(_ slot: TaskSlot, _ page: PageNumber) -> Int {
    let space = Int(slot.rawValue)
    guard space < spaces.count, let table = spaces[space].leafTable(page) else { return 0 }
    return spaces[space].leafTables[table].firstEntry + Int(page.rawValue & 511)
  }

  func place(_ entry: Int) -> Place {
    let table = tablePlaces[entry / 512]
    return Place(table.slot, table.page.advanced(by: entry % 512))
  }

  @inline(__always)
  func leaf(_ slot: TaskSlot, _ page: PageNumber) -> MappedPage? {
    let entry = entry(slot, page)
    return entries[entry].hasLeaf ? entries[entry].leaf : nil
  }

  // MARK: Translations

  mutating func remember(_ entry: Int, _ leaf: MappedPage) {
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

  mutating func forget(_ entry: Int) {
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

  /// Compares the remembered translation of a page with its changed leaf.
  mutating func compare(_ entry: Int) {
    let old = entries[entry].remembered
    guard !old.frame.isNone else { return }
    let leaf = entries[entry].leaf
    entries[entry].isStale = !(leaf.frame == old.frame && old.rights.isSubset(of: leaf.rights))
  }

  /// The frame that a task's access reaches; nil: a page fault.
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

  /// Forgets translations of the frame. The current leaves are remembered again at once.
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

  /// Changes or removes a leaf.
  mutating func setLeaf(_ place: Place, _ entry: Int, _ leaf: MappedPage?) {
    let space = Int(place.slot.rawValue)
    let had = entries[entry].hasLeaf
    entries[entry].leaf = leaf ?? MappedPage(frame: .none, rights: [])
    entries[entry].isSuspected = false
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
        report("\(place) is mapped without a table of level \(level)")
      }
      return
    }
    if leaf.frame.isNone { report("\(place) is mapped to no frame") }
    if !leaf.rights.contains(.read) { report("\(place) is mapped without the right to read") }
    let old = entries[entry].leaf
    if !old.frame.isNone, old.frame != leaf.frame || !old.rights.isSubset(of: leaf.rights) {
      report("\(place) is mapped over a present leaf")
    }
    setLeaf(place, entry, leaf)
    if entries[entry].isStale { report("\(place) is mapped before its old translation was zapped") }
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

  /// Whether the leaves of the aligned 512 pages name aligned consecutive frames with equal rights.
  func canBeSuperpage(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    guard page.rawValue % 512 == 0, let first = leaf(slot, page), first.frame.rawValue % 512 == 0 else { return false }
    return (1..<512).allSatisfy {
      leaf(slot, page.advanced(by: $0)) == MappedPage(frame: first.frame.advanced(by: $0), rights: first.rights)
    }
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
