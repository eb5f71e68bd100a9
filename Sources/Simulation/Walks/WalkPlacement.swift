// Placed allocation, moves and defragmentation in a walk. After each, every content is located: its bytes must be
// intact, and pinned and placed contents must not have moved.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// The leaves before a call.
struct LeafList {
  var leaves: [(place: Place, rights: MappingFlags)] = []
}

extension Walk {
  // MARK: Placed allocation

  func allocatePlaced(
    _ task: ModelTask, _ handle: HandleArgument, start: UInt32, count: UInt32, at address: UInt64, flags: UInt32,
    _ placement: PlacementArgument, in place: UInt64
  ) throws {
    let handle = number(handle)
    if placement.contiguous != 1, placement.fixed == 0, model.hasReleasedPlaces { return }
    try store(task, place, placement.bytes)
    try store(task, address, littleEndian(count))
    // Mapped before the frames' uses are recorded, as the call will find it.
    try load(task, place, 40)
    try load(task, address, 4)
    let uses = try currentUses()
    let leaves = currentLeaves()
    let squashed = flags & UInt32(PM_ALLOC_SQUASH) == 0 ? nil : container(task, handle)
    let movedBefore = server.statistics.framesMoved
    var placed: ModelPlaced?
    let error = attempt { () throws(CallFailure) in
      try server.allocatePlaced(
        task.slot, handle, start: start, countAddress: address, flags: flags, placement: place)
    }
    let expected = attempt { () throws(CallFailure) in
      let result = try model.allocatePlaced(
        task, handle, start: start, countAddress: address, flags: flags, at: place, uses)
      placed = result
      if let error = result.error { throw error }
    }
    try same(error, expected)
    if let placed { try checkPlaced(task, handle, placed) }
    movedForPlacements += Int(server.statistics.framesMoved - movedBefore)
    try locateAll()
    try checkKept(leaves) { place in
      guard let squashed, let mapping = model.task(place.slot)?.mappings[place.page.rawValue] else { return false }
      return mapping.container === squashed
    }
    try checkObstacle(task)
    try load(task, address, 4)
  }

  private func container(_ task: ModelTask, _ handle: UInt32) -> ModelContainer? {
    if case .container(let container) = task.handles[handle] { container } else { nil }
  }

  /// Checks the result of a placement that could be charged.
  private func checkPlaced(_ task: ModelTask, _ handle: UInt32, _ placed: ModelPlaced) throws {
    guard let contents = placed.contents else {
      let obstacle = server.placementObstacle(task.slot)
      task.obstacle = obstacle.kind == .none ? nil : obstacle
      guard placed.hasObstacle else {
        if obstacle.kind != .none { throw fail("\(obstacle) was reported although frames are lacking") }
        return
      }
      obstaclesMet += 1
      var uses = placed.uses
      uses.freeKeptTables()
      guard uses.isObstacle(obstacle, placed.placement, placed.count) else {
        throw fail("\(obstacle) does not obstruct \(placed.placement)")
      }
      return
    }
    let found = server.frames(task.slot, handle, contents.map(\.id))
    var frames: [Int] = []
    for (frame, (id, content)) in zip(found, contents) {
      guard let frame else { throw fail("id \(id) was placed and has no frame") }
      content.frame = frame
      frames.append(Int(frame.rawValue))
    }
    if let problem = placed.placement.problem(frames, of: world.frames) {
      throw fail("\(placed.placement) came to frames \(problem)")
    }
    var uses = placed.uses
    uses.freeKeptTables()
    for frame in frames where !uses.canBeCleared(frame) && uses.uses[frame] != .placed {
      throw fail("frame \(frame) was \(uses.uses[frame]) and was taken for a placement")
    }
  }

  private func checkObstacle(_ task: ModelTask) throws {
    let obstacle = server.placementObstacle(task.slot)
    guard obstacle == task.obstacle ?? Obstacle(address: 0, kind: .none) else {
      throw fail("\(obstacle) was the obstacle, not \(task.obstacle as Any)")
    }
  }

  private func currentUses() throws -> ModelUses {
    let uses = ModelUses(uses: server.frameUses(), keptTables: machine.keptTables, end: model.tableAreaStart)
    try same(uses.uses.count { $0 == .free }, model.freeForContents, "frames free for contents")
    try same(uses.uses.count { $0 == .spare }, model.freeForTables, "frames free for tables")
    return uses
  }

  // MARK: Moves

  func moveSomeFrame(_ random: UInt64) throws {
    let uses = try currentUses()
    let leaves = currentLeaves()
    let isMoved = server.moveSomeFrame(random)
    let isPossible = uses.uses.contains(.movable) && uses.uses.contains(.free)
    guard isMoved == isPossible || !isMoved && world.frames > 4096 else {
      throw fail(isMoved ? "what was moved?" : "nothing was moved")
    }
    try locateAll()
    try checkSame(leaves)
  }

  /// Performs some steps of a pass, and checks the result of a complete one.
  func defragment(steps: Int, blockFrames: Int) throws {
    let isNew = pass == nil
    var pass = self.pass ?? DefragmentationPass(blockFrames: blockFrames)
    let leaves = currentLeaves()
    let before = Int(server.statistics.framesMoved) - pass.moved
    var isOver = false
    for _ in 0..<steps where !isOver { isOver = !server.continueDefragmentation(&pass) }
    try same(Int(server.statistics.framesMoved) - before, pass.moved, "frames moved")
    self.pass = isOver ? nil : pass
    try locateAll()
    try checkSame(leaves)
    if isOver { passesDone += 1 }
    if isOver, isNew { try checkPacked(blockFrames) }
  }

