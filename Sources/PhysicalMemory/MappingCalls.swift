// pm_container_map, pm_unmap and pm_mapping (R25, R27).

internal import CGuestABI
internal import GuestMemory

/// Pages of a task's half of its address space, checked to be inside it.
struct PageRange {
  let start: PageNumber
  let count: UInt64
  var end: PageNumber { PageNumber(start.rawValue + count) }

  /// PM_EINVAL: not aligned, none at all, or not inside the task's half.
  init(address: UInt64, count: UInt64) throws(ServerError) {
    guard address & 4095 == 0, count > 0, address >= PM_USER_START, address < PM_USER_END,
      count <= (PM_USER_END - address) >> 12
    else { throw .invalid }
    start = PageNumber(containing: address)
    self.count = count
  }
}

/// What pm_mapping tells.
public struct MappingInformation: Equatable, Sendable {
  public var container: UInt32
  public var frame: UInt32
  public var rights: MappingFlags
  public var requested: MappingFlags
  public var physicalAddress: UInt64
}

extension ServerState {
  /// Checks all that `installMapping` needs, and readies what an eager mapping could lack.
  mutating func prepareMapping(
    _ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange, address: UInt64, _ flags: MappingFlags
  ) throws(ServerError) -> Mapping {
    let pages = try PageRange(address: address, count: UInt64(range.count))
    guard flags.isSubset(of: .all), !flags.effectiveRights.isEmpty else { throw .invalid }
    let slot = try ownedContainer(task, handle)
    guard containers[slot].frames.run(from: range.start, limit: range.count, inUse: true) == range.count else {
      throw .noEntry
    }
    try makeRoomForMappings(task)
    let mapping = Mapping(
      start: pages.start, count: pages.count,
      container: ContainerReference(slot: slot, generation: containers.generation(at: slot)),
      frame: range.start, flags: flags)
    if !flags.contains(.lazy) { try prepareEager(task, mapping) }
    return mapping
  }

  /// Puts a prepared mapping in place of what its pages showed before. They have no leaf any more.
  mutating func installMapping(_ task: TaskSlot, _ mapping: Mapping) {
    tasks[task.rawValue].mappings.remove(from: mapping.start, to: mapping.end)
    tasks[task.rawValue].mappings.insert(mapping)
  }

  /// A new mapping can cut one in two: room for two more, if need be by forgetting those of destroyed containers.
  private mutating func makeRoomForMappings(_ task: TaskSlot) throws(ServerError) {
    guard tasks[task.rawValue].mappings.count + 2 > MappingTable.capacity else { return }
    var dead = Set<ContainerReference>()
    tasks[task.rawValue].mappings.forEach(from: PageNumber(0), to: PageNumber(.max)) { mapping in
      if !isLive(mapping.container) { dead.insert(mapping.container) }
    }
    tasks[task.rawValue].mappings.filter { !dead.contains($0.container) }
    guard tasks[task.rawValue].mappings.count + 2 <= MappingTable.capacity else { throw .noMemory }
  }

  /// Everything an eager mapping needs that may be lacking: page tables, and frames for contents to be copied.
  private mutating func prepareEager(_ task: TaskSlot, _ mapping: Mapping) throws(ServerError) {
    var page = mapping.start
    while page < mapping.end {
      try makeTables(task, for: page)
      page = PageNumber((page.rawValue | UInt64(FaultAround.most - 1)) + 1)
    }
    guard mapping.flags.contains(.forceWrite) else { return }
    for offset in 0..<mapping.count { try breakSharing(mapping, mapping.start.advanced(by: Int(offset))) }
  }

  /// Fills in leaves of a mapping from `page` on, up to the end of a leaf table.
  /// - Returns: where to go on; nil at the mapping's end, or when something is lacking: it is filled in at the next
  ///   access then.
  mutating func fillNext(_ task: TaskSlot, _ page: PageNumber, to end: PageNumber) -> PageNumber? {
    guard page < end, let index = tasks[task.rawValue].mappings.find(page) else { return nil }
    let mapping = tasks[task.rawValue].mappings[index]
    guard isLive(mapping.container) else { return nil }
    let left = Int(min(end.rawValue - page.rawValue, UInt64(FaultAround.most)))
    let absent = operations.absentRun(task, from: page, limit: left)
    if absent == 0 { return operations.mappedPage(task, page) == nil ? nil : page.advanced(by: 1) }
    guard let filled = try? fill(task, mapping, page, most: absent) else { return nil }
    return page.advanced(by: filled)
  }

  /// Unmapping what is not mapped is no error: the server may have forgotten it already.
  func checkUnmap(_ task: TaskSlot, address: UInt64, count: UInt32) throws(ServerError) -> PageRange {
    let pages = try PageRange(address: address, count: UInt64(count))
    guard tasks[task.rawValue].mappings.count + 1 <= MappingTable.capacity else { throw .noMemory }
    return pages
  }

  /// PM_ENOENT where nothing is mapped, or only a frame that is no longer allocated.
  mutating func mappingInformation(_ task: TaskSlot, address: UInt64) throws(ServerError) -> MappingInformation {
    let page = PageNumber(containing: address)
    guard let index = tasks[task.rawValue].mappings.find(page) else { throw .noEntry }
    let mapping = tasks[task.rawValue].mappings[index]
    guard isLive(mapping.container) else { throw .noEntry }
    let id = mapping.frame(at: page)
    let word = containers[mapping.container.slot].frames[id]
    guard word.isUsed else { throw .noEntry }
    return MappingInformation(
      container: tasks[task.rawValue].handles.handle(for: .container(mapping.container)) ?? 0,
      frame: id,
      rights: operations.mappedPage(task, page)?.rights ?? [],
      requested: mapping.flags,
      physicalAddress: word.content.map { contents[$0].frame.address } ?? 0)
  }
}
