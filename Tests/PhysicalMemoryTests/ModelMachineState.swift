// What the model of the machine consists of, and the rules that the server is held to.

import GuestMemory
import PhysicalMemory

/// A table of one address space: at level 1 a leaf table, for 2 MiB; at level 3 one for 512 GiB.
struct TableName: Hashable {
  let level: Int
  let region: UInt64

  init(level: Int, _ page: PageNumber) {
    self.level = level
    region = page.rawValue >> UInt64(9 * level)
  }

  /// All that a page needs but the root.
  static func all(for page: PageNumber) -> [TableName] { (1...3).reversed().map { TableName(level: $0, page) } }
}

struct ModelSpace {
  let root: FrameNumber
  var isOpen = true
  var tables: [TableName: FrameNumber] = [:]
  private(set) var leaves: [PageNumber: MappedPage] = [:]
  /// The keys of `leaves` in order.
  private var order: [PageNumber] = []

  init(root: FrameNumber) { self.root = root }

  var tableCount: Int { tables.count + 1 }

  private func position(_ page: PageNumber) -> Int {
    var low = 0
    var high = order.count
    while low < high {
      let middle = (low + high) / 2
      if order[middle] < page { low = middle + 1 } else { high = middle }
    }
    return low
  }

  func firstLeaf(from page: PageNumber, to end: PageNumber) -> PageNumber? {
    let position = position(page)
    return position < order.count && order[position] < end ? order[position] : nil
  }

  mutating func setLeaf(_ page: PageNumber, _ leaf: MappedPage?) {
    let old = leaves[page]
    leaves[page] = leaf
    if old == nil, leaf != nil { order.insert(page, at: position(page)) }
    if old != nil, leaf == nil { order.remove(at: position(page)) }
  }
}

struct ModelMachineState {
  static let zeros = [UInt8](repeating: 0, count: 4096)

  var spaces: [TaskSlot: ModelSpace] = [:]
  /// Tables of spaces taken apart, which wait until nothing remembers what they were.
  var retired: [FrameNumber] = []
  /// Frames that are not all zero.
  var frames: [FrameNumber: [UInt8]] = [:]
  /// The translations that a processor could still use, and the same by frame.
  private var remembered: [Place: MappedPage] = [:]
  private var places: [FrameNumber: Set<Place>] = [:]
  /// Places of which more is remembered than their leaves permit, by the frame that they still reach.
  private var stale: [FrameNumber: Set<Place>] = [:]
  private(set) var violations: [String] = []
  var wishes = 0
  var framesZapped = 0

  /// The first few; one mistake often shows many times.
  mutating func report(_ violation: String) {
    if violations.count < 20 { violations.append(violation) }
  }

  func leaf(_ place: Place) -> MappedPage? { spaces[place.slot]?.leaves[place.page] }
  func bytes(_ frame: FrameNumber) -> [UInt8] { frames[frame] ?? Self.zeros }

  // MARK: Translations

  private mutating func remember(_ place: Place, _ leaf: MappedPage) {
    forget(place)
    remembered[place] = leaf
    places[leaf.frame, default: []].insert(place)
    compare(place)
  }

  private mutating func forget(_ place: Place) {
    guard let old = remembered.removeValue(forKey: place) else { return }
    places[old.frame]?.remove(place)
    stale[old.frame]?.remove(place)
  }

  private func isStale(_ place: Place) -> Bool {
    guard let old = remembered[place] else { return false }
    return stale[old.frame]?.contains(place) == true
  }

  /// Compares what is remembered of a place with its leaf, one of which has changed.
  private mutating func compare(_ place: Place) {
    guard let old = remembered[place] else { return }
    if let leaf = leaf(place), leaf.frame == old.frame, old.rights.isSubset(of: leaf.rights) {
      stale[old.frame]?.remove(place)
    } else {
      stale[old.frame, default: []].insert(place)
    }
  }

  /// Changes a leaf, or takes it away.
  mutating func setLeaf(_ place: Place, _ leaf: MappedPage?) {
    spaces[place.slot]?.setLeaf(place.page, leaf)
    compare(place)
  }

  /// Where an access of the task lands; nil: a page fault.
  mutating func translate(_ place: Place, _ access: Access) -> FrameNumber? {
    if let old = remembered[place], old.rights.contains(access.flag) {
      if isStale(place) { report("\(place) was accessed through a translation that should have been zapped") }
      return old.frame
    }
    guard let leaf = leaf(place), leaf.rights.contains(access.flag) else { return nil }
    remember(place, leaf)
    return leaf.frame
  }

  mutating func map(_ place: Place, _ leaf: MappedPage) {
    if spaces[place.slot]?.isOpen != true { report("\(place) is mapped in a space that is not open") }
    for name in TableName.all(for: place.page) where spaces[place.slot]?.tables[name] == nil {
      report("\(place) is mapped without a table at level \(name.level)")
    }
    if leaf.frame.isNone { report("\(place) is mapped to no frame") }
    if !leaf.rights.contains(.read) { report("\(place) is mapped without the right to read") }
    if let old = self.leaf(place), old.frame != leaf.frame || !old.rights.isSubset(of: leaf.rights) {
      report("\(place) is mapped over a leaf that was there")
    }
    setLeaf(place, leaf)
    if isStale(place) { report("\(place) is mapped, and a translation from before was not zapped") }
    checkBacked(leaf.frame, "is mapped")
    remember(place, leaf)
  }

  /// From here on only what the leaves say now can be remembered of the frame, and it is, at once.
  mutating func zap(_ frame: FrameNumber) {
    for place in places[frame] ?? [] {
      forget(place)
      if let leaf = leaf(place), leaf.frame == frame { remember(place, leaf) }
    }
  }

  /// The slot's task has ended: nothing of it may be left.
  mutating func close(_ slot: TaskSlot) {
    guard let space = spaces[slot], space.isOpen else { return report("closing what is not open") }
    if !space.leaves.isEmpty { report("slot \(slot.rawValue) is closed with \(space.leaves.count) leaves") }
    for place in remembered.keys where place.slot == slot { report("\(place) is closed and was not zapped") }
    spaces[slot]?.isOpen = false
  }

  // MARK: What may be done to a frame

  /// Somebody may use the frame, but nobody whose leaf was taken away.
  mutating func checkBacked(_ frame: FrameNumber, _ what: String) {
    for place in stale[frame] ?? [] {
      report("frame \(frame.rawValue) \(what) while \(place) reaches it through a translation that was not zapped")
    }
  }

  mutating func checkUnreachable(_ frame: FrameNumber, _ what: String) {
    for place in places[frame] ?? [] { report("frame \(frame.rawValue) \(what) while \(place) reaches it") }
  }

  mutating func checkNobodyWrites(_ frame: FrameNumber) {
    for place in places[frame] ?? [] where remembered[place]?.rights.contains(.write) == true {
      report("frame \(frame.rawValue) is copied while \(place) may write it")
    }
  }

  // MARK: Tables

  mutating func useAsTable(_ frame: FrameNumber) {
    checkUnreachable(frame, "becomes a table")
    if bytes(frame) != Self.zeros { report("frame \(frame.rawValue) becomes a table and is not zero") }
    frames[frame] = [UInt8](repeating: 0xee, count: 4096)
  }

  mutating func retire(_ slot: TaskSlot) {
    guard let space = spaces.removeValue(forKey: slot) else { return }
    retired += [space.root] + space.tables.values
  }
}

extension Access {
  var flag: MappingFlags {
    switch self {
    case .read: .read
    case .write: .write
    case .execute: .execute
    }
  }
}
