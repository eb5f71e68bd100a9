// The naive model of page tables and the machine's own frames.

internal import GuestMemory
internal import PhysicalMemory

extension Model {
  /// Makes the tables that a page lacks, if necessary from the tables kept for closed slots.
  mutating func makeTables(_ task: ModelTask, _ page: PageNumber) throws(CallFailure) {
    if tables.has(1, task.slot, page) || linkTables(task, page) { return }
    tables.releaseClosed()
    if !linkTables(task, page) { throw lackTables(task) }
  }

  private mutating func linkTables(_ task: ModelTask, _ page: PageNumber) -> Bool {
    for level in [3, 2, 1] where !tables.has(level, task.slot, page) {
      guard let area = takeTable(task) else { return false }
      tables.add(level, task.slot, page, area)
    }
    return true
  }

  /// Takes a table from the reserve within the task's quota, otherwise from unclaimed frames.
  private mutating func takeTable(_ task: ModelTask) -> ModelArea? {
    let taken = tasks.reduce(0) { $0 + $1.reservedTables }
    let isExtra = task.reservedTables >= 32 + max(claim(task), allocated(task)) / 256 || taken >= tables.reserved
    guard !isExtra || withdraw(task) else { return nil }
    guard let area = findTableFrame() else {
      // Kept for the retry.
      if isExtra { task.withdrawn += 1 }
      return nil
    }
    tables.count(area, 1)
    if isExtra { task.extraTables += 1 } else { task.reservedTables += 1 }
    return area
  }

  mutating func openSpace(_ task: ModelTask) throws(CallFailure) {
    guard !task.hasSpace else { return }
    let kept = tables.reopen(task.slot)
    if kept == nil || !takeKept(kept ?? 0, task) {
      if kept != nil { tables.close(task.slot) }
      var area = kept == nil ? takeTable(task) : nil
      if area == nil {
        tables.releaseClosed()
        area = takeTable(task)
      }
      guard let area else { throw lackTables(task) }
      tables.open(task.slot, area)
    }
    task.hasSpace = true
  }

  /// Takes tables from the reserve as far as it goes, then from unclaimed frames.
  private mutating func takeKept(_ kept: Int, _ task: ModelTask) -> Bool {
    let beyond = max(0, kept - (tables.reserved - tasks.reduce(0) { $0 + $1.reservedTables }))
    guard beyond == 0 || withdraw(task, beyond) else { return false }
    task.reservedTables += kept - beyond
    task.extraTables += beyond
    return true
  }

  private mutating func lackTables(_ task: ModelTask) -> CallFailure { lack(task, min(3, unclaimed)) }

  /// Takes a frame for the machine, permanently.
  mutating func takeMachineFrame() -> Bool {
    guard min(unclaimed, notAllocated) > 0 else {
      tables.releaseClosed()
      return false
    }
    var found = findTableFrame()
    if found == nil {
      tables.releaseClosed()
      found = findTableFrame()
    }
    guard let area = found else { return false }
    tables.count(area, 1)
    machineFrames.append(area)
    return true
  }

  mutating func giveMachineFrame() {
    guard let area = machineFrames.popLast() else { return }
    tables.count(area, -1)
    serveRequests()
  }
}

/// The area of a frame.
enum ModelArea {
  case contents
  /// The pool's last frames, for page tables.
  case tableArea
}

/// Page tables, as far as they use frames.
struct ModelTables {
  private struct Space {
    var isOpen = true
    var names: [TableName] = []
    /// Areas of these tables and the root.
    var areas: [ModelArea]
  }

  /// The reserve for page tables.
  let reserved: Int
  private let kept: Int
  private(set) var used = 0
  /// Used tables inside the area for page tables.
  private(set) var usedOfArea = 0
  private var spaces: [TaskSlot: Space] = [:]
  /// Tables of spaces that were freed.
  private var retired: [ModelArea] = []

  init(frames: Int, kept: Int) {
    reserved = max(32, frames / 64)
    self.kept = kept
  }

  mutating func count(_ area: ModelArea, _ change: Int) {
    used += change
    if area == .tableArea { usedOfArea += change }
  }

  /// Reopens the space kept for a slot.
  /// - Returns: its number of tables; nil: none is kept.
  mutating func reopen(_ slot: TaskSlot) -> Int? {
    spaces[slot]?.isOpen = true
    return spaces[slot].map { $0.names.count + 1 }
  }

  mutating func open(_ slot: TaskSlot, _ area: ModelArea) { spaces[slot] = Space(areas: [area]) }

  mutating func close(_ slot: TaskSlot) {
    spaces[slot]?.isOpen = false
    if let space = spaces[slot], space.names.count + 1 > kept { retire(slot, space) }
  }

  private mutating func retire(_ slot: TaskSlot, _ space: Space) {
    retired += space.areas
    spaces[slot] = nil
  }

  mutating func releaseClosed() {
    for (slot, space) in spaces where !space.isOpen { retire(slot, space) }
    for area in retired { count(area, -1) }
    retired = []
  }

  func has(_ level: Int, _ slot: TaskSlot, _ page: PageNumber) -> Bool {
    spaces[slot]?.names.contains(TableName(level: level, page)) == true
  }

  mutating func add(_ level: Int, _ slot: TaskSlot, _ page: PageNumber, _ area: ModelArea) {
    spaces[slot]?.names.append(TableName(level: level, page))
    spaces[slot]?.areas.append(area)
  }
}
