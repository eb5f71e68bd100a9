// pm_container_map (R25, R26): maps ids of a container at an address.

internal import GuestMemory

struct ContainerMap: ServerCall {
  let container: Handle
  let start: FrameID
  let count: UInt32
  let address: GuestAddress
  let flags: MappingFlags

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asCount
    address = arguments.words.3.asAddress
    flags = MappingFlags(rawValue: arguments.words.4.asFlags)
  }

  /// A lazy mapping just replaces the old one. An eager one is prepared before it replaces anything, so that it cannot
  /// fail halfway.
  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let range = try FrameIDRange(start: start, count: count)
    let pages = try PageRange(address: address, count: UInt64(count))
    let mapping = try caller.step { (state) throws(CallFailure) in
      try state.checkMapping(task, container, range, pages, flags)
    }
    try caller.makeRoom(pages, new: 1)
    // A stop in between is harmless: some leaves are missing, as after any revocation, or some pages are filled in
    // early.
    guard !flags.contains(.lazy) else {
      try caller.unmap(pages)
      return caller.step { $0.installMapping(task, mapping) }
    }
    try caller.eachPage(from: mapping.start) { (state, page) throws(CallFailure) in
      try state.prepareEager(task, mapping, page)
    }
    try caller.unmap(pages)
    caller.step { $0.installMapping(task, mapping) }
    try caller.eachPage(from: mapping.start) { state, page in state.fillNext(task, page, to: mapping.end) }
  }
}

extension ServerState {
  /// Checks the flags of a mapping, and that its ids are in use.
  /// - Throws: as `container`, `.invalid` for bad flags, `.noEntry` for an id not in use.
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

  /// One step of preparing an eager mapping: makes page tables, and breaks sharing where it must.
  /// - Returns: the page to continue from; nil at the mapping's end.
  /// - Throws: `.canceled` when the share was revoked meanwhile, `.noMemory`, `.waitForFrames` when other tasks must
  ///   give frames back first.
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
}