  func defragment(_ task: ModelTask, _ handle: HandleArgument, result: UInt64) throws {
    let handle = number(handle)
    // Maps the page and makes it private before the call.
    try store(task, result, littleEndian(UInt32(0)))
    let before = server.statistics.framesMoved
    let leaves = currentLeaves()
    let error = attempt { () throws(CallFailure) in try server.defragment(task.slot, handle, result: result) }
    let moved = UInt32(server.statistics.framesMoved - before)
    let expected = attempt { () throws(CallFailure) in
      try model.checkControl(task, handle)
      try model.check(task, result, 4, .write)
      try model.writeWord(task, result, moved)
    }
    try same(error, expected)
    try locateAll()
    if error == nil { try checkKept(leaves) { _ in false } }
    if error == nil { try checkPacked(512) }
    if error == nil { try load(task, result, 4) }
  }

  /// Checks that contents are packed: no block that could be emptied is below one with room for its contents, and no
  /// movable content is in a scarce zone while there is room above.
  private func checkPacked(_ blockFrames: Int) throws {
    let uses = server.frameUses()[..<model.tableAreaStart]
    let zone = uses.count > 4096 ? 4096 : 0
    if uses[..<zone].contains(.movable), uses[zone...].contains(.free) { throw fail("there is room above 16 MiB") }
    var isEmptyable = false
    for start in stride(from: zone / blockFrames * blockFrames, to: uses.count, by: blockFrames) {
      let block = uses[start..<min(start + blockFrames, uses.count)]
      let isPartlyUsed = block.contains(.free) && block.contains { $0 != .free }
      if isEmptyable, isPartlyUsed { throw fail("the block at frame \(start) could be fuller") }
      if isPartlyUsed, block.allSatisfy({ $0 == .free || $0 == .movable }) { isEmptyable = true }
    }
  }

  // MARK: Leaves

  func currentLeaves() -> LeafList {
    var list = LeafList()
    for task in model.tasks {
      machine.forEachLeaf(task.slot) { list.leaves.append((Place(task.slot, $0), $1.rights)) }
    }
    return list
  }

  /// Checks that all leaves are still present with their rights.
  func checkKept(_ list: LeafList, besides: (Place) -> Bool) throws {
    for (place, rights) in list.leaves {
      let now = machine.leaf(place.slot, place.page)?.rights ?? []
      if rights.isSubset(of: now) && !now.isEmpty || besides(place) { continue }
      throw fail("\(place) has lost its leaf, or rights")
    }
  }

  private func checkSame(_ list: LeafList) throws {
    try checkKept(list) { _ in false }
    try same(currentLeaves().leaves.count, list.leaves.count, "leaves")
  }

  // MARK: Locations of contents

  /// Locates every content. Its bytes must be intact, and no other content may be in its frame.
  func locateAll() throws {
    var fixed: [ObjectIdentifier: FrameNumber] = [:]
    for container in model.containers {
      for (id, pin) in container.pins where pin.deadline > model.now {
        guard case .content(let content) = container.frames[id] else { continue }
        fixed[ObjectIdentifier(content)] = content.frame
      }
    }
    for index in owners.indices { owners[index] = nil }
    model.forEachContent { content in
      if content.isPlaced { fixed[ObjectIdentifier(content)] = content.frame }
      content.frame = nil
    }
    try absorb()
    for task in model.tasks {
      for container in task.containers {
        let ids = Array(container.frames.keys) + Array(container.released.keys)
        for (id, frame) in zip(ids, server.frames(task.slot, container.handle, ids)) {
          try locate(container.content(id), frame, fixed)
        }
      }
    }
    for (label, image) in model.images {
      guard let number = images[label] else { continue }
      for (content, frame) in zip(image.contents.flatMap(\.self), server.frames(number)) {
        try locate(content, frame, fixed)
      }
    }
    if let content = model.policy.content { try locate(content, server.policyBufferFrame, fixed) }
  }

  private func locate(
    _ content: ModelContent?, _ frame: FrameNumber?, _ fixed: [ObjectIdentifier: FrameNumber]
  ) throws {
    guard let content, let frame else {
      if content != nil || frame != nil { throw fail("frame \(frame as Any) for content \(content as Any)") }
      return
    }
    let index = Int(frame.rawValue)
    if let seen = content.frame, seen != frame { throw fail("frame \(index) for the content of \(seen.rawValue)") }
    if let place = fixed[ObjectIdentifier(content)], place != frame {
      throw fail("frame \(index) for the content placed in \(place.rawValue)")
    }
    if let owner = owners[index], owner !== content { throw fail("frame \(index) has two contents") }
    // The policy buffer also holds what tasks have allocated; it is compared later.
    if content !== model.policy.content, !machine.holds(frame, content.bytes) {
      throw fail("frame \(index) has other bytes")
    }
    owners[index] = content
    model.note(content, frame)
  }
}

extension ModelContainer {
  /// The content of an id in use or released.
  fileprivate func content(_ id: UInt32) -> ModelContent? {
    if case .content(let content) = frames[id] { return content }
    return released[id]?.content
  }
}

extension Model {
  fileprivate func forEachContent(_ body: (ModelContent) -> Void) {
    for container in containers + images.values.map(\.container) + [policy.buffer].compactMap(\.self) {
      for case .content(let content) in container.frames.values { body(content) }
    }
    for release in released { body(release.content) }
  }

  /// Records that a content is in a frame.
  fileprivate mutating func note(_ content: ModelContent, _ frame: FrameNumber) {
    let isInTableArea = Int(frame.rawValue) >= tableAreaStart
    if isInTableArea != content.isInTableArea { tableAreaContents += isInTableArea ? 1 : -1 }
    content.isInTableArea = isInTableArea
    content.frame = frame
  }
}
