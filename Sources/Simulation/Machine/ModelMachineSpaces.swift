// The model machine's address spaces as a whole, and the checks on frames that they may reach.

internal import GuestMemory
internal import PhysicalMemory

extension ModelMachineState {
  // MARK: Spaces and tables

  /// - Returns: number of tables of the kept space; nil: none is kept.
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

  /// The highest-level table that a page lacks; nil: none.
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
    checkUnseen(frame, "becomes a table")
    if !memory.isZero(frame) { report("frame \(frame.rawValue) becomes a table and is not zero") }
    memory.fill(frame, 0xee)
  }

  /// Closes the space of an ended task. No leaf may be left.
  mutating func close(_ slot: TaskSlot, tablesKept: Int) {
    guard let index = space(slot), spaces[index].isOpen else {
      return report("closing a space that is not open")
    }
    let space = spaces[index]
    if space.leafCount > 0 { report("slot \(slot.rawValue) is closed with \(space.leafCount) leaves") }
    if space.rememberedCount > 0 {
      for table in space.leafTables {
        for entry in table.firstEntry..<table.firstEntry + 512 where !entries[entry].remembered.frame.isNone {
          report("\(place(entry)) is closed before it was zapped")
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

  /// Takes the tables of all closed spaces, which cease to exist.
  mutating func takeClosed() -> [FrameNumber] {
    for index in spaces.indices where spaces[index].isThere && !spaces[index].isOpen { retire(index) }
    defer { retired = [] }
    return retired
  }

  var keptTables: [FrameNumber] {
    spaces.reduce(retired) { $1.isThere && !$1.isOpen ? $0 + $1.frames : $0 }
  }

  // MARK: Checks on frames

  /// Checks that no removed leaf's translation still reaches the frame. Current leaves may.
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
