// Superpages in a walk: they appear where they must, and show only what single pages would.

internal import GuestMemory
internal import PhysicalMemory

/// A region being gathered into a block.
struct WalkGathering {
  var it: Gathering
  /// The region's contents when it was found.
  let contents: [ModelContent]
  /// Frames the machine had moved when last checked. Frames moved since may be the region's.
  var framesMoved: Int
  var isDisturbed = false
}

extension Walk {
  // MARK: Mapping

  func readyBlocks(_ count: Int) {
    for _ in 0..<count {
      guard let block = server.nextBlock() else { return }
      while !server.zeroBlock(block) {}
    }
  }

  /// The region that the next fault must map as a superpage; nil: none is permitted.
  func expectedSuperpage(_ task: ModelTask, _ page: PageNumber, _ access: Access) -> ModelRegion? {
    guard world.blocks > 0, let region = model.region(task, page), !model.isLocked(region),
      region.mapping.flags.effectiveRights.contains(access.flag), machine.mayMapSuperpage(task.slot, region.start),
      model.hasTables(task), region.isFresh ? server.blocksInStock > 0 : isInOrder(region)
    else { return nil }
    return region
  }

  func checkServed(_ region: ModelRegion?) throws {
    guard let region, machine.superpage(region.task.slot, region.start) == nil else { return }
    throw fail("\(Place(region.task.slot, region.start)) could have become a superpage")
  }

  /// Promotes a region that has pages.
  func promote(_ task: ModelTask, _ page: PageNumber) throws {
    guard task.isRunning else { return }
    var isExpected = false
    let isSuperpage = machine.superpage(task.slot, PageNumber(page.rawValue & ~511)) != nil
    if !isSuperpage, let region = model.region(task, page), !model.isLocked(region), isInOrder(region) {
      isExpected = (try? model.makeTables(task, region.start)) != nil
    }
    let leaves = currentLeaves()
    guard server.promote(task.slot, page, collapse: { _ in true }) == isExpected else {
      throw fail("\(Place(task.slot, page)) was\(isExpected ? " not" : "") promoted")
    }
    try checkKept(leaves) { _ in false }
  }

  /// Whether the frames of a region's contents are in order, and not shared.
  private func isInOrder(_ region: ModelRegion) -> Bool {
    guard region.contents != nil, let frames = frames(region) else { return false }
    return frames[0].rawValue % 512 == 0 && frames.indices.allSatisfy { frames[$0] == frames[0].advanced(by: $0) }
  }

  private func frames(_ region: ModelRegion) -> [FrameNumber]? {
    guard let owner = region.container.owner, let task = model.task(owner) else { return nil }
    let frames = server.frames(task.slot, region.container.handle, Array(region.ids)).compactMap(\.self)
    return frames.count == ModelRegion.pages ? frames : nil
  }

  // MARK: Gathering

  func gather(_ steps: Int) throws {
    let leaves = currentLeaves()
    if Int(server.statistics.framesMoved) != gathering?.framesMoved { gathering?.isDisturbed = true }
    if gathering == nil { try findCandidate() }
    for _ in 0..<steps where gathering != nil { try continueGathering() }
    gathering?.framesMoved = Int(server.statistics.framesMoved)
    model.isGathering = gathering != nil
    try locateAll()
    try checkKept(leaves) { _ in false }
  }

  /// Promotes the first region that is in order. A region that can be gathered must be a candidate if there is a block.
  private func findCandidate() throws {
    let hasBlock = server.blocksInStock > 0
    var cursor = GatheringCursor()
    let candidate = server.findCandidate(&cursor)
    for region in regions() {
      if isInOrder(region) {
        guard case .ordered(region.task.slot, region.start) = candidate else {
          throw fail("\(Place(region.task.slot, region.start)) is in order and was skipped")
        }
        return try promote(region.task, region.start)
      }
      let chance = model.canBeMoved(region, 0..<ModelRegion.pages)
      if chance == .no { continue }
      if case .scattered(let found) = candidate, found.task == region.task.slot, found.page == region.start {
        gathering = WalkGathering(
          it: found, contents: region.contents ?? [],
          framesMoved: Int(server.statistics.framesMoved))
        return
      }
      if chance == .yes, hasBlock { throw fail("\(Place(region.task.slot, region.start)) could have been gathered") }
    }
    if let candidate { throw fail("\(candidate) is not a candidate") }
  }

  /// The regions that are not superpages, by slot and address.
  private func regions() -> [ModelRegion] {
    var found: [ModelRegion] = []
    for task in model.tasks.sorted(by: { $0.slot.rawValue < $1.slot.rawValue }) where !task.isEnding && task.hasSpace {
      for start in Set(task.mappings.keys.map { $0 & ~511 }).sorted() {
        guard let region = model.region(task, PageNumber(start)), !model.isLocked(region),
          machine.superpage(task.slot, region.start) == nil
        else { continue }
        found.append(region)
      }
    }
    return found
  }

  private func continueGathering() throws {
    guard var current = gathering else { return }
    let left = current.it.left
    let chance = chanceOfStep(current)
    let progress = server.continueGathering(&current.it)
    gathering = progress == .more ? current : nil
    let place = Place(current.it.task, current.it.page)
    switch progress {
    case .failed where chance != .yes: gatheringsGivenUp += 1
    case .more where chance != .no && left > 64 && current.it.left == left - 64: break
    case .done where chance != .no && left == 64:
      try locateAll()
      guard let task = model.task(current.it.task) else { throw fail("\(place) was gathered after its task had ended") }
      if !current.isDisturbed, let region = model.region(task, current.it.page), let contents = region.contents,
        zip(contents, current.contents).allSatisfy({ $0 === $1 }), !isInOrder(region)
      {
        throw fail("\(place) was gathered and is not in order")
      }
      try promote(task, current.it.page)
    default: throw fail("gathering \(place) with \(left) left: \(progress)")
    }
  }

  /// The next contents must be movable, and their destination frames still free.
  private func chanceOfStep(_ gathering: WalkGathering) -> Model.Chance {
    let left = gathering.it.left
    guard let task = model.task(gathering.it.task), !task.isEnding, let region = model.region(task, gathering.it.page),
      !model.isLocked(region), machine.superpage(task.slot, region.start) == nil
    else { return .no }
    let uses = server.frameUses()
    let first = Int(gathering.it.block.start.rawValue)
    guard uses[first + left - 64..<first + left].allSatisfy({ $0 == .free }) else { return .no }
    return model.canBeMoved(region, left - 64..<left)
  }

  // MARK: Checks after each step

  /// A superpage must map one region of one mapping, with each page resident in its own frame.
  func checkSuperpages() throws {
    guard world.blocks > 0 else { return }
    for place in machine.superpages {
      guard let task = model.task(place.slot), let region = model.region(task, place.page) else {
        throw fail("\(place) is a superpage and should not be")
      }
      guard let contents = region.contents, let first = machine.leaf(place.slot, place.page) else {
        throw fail("\(place) is a superpage with a shared page")
      }
      for (index, content) in contents.enumerated() where content.frame != first.frame.advanced(by: index) {
        throw fail("page \(index) of the superpage \(place) has the wrong frame")
      }
      if first.rights != region.mapping.flags.effectiveRights { throw fail("\(place) has rights \(first.rights)") }
    }
    let statistics = server.statistics
    try same(statistics.superpages.current, machine.superpages.count, "superpages")
    try same(
      Int(statistics.superpagesMapped + statistics.superpagesPromoted), machine.superpagesMade, "superpages made")
  }
}
