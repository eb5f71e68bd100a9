// Steps of pm_container_map, pm_unmap and pm_mapping (R25, R27).

internal import CGuestABI
internal import GuestMemory

/// A page range, checked to be in the task's half of the address space.
struct PageRange {
  let start: PageNumber
  let count: UInt64
  var end: PageNumber { PageNumber(start.rawValue + count) }

  /// - Throws: `.invalid` when the range is not aligned, empty, or not in the task's half.
  init(address: GuestAddress, count: UInt64) throws(CallFailure) {
    guard address.offsetInPage == 0, count > 0, address.rawValue >= PM_USER_START, address.rawValue < PM_USER_END,
      count <= (PM_USER_END - address.rawValue) >> 12
    else { throw .invalid }
    start = address.page
    self.count = count
  }
}

/// The result of pm_mapping (R27).
public struct MappingInformation: Equatable, Sendable {
  /// The caller's handle of the container; 0 when the caller does not own it.
  public var container: Handle
  /// The id mapped at the address.
  public var frame: FrameID
  /// The rights in force in the page table.
  public var rights: MappingFlags
  /// The rights requested by pm_container_map.
  public var requested: MappingFlags
  /// The frame's address in bytes; 0 without a frame.
  public var physicalAddress: UInt64
}

extension ServerState {
  /// Checks the flags of a mapping, and that its ids are in use.
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

  /// Whether the task's table has room for the mappings that a change of `pages` adds: a cut-off end, and `new`
  /// mappings.
  func hasRoomForMappings(_ task: TaskSlot, _ pages: PageRange, new: Int) -> Bool {
    let added = new + (tasks[task].mappings.isCutInTwo(by: pages.start, pages.end) ? 1 : 0)
    return tasks[task].mappings.count + added <= MappingTable.capacity
  }

  /// One step of forgetting mappings of destroyed containers, from a position in the table on.
  /// - Returns: the position to continue from; nil at the end.
  mutating func forgetDeadMappings(_ task: TaskSlot, from position: Int) -> Int? {
    var dead = Set<ContainerReference>()
    tasks[task].mappings.forEach(chunk: position) { mapping in
      if !isLive(mapping.container) { dead.insert(mapping.container) }
    }
    return tasks[task].mappings.filter(chunk: position) { !dead.contains($0.container) }
  }

  /// One step of preparing an eager mapping: makes page tables, and breaks sharing where it must.
  /// - Returns: the page to continue from; nil at the mapping's end.
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

  /// One step of clearing leaves; `forgetPages` follows.
  /// - Returns: the page to continue from; nil: no leaf is left.
  mutating func emptyPages(_ task: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    if tasks[task].unmapping == nil { tasks[task].unmapping = page..<end }
    return unmapPages(task, from: page, to: end)
  }

  /// One step of removing the mappings of cleared pages. False: more steps are needed.
  mutating func forgetPages(_ task: TaskSlot, from start: PageNumber, to end: PageNumber) -> Bool {
    guard removeMappings(task, from: start, to: end) else { return false }
    tasks[task].unmapping = nil
    return true
  }

  /// One step of removing mappings. The pages have no leaf any more. False: more steps are needed.
  mutating func removeMappings(_ task: TaskSlot, from start: PageNumber, to end: PageNumber) -> Bool {
    tasks[task].mappings.remove(from: start, to: end, limit: 2048)
  }

  /// Installs a mapping in an unmapped range.
  mutating func installMapping(_ task: TaskSlot, _ mapping: Mapping) {
    tasks[task].mappings.insert(mapping)
  }

  /// Fills in leaves of a mapping from `page` on, up to the end of a leaf table.
  /// - Returns: the page to continue from; nil at the mapping's end, or when a frame is missing: the rest is filled in
  ///   at the next access.
  mutating func fillNext(_ task: TaskSlot, _ page: PageNumber, to end: PageNumber) -> PageNumber? {
    guard page < end, let index = tasks[task].mappings.find(page) else { return nil }
    let mapping = tasks[task].mappings[index]
    guard isGood(mapping), currentLock(mapping, against: task) == nil else { return nil }
    if let next = fillSuperpage(task, mapping, page) { return next }
    let left = Int(min(end.rawValue - page.rawValue, UInt64(FaultAround.most)))
    var absent = spaces.absentRun(task, from: page, limit: left)
    if absent == 0 {
      if spaces.mappedPage(task, page) != nil { return page.advanced(by: 1) }
      // No superpage was possible after all, or the tables were reclaimed.
      guard (try? makeTables(task, for: page)) != nil else { return nil }
      absent = spaces.absentRun(task, from: page, limit: left)
    }
    guard let filled = try? fill(task, mapping, page, most: absent) else { return nil }
    return page.advanced(by: filled)
  }

  /// - Throws: `.noEntry` where nothing is mapped, or where the frame is no longer allocated.
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
