// Superpages in a walk: they come about where they must, and show nothing that single pages would not.

internal import GuestMemory
internal import PhysicalMemory

extension Walk {
  // MARK: Made

  func readyBlocks(_ count: Int) {
    for _ in 0..<count {
      guard let block = server.nextBlock() else { return }
      while !server.zeroBlock(block) {}
    }
  }

  /// The region of which the fault that comes next must make a superpage; nil: there may be none.
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

  /// Makes a superpage of a region that has pages.
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

  /// The frames of a region's contents are in order, and nobody else's.
  private func isInOrder(_ region: ModelRegion) -> Bool {
    guard region.contents != nil, let frames = frames(region) else { return false }
    return frames[0].rawValue % 512 == 0 && frames.indices.allSatisfy { frames[$0] == frames[0].advanced(by: $0) }
  }

  private func frames(_ region: ModelRegion) -> [FrameNumber]? {
    guard let owner = region.container.owner, let task = model.task(owner) else { return nil }
    let frames = server.frames(task.slot, region.container.handle, Array(region.ids)).compactMap(\.self)
    return frames.count == ModelRegion.pages ? frames : nil
  }

  // MARK: Gathered

  func gather(_ steps: Int) throws {
    let leaves = currentLeaves()
    if Int(server.statistics.framesMoved) != model.gathering?.framesMoved { model.gathering?.isDisturbed = true }
    if model.gathering == nil { try beginGathering() }
    defer { model.gathering?.framesMoved = Int(server.statistics.framesMoved) }
    for _ in 0..<steps {
      guard let gathering = model.gathering else { break }
      try continueGathering(gathering)
    }
    try locateAll()
    try checkKept(leaves) { _ in false }
  }

  /// The first region that can be gathered is, if there is a block; one in order needs none.
  private func beginGathering() throws {
    let hasBlock = server.blocksInStock > 0
    var cursor = GatheringCursor()
    let progress = server.beginGathering(&cursor)
    let begun = server.gatheredRegion
    for region in regions() {
      if isInOrder(region) {
        guard progress == .done(region.task.slot, region.start) else {
          throw fail("\(Place(region.task.slot, region.start)) is in order, and was passed over: \(progress)")
        }
        return try promote(region.task, region.start)
      }
      let chance = model.canBeMoved(region, 0..<ModelRegion.pages)
      if chance == .no { continue }
      if let begun, begun.task == region.task.slot, begun.page == region.start {
        model.gathering = ModelGathering(
          task: region.task.name, start: region.start, contents: region.contents ?? [],
          framesMoved: Int(server.statistics.framesMoved))
        return
      }
      if chance == .yes, hasBlock { throw fail("\(Place(region.task.slot, region.start)) could have been gathered") }
    }
    if progress != .failed { throw fail("\(progress) for a region that is none") }
  }

  /// Those that are no superpages, in the order of slots and addresses.
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

  private func continueGathering(_ gathering: ModelGathering) throws {
    let done = ModelRegion.pages - gathering.left
    var chance = Model.Chance.no
    if let task = model.task(gathering.task), !task.isEnding, let region = model.region(task, gathering.start),
      !model.isLocked(region), machine.superpage(task.slot, region.start) == nil
    {
      chance = model.canBeMoved(region, done..<done + 64)
    }
    let progress = server.continueGathering()
    switch progress {
    case .failed where chance != .yes:
      model.gathering = nil
      gatheringsGivenUp += 1
    case .more where chance != .no && gathering.left > 64:
      model.gathering?.left -= 64
    case .done(let slot, let page) where chance != .no && gathering.left == 64:
      model.gathering = nil
      guard let task = model.task(slot), task.name == gathering.task, page == gathering.start else {
        throw fail("\(Place(slot, page)) was gathered")
      }
      try locateAll()
      if let region = model.region(task, page), let contents = region.contents,
        !gathering.isDisturbed, zip(contents, gathering.contents).allSatisfy({ $0 === $1 }), !isInOrder(region)
      {
        throw fail("\(Place(slot, page)) was gathered, and is not in order")
      }
      try promote(task, page)
    default: throw fail("gathering \(gathering.start): \(progress), with \(gathering.left) left")
    }
  }

  // MARK: Checked after each step

  /// What is one translation is all of one mapping, and what each of its pages shows is there in full.
  func checkSuperpages() throws {
    guard world.blocks > 0 else { return }
    for place in machine.superpages {
      guard let task = model.task(place.slot), let region = model.region(task, place.page) else {
        throw fail("\(place) is a superpage, and should be none")
      }
      guard let contents = region.contents, let first = machine.leaf(place.slot, place.page) else {
        throw fail("\(place) is a superpage, and a page of it is not its own")
      }
      for (index, content) in contents.enumerated() where content.frame != first.frame.advanced(by: index) {
        throw fail("page \(index) of the superpage \(place) is not in its place")
      }
      if first.rights != region.mapping.flags.effectiveRights { throw fail("\(place) has rights \(first.rights)") }
    }
    let statistics = server.statistics
    try same(statistics.superpages.current, machine.superpages.count, "superpages")
    try same(
      Int(statistics.superpagesMapped + statistics.superpagesPromoted), machine.superpagesMade, "superpages made")
    guard server.gatheredRegion?.page == model.gathering?.start else {
      throw fail("\(String(describing: server.gatheredRegion)) is gathered, not \(model.gathering as Any)")
    }
  }
}
