// Chooses placement constraints: mostly ones that meet used frames or could be met, sometimes ones that never can.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Generator {
  func choosePlacedAllocation(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let handle = chooseHandle(model, task, .own)
    let it = container(model, task, handle)
    var start = random.chance(60) ? UInt32(random.number(1...30) * 100) : chooseID(it)
    var flags = UInt32(random.number(below: 8))
    if random.chance(60) {
      for _ in 0..<4 where it?.frames[start] != nil { start = chooseID(it) }
      flags &= ~UInt32(PM_ALLOC_SQUASH)
    }
    if random.chance(1) { flags = random.one(of: [8, .max]) ?? 8 }
    var count = UInt32(random.number(1...8))
    if random.chance(20) {
      // Ids in use are already charged but still need frames.
      start = chooseAnyUsedID(it)
      let all = PlacementArgument(contiguous: random.chance(70) ? 1 : 0)
      return .allocatePlaced(
        handle, start: start, count: chooseCount(it, start, most: 150), at: chooseResult(task),
        flags: UInt32(PM_ALLOC_SQUASH), all, in: chooseResult(task, 40))
    }
    if random.chance(max(hunger, 10)) { count = UInt32(random.number(10...90)) }
    if random.chance(2) { count = random.one(of: [0, .max, UInt32(PM_FRAMES_MAXIMUM) + 1, UInt32(world.frames)]) ?? 0 }
    return .allocatePlaced(
      handle, start: start, count: count, at: chooseResult(task), flags: flags, choosePlacement(model, count),
      in: chooseResult(task, 40))
  }

  private func choosePlacement(_ model: borrowing Model, _ count: UInt32) -> PlacementArgument {
    var placement = PlacementArgument()
    if random.chance(4) { return chooseAbsurdPlacement() }
    if random.chance(60) { placement.contiguous = 1 }
    if random.chance(40) { placement.alignment = UInt64(1) << UInt64(random.number(0...18)) }
    if random.chance(30) { placement.below = UInt64(random.number(2...world.frames + 4)) << 12 }
    if world.frames > 4096, random.chance(60) { placement.below = random.one(of: [16 << 20, 1 << 20]) ?? 0 }
    if random.chance(30) {
      placement.boundary = UInt64(1) << UInt64(12 + random.number(0...8))
      while placement.boundary >> 12 < min(count, 128), random.chance(95) { placement.boundary <<= 1 }
    }
    if random.chance(50) {
      placement.fixed = chooseAddress(model) &- UInt64(random.number(0...Int(min(count, 8)))) << 12
      if random.chance(90) { placement = PlacementArgument(fixed: placement.fixed) }
    }
    return placement
  }

  /// The address of a frame in use, as far as known.
  private func chooseAddress(_ model: borrowing Model) -> UInt64 {
    var frame = UInt32(random.number(1...world.frames))
    if random.chance(60), let container = random.one(of: model.containers),
      let id = random.one(of: container.frames.keys.sorted()),
      case .content(let content) = container.frames[id], let known = content.frame
    {
      frame = known.rawValue
    }
    return UInt64(frame) << 12
  }

  private func chooseAbsurdPlacement() -> PlacementArgument {
    let number: UInt64 = random.one(of: [1, 64, 4095, 3 << 12, 4096, 1 << 40, 1 << 63, .max]) ?? 0
    switch random.number(below: 6) {
    case 0: return PlacementArgument(alignment: number, contiguous: 1)
    case 1: return PlacementArgument(boundary: number, contiguous: 1)
    case 2: return PlacementArgument(fixed: number)
    case 3: return PlacementArgument(below: number)
    case 4: return PlacementArgument(contiguous: 2)
    default: return PlacementArgument(reserved: 1)
    }
  }
}
