// Superpages: 512 leaves that the machine holds as one translation. The server maps one at a fault on untouched memory
// if a block of frames is in stock, and promotes regions whose frames are already in order. A superpage costs nothing
// but its frames until one of its leaves changes; the machine then splits it by itself.

internal import GuestMemory

extension ServerState {
  private static let pagesPerSuperpage = PoolMemory.framesPerBlock
  /// At most four superpages a fault, since the lock is held.
  private static let pagesInOneFault = 4 * pagesPerSuperpage

  /// The first page of the aligned region of 512 that contains `page`, if the mapping covers all of it and is writable
  /// and not executable.
  private func region(of page: PageNumber, in mapping: Mapping) -> PageNumber? {
    let pages = UInt64(Self.pagesPerSuperpage)
    guard mapping.count >= pages else { return nil }
    let start = PageNumber(page.rawValue & ~(pages - 1))
    let rights = mapping.flags.effectiveRights
    guard start >= mapping.start, start.rawValue + pages <= mapping.end.rawValue, rights.contains(.write),
      !rights.contains(.execute)
    else { return nil }
    return start
  }

  // MARK: At a fault

  /// Serves a fault in a region without leaves: with one superpage, and with more behind it for a sequential reader.
  /// - Returns: the number of pages filled in; nil, with nothing changed, when no superpage fits.
  @inline(__always)
  mutating func serveSuperpages(
    _ task: TaskSlot, _ index: MappingTable.Index, _ mapping: Mapping, _ page: PageNumber
  ) -> Int? {
    guard blocks.target > 0, tasks[task].faultAround == .automatic, var start = region(of: page, in: mapping)
    else { return nil }
    let isInOrder = mapping.window > 0 && page == mapping.expected
    let wanted = isInOrder ? min(max(Int(mapping.window) * 2, Self.pagesPerSuperpage), Self.pagesInOneFault) : 1
    var pages = 0
    repeat {
      guard spaces.mayMapSuperpage(task, start),
        mapFreshSuperpage(task, mapping, start) || mapOrderedSuperpage(task, mapping, start)
      else { break }
      pages += Self.pagesPerSuperpage
      start = start.advanced(by: Self.pagesPerSuperpage)
    } while pages < wanted && region(of: start, in: mapping) != nil
    guard pages > 0 else { return nil }
    tasks[task].mappings[index].expected = start
    tasks[task].mappings[index].window = UInt32(pages)
    countServed(task, pages: pages)
    statistics.pagesMapped += UInt64(pages)
    statistics.superpagesMapped += UInt64(pages / Self.pagesPerSuperpage)
    return pages
  }

  /// As `serveSuperpages`, for an eager mapping at the first page of a region.
  /// - Returns: the page to continue from; nil, with nothing changed, when no superpage fits.
  mutating func fillSuperpage(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber) -> PageNumber? {
    guard mayFillSuperpage(task, mapping, page),
      mapFreshSuperpage(task, mapping, page) || mapOrderedSuperpage(task, mapping, page)
    else { return nil }
    statistics.pagesMapped += UInt64(Self.pagesPerSuperpage)
    statistics.superpagesMapped += 1
    return page.advanced(by: Self.pagesPerSuperpage)
  }

  /// Whether a superpage may fill the region that begins at `page`, given frames. It then needs no page table.
  mutating func mayFillSuperpage(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber) -> Bool {
    blocks.target > 0 && tasks[task].faultAround == .automatic && region(of: page, in: mapping) == page
      && spaces.mayMapSuperpage(task, page)
  }

  /// Takes a block for a region of empty virtual frames and maps it. False: some are not empty, or no block is in
  /// stock.
  private mutating func mapFreshSuperpage(_ task: TaskSlot, _ mapping: Mapping, _ start: PageNumber) -> Bool {
    let container = mapping.container.slot
    let id = mapping.frame(at: start)
    guard containers[container].frames.emptyRun(from: id, limit: Self.pagesPerSuperpage) == Self.pagesPerSuperpage,
      let block = takeBlock()
    else { return false }
    guard mapSuperpage(task, start, block.start, mapping.flags.effectiveRights) else {
      pool.give(block, contentIsZero: true)
      return false
    }
    var numbers = InlineArray<512, UInt32>(repeating: 0)
    var span = numbers.mutableSpan
    contents.insert(frames: block.start, into: &span)
    containers[container].frames.fillEmpty(id, numbers.span)
    for index in numbers.indices {
      let frame = block.start.advanced(by: index)
      pool.records[frame].owner = numbers[index]
      // The frame's first place: there is always room.
      _ = reverseMap.add(place(task, mapping, start.advanced(by: index)), to: &pool.records[frame].link)
    }
    return true
  }

