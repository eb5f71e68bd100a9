// pm_container_map, pm_unmap and pm_mapping (R25, R27).

internal import CGuestABI
internal import GuestMemory

/// Pages of a task's half of its address space, checked to be inside it.
struct PageRange {
  let start: PageNumber
  let count: UInt64
  var end: PageNumber { PageNumber(start.rawValue + count) }

  /// PM_EINVAL: not aligned, none at all, or not inside the task's half.
  init(address: GuestAddress, count: UInt64) throws(CallFailure) {
    guard address.offsetInPage == 0, count > 0, address.rawValue >= PM_USER_START, address.rawValue < PM_USER_END,
      count <= (PM_USER_END - address.rawValue) >> 12
    else { throw .invalid }
    start = address.page
    self.count = count
  }
}

/// What pm_mapping tells.
public struct MappingInformation: Equatable, Sendable {
  public var container: Handle
  public var frame: FrameID
  public var rights: MappingFlags
  public var requested: MappingFlags
  public var physicalAddress: UInt64
}

extension ServerState {
  /// Checks a mapping: the frames are there, and there will be room for it.
  mutating func checkMapping(
    _ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange, _ pages: PageRange, _ flags: MappingFlags
  ) throws(CallFailure) -> Mapping {
    guard flags.isSubset(of: .all), !flags.effectiveRights.isEmpty else { throw .invalid }
    let access = try container(task, handle)
    let slot = access.slot
    guard containers[slot].frames.run(from: range.start, limit: range.count, inUse: true) == range.count else {
      throw .noEntry
    }
    if !access.isOwner { containers[slot].hasSharedMappings = true }
    return Mapping(
      start: pages.start, count: pages.count,
      container: ContainerReference(slot: slot, generation: containers.generation(at: slot)),
      frame: range.start, flags: flags, epoch: access.epoch)
  }

  /// Whether the task's table has room for what changing `pages` adds: an end that is cut off, and `new` mappings.
  func hasRoomForMappings(_ task: TaskSlot, _ pages: PageRange, new: Int) -> Bool {
    let added = new + (tasks[task].mappings.isCutInTwo(by: pages.start, pages.end) ? 1 : 0)
    return tasks[task].mappings.count + added <= MappingTable.capacity
  }

  /// One step of forgetting mappings of containers that were destroyed, from a place in the table on.
  /// - Returns: where to go on; nil at the table's end.
  mutating func forgetDeadMappings(_ task: TaskSlot, from position: Int) -> Int? {
    var dead = Set<ContainerReference>()
    tasks[task].mappings.forEach(chunk: position) { mapping in
      if !isLive(mapping.container) { dead.insert(mapping.container) }
    }
    return tasks[task].mappings.filter(chunk: position) { !dead.contains($0.container) }
  }

  /// One step of readying what an eager mapping could lack: page tables, and frames for contents to be copied.
  /// - Returns: where to go on; nil at the mapping's end.
  mutating func prepareEager(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber) throws(CallFailure)
    -> PageNumber?
  {
    guard isGood(mapping) else { throw .canceled }
    if !mayFillSuperpage(task, mapping, page) { try makeTables(task, for: page) }
    let end = min(mapping.end, PageNumber((page.rawValue | UInt64(FaultAround.most - 1)) + 1))
    var page = page
    if mapping.flags.contains(.forceWrite) {
      beginStep()
      repeat {
        let copies = statistics.copiesOnWrite
        try breakSharing(mapping, page)
        step.count(Work.look + (statistics.copiesOnWrite > copies ? Work.copy : 0))
        page = page.advanced(by: 1)
      } while page < end && !isStepOver && mayTakeAnother
    } else {
      page = end
    }
    return page < mapping.end ? page : nil
  }

  /// One step of emptying leaves of pages; `forgetPages` follows.
  /// - Returns: where to go on; nil: all are empty, and stay so.
  mutating func emptyPages(_ task: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    if tasks[task].unmapping == nil { tasks[task].unmapping = page..<end }
    return unmapPages(task, from: page, to: end)
  }

  /// One step of forgetting what such pages show. False: there is more to be done.
  mutating func forgetPages(_ task: TaskSlot, from start: PageNumber, to end: PageNumber) -> Bool {
    guard removeMappings(task, from: start, to: end) else { return false }
    tasks[task].unmapping = nil
    return true
  }

  /// One step of forgetting what pages show. They have no leaf any more. False: there is more to be done.
  mutating func removeMappings(_ task: TaskSlot, from start: PageNumber, to end: PageNumber) -> Bool {
    tasks[task].mappings.remove(from: start, to: end, limit: 2048)
  }

  /// Puts a mapping where there is none.
  mutating func installMapping(_ task: TaskSlot, _ mapping: Mapping) {
    tasks[task].mappings.insert(mapping)
  }

  /// Fills in leaves of a mapping from `page` on, up to the end of a leaf table.
  /// - Returns: where to go on; nil at the mapping's end, or when something is lacking: it is filled in at the next
  ///   access then.
  mutating func fillNext(_ task: TaskSlot, _ page: PageNumber, to end: PageNumber) -> PageNumber? {
    guard page < end, let index = tasks[task].mappings.find(page) else { return nil }
    let mapping = tasks[task].mappings[index]
    guard isGood(mapping), currentLock(mapping, against: task) == nil else { return nil }
    if let next = fillSuperpage(task, mapping, page) { return next }
    let left = Int(min(end.rawValue - page.rawValue, UInt64(FaultAround.most)))
    var absent = spaces.absentRun(task, from: page, limit: left)
    if absent == 0 {
      if spaces.mappedPage(task, page) != nil { return page.advanced(by: 1) }
      // It was to be a superpage, or the tables are gone.
      guard (try? makeTables(task, for: page)) != nil else { return nil }
      absent = spaces.absentRun(task, from: page, limit: left)
    }
    guard let filled = try? fill(task, mapping, page, most: absent) else { return nil }
    return page.advanced(by: filled)
  }

  /// PM_ENOENT where nothing is mapped, or only a frame that is no longer allocated.
  mutating func mappingInformation(_ task: TaskSlot, address: GuestAddress) throws(CallFailure) -> MappingInformation {
    let page = address.page
    guard let index = tasks[task].mappings.find(page) else { throw .noEntry }
    let mapping = tasks[task].mappings[index]
    guard isGood(mapping) else { throw .noEntry }
    let id = mapping.frame(at: page)
    let word = containers[mapping.container.slot].frames[id]
    guard word.isUsed else { throw .noEntry }
    return MappingInformation(
      container: containers[mapping.container.slot].owner == task ? containers[mapping.container.slot].handle : 0,
      frame: id,
      rights: spaces.mappedPage(task, page)?.rights ?? [],
      requested: mapping.flags,
      physicalAddress: word.content.map { contents[$0].frame.address } ?? 0)
  }
}
