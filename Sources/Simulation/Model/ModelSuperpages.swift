// The naive model of superpages: which regions of 512 pages may be one, which have to become one, and which can be gathered.

internal import GuestMemory
internal import PhysicalMemory

/// 512 pages from an aligned one on that show as many ids in order, to be written and not executed.
struct ModelRegion {
  static let pages = 512

  let task: ModelTask
  let start: PageNumber
  let container: ModelContainer
  /// Of the first page.
  let id: UInt32
  let mapping: ModelMapping

  var ids: ClosedRange<UInt32> { id...id + UInt32(Self.pages - 1) }

  /// Nothing of it was ever touched.
  var isFresh: Bool { ids.allSatisfy { if case .empty = container.frames[$0] { true } else { false } } }

  /// The contents, if all pages have one that is nobody else's.
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
  /// Whether a region begins with `next`, in a mapping that is about to be made.
  func isRegion(
    _ next: PageNumber, of page: PageNumber, _ count: Int, _ task: ModelTask, _ flags: MappingFlags
  ) -> Bool {
    world.blocks > 0 && task.around == 0 && isForSuperpages(flags) && next.rawValue % 512 == 0
      && next.distance(to: page.advanced(by: count)) >= ModelRegion.pages
  }

  private func isForSuperpages(_ flags: MappingFlags) -> Bool {
    flags.effectiveRights.contains(.write) && !flags.effectiveRights.contains(.execute)
  }

  /// The region that a page is in.
  func region(_ task: ModelTask, _ page: PageNumber) -> ModelRegion? {
    let start = page.rawValue & ~511
    guard world.blocks > 0, task.around == 0, let first = task.mappings[start], isForSuperpages(first.flags),
      isGood(first),
      (1..<512).allSatisfy({ task.mappings[start + $0]?.follows(first, by: UInt32($0)) == true })
    else { return nil }
    return ModelRegion(
      task: task, start: PageNumber(start), container: first.container, id: first.id, mapping: first)
  }

  /// The task itself cannot get at the container at the moment.
  func isLocked(_ region: ModelRegion) -> Bool {
    region.container.owner == region.task.name && currentLock(region.container) != nil
  }

  /// Whether a region's tables are there for the asking.
  func hasTables(_ task: ModelTask) -> Bool {
    let taken = tasks.reduce(0) { $0 + $1.reservedTables }
    return freeForTables >= 3 && tables.reserved - taken >= 3 && task.reservedTables + 3 <= 32
  }

  /// What may become of gathering a region.
  enum Chance {
    case no, yes
    /// A pin's time is up, which the server may not have noticed.
    case maybe
  }

  /// Whether the contents of some of a region's pages may be moved.
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
  /// Shows the same as what shows `first`, so many ids later.
  fileprivate func follows(_ first: ModelMapping, by offset: UInt32) -> Bool {
    container === first.container && id == first.id &+ offset && flags == first.flags && epoch == first.epoch
  }
}
