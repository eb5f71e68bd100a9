// The naive model of superpages: which regions of 512 pages may become one, which must, and which can be gathered.

internal import GuestMemory
internal import PhysicalMemory

/// An aligned range of 512 pages that maps as many consecutive ids, writable and not executable.
struct ModelRegion {
  static let pages = 512

  let task: ModelTask
  let start: PageNumber
  let container: ModelContainer
  /// Id of the first page.
  let id: UInt32
  let mapping: ModelMapping

  var ids: ClosedRange<UInt32> { id...id + UInt32(Self.pages - 1) }

  /// Whether no page of it was ever touched.
  var isFresh: Bool { ids.allSatisfy { if case .empty = container.frames[$0] { true } else { false } } }

  /// The contents, if every page has one that it shares with no other.
  var contents: [ModelContent]? {
    var found: [ModelContent] = []
    for id in ids {
      guard case .content(let content) = container.frames[id], content.sharers == 1 else { return nil }
      found.append(content)
    }
    return found
  }
}

extension Model {
  /// Whether a region starts at `next`, in a mapping about to be made.
  func isRegion(
    _ next: PageNumber, of page: PageNumber, _ count: Int, _ task: ModelTask, _ flags: MappingFlags
  ) -> Bool {
    world.blocks > 0 && task.around == 0 && isForSuperpages(flags) && next.rawValue % 512 == 0
      && next.distance(to: page.advanced(by: count)) >= ModelRegion.pages
  }

  private func isForSuperpages(_ flags: MappingFlags) -> Bool {
    flags.effectiveRights.contains(.write) && !flags.effectiveRights.contains(.execute)
  }

  /// The region of a page.
  func region(_ task: ModelTask, _ page: PageNumber) -> ModelRegion? {
    let start = page.rawValue & ~511
    guard world.blocks > 0, task.around == 0, let first = task.mappings[start], isForSuperpages(first.flags),
      isGood(first),
      (1..<512).allSatisfy({ task.mappings[start + $0]?.follows(first, by: UInt32($0)) == true })
    else { return nil }
    return ModelRegion(
      task: task, start: PageNumber(start), container: first.container, id: first.id, mapping: first)
  }

  /// Whether a lock applies to the task itself.
  func isLocked(_ region: ModelRegion) -> Bool {
    region.container.owner == region.task.name && currentLock(region.container) != nil
  }

  /// Whether tables for a region are certainly available.
  func hasTables(_ task: ModelTask) -> Bool {
    let taken = tasks.reduce(0) { $0 + $1.reservedTables }
    return freeForTables >= 3 && tables.reserved - taken >= 3 && task.reservedTables + 3 <= 32
  }

  /// Whether a region can be gathered.
  enum Chance {
    case no, yes
    /// A pin has expired, which the server may not have noticed.
    case maybe
  }

  /// Whether the contents of these pages of a region can be moved.
  func canBeMoved(_ region: ModelRegion, _ pages: Range<Int>) -> Chance {
    var chance = Chance.yes
    for offset in pages {
      let id = region.id + UInt32(offset)
      guard case .content(let content) = region.container.frames[id], content.sharers == 1, !content.isPlaced,
        !isPinned(region.container, id)
      else { return .no }
      if region.container.pins[id] != nil { chance = .maybe }
    }
    return chance
  }
}

extension ModelMapping {
  /// Whether it maps the same as `first`, `offset` ids later.
  fileprivate func follows(_ first: ModelMapping, by offset: UInt32) -> Bool {
    container === first.container && id == first.id &+ offset && flags == first.flags && epoch == first.epoch
  }
}
