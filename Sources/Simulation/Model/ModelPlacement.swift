// The naive model of placed allocation. It tries every position, and derives from each frame's earlier use what must
// move.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// A `struct pm_placement`, evaluated by trial.
struct ModelPlacement {
  let below: UInt64
  let alignment: UInt64
  let boundary: UInt64
  let fixed: UInt64
  let contiguous: UInt32
  let reserved: UInt32

  init(_ bytes: [UInt8]) {
    below = longWord(bytes, 0)
    alignment = longWord(bytes, 8)
    boundary = longWord(bytes, 16)
    fixed = longWord(bytes, 24)
    contiguous = word(bytes, 32)
    reserved = word(bytes, 36)
  }

  var isRun: Bool { contiguous == 1 || fixed != 0 }

  private static func isPower(_ number: UInt64) -> Bool { number == 0 || number.nonzeroBitCount == 1 }

  /// Whether so many frames could be placed in an otherwise empty machine.
  func isPossible(_ count: Int, frames: Int) -> Bool {
    guard Self.isPower(alignment), Self.isPower(boundary), boundary == 0 || boundary >= 4096, contiguous <= 1,
      reserved == 0, fixed % 4096 == 0
    else { return false }
    if isRun { return (1..<frames).contains { permitsRun(at: $0, count, frames: frames) } }
    return (1..<frames).count { permits($0) } >= count
  }

  /// Whether the placement permits a single frame.
  func permits(_ frame: Int) -> Bool {
    let start = UInt64(frame) * 4096
    return (below == 0 || start + 4096 <= below) && (alignment == 0 || start % alignment == 0)
  }

  func permitsRun(at first: Int, _ count: Int, frames: Int) -> Bool {
    guard first + count <= frames else { return false }
    let start = UInt64(first) * 4096
    let last = start + UInt64(count) * 4096 - 1
    return permits(first) && (below == 0 || last < below) && (fixed == 0 || start == fixed)
      && (boundary == 0 || start / boundary == last / boundary)
  }

  /// A message if the frames of a placement violate its constraints.
  func problem(_ frames: [Int], of all: Int) -> String? {
    guard isRun else { return Set(frames).count == frames.count && frames.allSatisfy(permits) ? nil : "\(frames)" }
    let isRun = frames.enumerated().allSatisfy { $1 == frames[0] + $0 }
    return isRun && permitsRun(at: frames[0], frames.count, frames: all) ? nil : "\(frames)"
  }
}

/// The use of each frame before a call, and the tables kept for the next tasks of closed slots.
struct ModelUses {
  var uses: [FrameUse]
  let keptTables: [FrameNumber]
  /// The first frame of the area for page tables.
  let end: Int

  func canBeCleared(_ frame: Int) -> Bool { frame < end && (uses[frame] == .free || uses[frame] == .movable) }

  /// How many of `count` frames can be placed.
  func reach(_ placement: ModelPlacement, _ count: Int) -> Int {
    guard placement.isRun else { return min(count, (1..<end).count { placement.permits($0) && canBeCleared($0) }) }
    let isThere = (1..<end).contains { start in
      placement.permitsRun(at: start, count, frames: uses.count)
        && (start..<start + count).allSatisfy(canBeCleared)
    }
    return isThere ? count : 0
  }

  mutating func freeKeptTables() { for frame in keptTables { uses[Int(frame.rawValue)] = .free } }

  /// Whether the server may report this obstacle.
  func isObstacle(_ obstacle: Obstacle, _ placement: ModelPlacement, _ count: Int) -> Bool {
    let frame = Int(obstacle.address / 4096)
    guard frame > 0, frame < uses.count, !canBeCleared(frame) else { return false }
    if placement.fixed != 0 {
      let first = Int(placement.fixed / 4096)
      guard (first..<first + count).first(where: { !canBeCleared($0) }) == frame else { return false }
    }
    switch uses[frame] {
    case .pinned: return obstacle.kind == .pinned
    case .placed: return obstacle.kind == .placed
    case .reserved: return obstacle.kind == .reserved
    default: return obstacle.kind == .pageTable
    }
  }
}