  /// Maps a region whose frames are resident and in order. False: they are not, or a frame has so many leaves that
  /// another counts against the task's allowance: it could displace one of these, which are all written at once.
  private mutating func mapOrderedSuperpage(_ task: TaskSlot, _ mapping: Mapping, _ start: PageNumber) -> Bool {
    guard let block = orderedBlock(mapping, start),
      (0..<block.count).allSatisfy({ reverseMap.hasRoom(pool.records[block.start.advanced(by: $0)].link) }),
      mapSuperpage(task, start, block.start, mapping.flags.effectiveRights)
    else { return false }
    for index in 0..<block.count {
      let frame = block.start.advanced(by: index)
      let isAdded = reverseMap.add(place(task, mapping, start.advanced(by: index)), to: &pool.records[frame].link)
      precondition(isAdded, "no room for a leaf behind a superpage")
    }
    return true
  }

  private func place(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber) -> MappedPlace {
    let shown = ContainerFrame(container: mapping.container.slot, id: mapping.frame(at: page))
    return MappedPlace(task, page, showing: shown, isWeak: mapping.epoch != 0)
  }

  private mutating func mapSuperpage(
    _ task: TaskSlot, _ start: PageNumber, _ frame: FrameNumber, _ rights: MappingFlags
  ) -> Bool {
    let spaces = spaces
    return spaces.mapSuperpage(task, start, frame, rights: rights) { takeTable(for: task) }
  }

  /// The physical frames of a region, if they are adjacent, aligned and unshared.
  func orderedBlock(_ mapping: Mapping, _ start: PageNumber) -> FrameRun? {
    let container = mapping.container.slot
    let id = mapping.frame(at: start)
    guard let first = containers[container].frames[id].content, contents[first].frame.rawValue % 512 == 0 else {
      return nil
    }
    let block = FrameRun(start: contents[first].frame, count: Self.pagesPerSuperpage)
    for index in 0..<block.count {
      guard let number = containers[container].frames[id.advanced(by: index)].content,
        contents[number].frame == block.start.advanced(by: index), contents[number].sharers == 1
      else { return nil }
    }
    return block
  }

  // MARK: Promotion

  /// The frames of the region that contains `page`, if it can be promoted.
  mutating func promotableBlock(_ task: TaskSlot, _ page: PageNumber) -> FrameRun? {
    guard let mapping = promotableMapping(task, page), let start = region(of: page, in: mapping) else { return nil }
    return orderedBlock(mapping, start)
  }

  /// The mapping of the region that contains `page`, if the region may be promoted and is not a superpage yet.
  mutating func promotableMapping(_ task: TaskSlot, _ page: PageNumber) -> Mapping? {
    guard tasks.contains(task), tasks[task].hasSpace, !tasks[task].isEnding,
      tasks[task].unmapping == nil, tasks[task].faultAround == .automatic,
      let index = tasks[task].mappings.find(page)
    else { return nil }
    let mapping = tasks[task].mappings[index]
    guard isGood(mapping), currentLock(mapping, against: task) == nil, let start = region(of: page, in: mapping),
      spaces.superpage(task, start) == nil, spaces.mayPromote(task, start)
    else { return nil }
    return mapping
  }

  /// Promotes the region that contains `page`. Pages without a leaf get one, and pages that were read-only while shared
  /// get all rights.
  mutating func promoteIfPossible(_ task: TaskSlot, _ page: PageNumber) -> Bool {
    guard promotableBlock(task, page) != nil, let index = tasks[task].mappings.find(page) else { return false }
    let mapping = tasks[task].mappings[index]
    let start = PageNumber(page.rawValue & ~UInt64(Self.pagesPerSuperpage - 1))
    guard (try? makeTables(task, for: start)) != nil else { return false }
    var next = start
    while next < start.advanced(by: Self.pagesPerSuperpage) {
      if let leaf = spaces.mappedPage(task, next) {
        if leaf.rights != mapping.flags.effectiveRights { upgrade(task, mapping, next, leaf.frame) }
        next = next.advanced(by: 1)
        continue
      }
      let left = next.distance(to: start.advanced(by: Self.pagesPerSuperpage))
      let absent = spaces.absentRun(task, from: next, limit: left)
      guard let filled = try? fill(task, mapping, next, most: absent) else { return false }
      next = next.advanced(by: filled)
    }
    let pages = [start]
    let promoted = spaces.promote(task, pages.span)
    statistics.superpagesPromoted += UInt64(promoted)
    return promoted > 0
  }
}