/// Counts of placements.
struct ModelPlacementFigures {
  var placed = 0
  var refused = 0
  /// Refused for lack of frames although there was a position.
  var starved = 0
}

/// The result of a placement that could be charged.
struct ModelPlaced {
  let placement: ModelPlacement
  let count: Int
  let uses: ModelUses
  /// Nil: there is no position.
  var contents: [(id: UInt32, content: ModelContent)]?
  /// Something obstructs the placement.
  var hasObstacle = false
  var error: CallFailure?
}

extension Model {
  var tableAreaStart: Int { world.frames - tables.reserved }

  /// Lets a content be moved again.
  mutating func giveUpPlace(_ content: ModelContent) {
    if content.isPlaced { placedCount -= 1 }
    content.isPlaced = false
  }

  /// Whether single frames may be placed where another content was released in the course of the call.
  var hasReleasedPlaces: Bool { released.contains { $0.content.isPlaced } }

  /// - Returns: nil if the call was rejected before a search, which throws.
  mutating func allocatePlaced(
    _ task: ModelTask, _ handle: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32, at address: UInt64,
    _ uses: ModelUses
  ) throws(CallFailure) -> ModelPlaced {
    let count = try loadCount(task, countAddress)
    guard flags < 8, count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let ids = try Self.range(start, count)
    let wanted = ModelPlacement(try read(task, address, 40))
    guard wanted.isPossible(ids.count, frames: world.frames) else { throw .invalid }
    task.obstacle = nil
    guard placedCount + ids.count <= allocatable / 4 * 3 else {
      try writeWord(task, countAddress, 0)
      throw .noMemory
    }
    let plan = try planAllocation(task, handle, ids, AllocationFlags(rawValue: flags), placed: true)
    try writeWord(task, countAddress, UInt32(plan.ids.count))
    if plan.ids.isEmpty, let error = plan.error { throw error }
    let used = plan.ids.count { plan.container.frames[$0] != nil }
    var placed = ModelPlaced(placement: wanted, count: plan.ids.count, uses: uses, error: plan.error)
    guard makeRoom(&placed) else {
      placement.refused += 1
      gaveBack(task.name, plan.ids.count)
      try writeWord(task, countAddress, 0)
      placed.error = .noMemory
      return placed
    }
    self.placement.placed += 1
    placed.contents = plan.ids.map { id in
      let content = ModelContent(ModelContent.zeros)
      content.isPlaced = true
      return (id, content)
    }
    for (id, content) in placed.contents ?? [] { set(plan.container, id, .content(content)) }
    if used > 0 { gaveBack(task.name, used) }
    if AllocationFlags(rawValue: flags).contains(.squash) {
      try? writeWord(task, countAddress, UInt32(plan.ids.count))
    }
    return placed
  }

  /// Frees as many frames as are needed, by expiring released contents and freeing kept tables.
  private mutating func makeRoom(_ placed: inout ModelPlaced) -> Bool {
    var uses = placed.uses
    var reach = uses.reach(placed.placement, placed.count)
    var isThere = findFrames(reach)
    if isThere, reach < placed.count {
      let before = tables.used
      tables.releaseClosed()
      if tables.used < before {
        uses.freeKeptTables()
        reach = uses.reach(placed.placement, placed.count)
        isThere = findFrames(reach)
      }
      placed.hasObstacle = isThere && reach < placed.count
    }
    if !isThere { placement.starved += 1 }
    return isThere && reach == placed.count
  }

  private mutating func findFrames(_ count: Int) -> Bool {
    while freeForContents < count, expireOldest() {}
    if freeForContents < count { tables.releaseClosed() }
    return free >= count
  }
}
