// Chooses operations that make superpages and split them: many ids at a time, mapped at region borders and next to
// them.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Generator {
  var hasSuperpages: Bool { world.blocks > 0 }

  private static let regionStart: UInt64 = 0x90000
  private static let regionID: UInt32 = 2048
  private static let regions = 3

  /// An offset in one of the regions: at a border, or anywhere.
  func chooseRegionOffset() -> Int {
    let region = random.number(below: Self.regions) * ModelRegion.pages
    return region + (random.one(of: [0, 0, 1, 255, 511, random.number(below: ModelRegion.pages)]) ?? 0)
  }

  func chooseRegionPage() -> UInt64 { Self.regionStart + UInt64(chooseRegionOffset()) }
  func chooseRegionID() -> UInt32 { Self.regionID + UInt32(chooseRegionOffset()) }

  private func chooseRegionCount() -> UInt32 {
    random.one(of: [512, 512, 513, 700, 1024, 1536, UInt32(random.number(1...600))]) ?? 512
  }

  func chooseForSuperpages(_ model: borrowing Model) -> Action {
    switch random.number(below: 10) {
    case 0..<4: return .readyBlocks(random.number(1...2))
    case 4..<8: return .gather(steps: random.one(of: [1, 1, 2, 5, 8]) ?? 1)
    default:
      guard let task = random.one(of: model.tasks) else { return .readyBlocks(1) }
      return .promote(task.name, page: chooseRegionPage())
    }
  }

  /// Allocates or maps as much as the task can have at once, to exhaust the frames kept ready for other uses.
  private func chooseAll(_ model: borrowing Model, _ task: ModelTask) -> Call {
    let handle = chooseLarge(task)
    let start = Self.regionID * 2
    let count = chooseCount(container(model, task, handle), start, most: 20_000)
    guard count > 1 else {
      return .allocate(
        handle, start: start, count: UInt32(model.available(task, extra: true)), at: chooseResult(task),
        flags: UInt32(PM_ALLOC_PARTIAL))
    }
    return .map(
      handle, start: start, count: count, at: (Self.regionStart + 0x1_0000) << 12,
      flags: UInt32(PM_MAP_READ | PM_MAP_WRITE))
  }

  /// A container with a region's ids, if it finds one.
  private func chooseLarge(_ task: ModelTask) -> HandleArgument {
    let entries = task.handles.entries.filter { entry in
      guard case .container(let container) = entry.target, entry.name != nil else { return false }
      return container.frames[Self.regionID + 512] != nil || random.chance(30)
    }
    return random.one(of: entries)?.name.map { .name($0) } ?? .number(UInt32(PM_CAP_CONTAINER))
  }

  /// A call on whole regions; nil: choose another call.
  func chooseRegionCall(_ model: borrowing Model, _ task: ModelTask) -> Call? {
    guard hasSuperpages, random.chance(45) else { return nil }
    if model.isGathering, random.chance(20) { return chooseAll(model, task) }
    if task.containers.count == 1, random.chance(60) { return .createContainer(result: chooseResult(task)) }
    let handle = random.chance(90) ? chooseLarge(task) : chooseHandle(model, task, .own)
    let it = container(model, task, handle)
    let id = Self.regionID + (random.one(of: [0, 0, 512, 1024, 7]) ?? 0)
    let page = Self.regionStart + (random.one(of: [0, 0, 0, 512, 1024, 1, 300]) ?? 0)
    switch random.number(below: 100) {
    case 0..<25:
      var count = chooseRegionCount()
      if random.chance(10) { count = UInt32(model.available(task, extra: true)) }
      let flags = UInt32(random.one(of: [PM_ALLOC_PARTIAL, 0, PM_ALLOC_SQUASH | PM_ALLOC_PARTIAL]) ?? 0)
      return .allocate(handle, start: id, count: count, at: chooseResult(task), flags: flags)
    case ..<60:
      var flags = UInt32(PM_MAP_READ | PM_MAP_WRITE)
      if random.chance(80) { flags |= UInt32(PM_MAP_LAZY) }
      if random.chance(20) { flags = UInt32(random.number(below: 32)) }
      let most = random.chance(15) ? random.number(1...600) : 20_000
      let from = random.chance(90) ? id : chooseRegionID()
      return .map(handle, start: from, count: chooseCount(it, from, most: most), at: page << 12, flags: flags)
    case ..<75: return .store(at: chooseRegionPage() << 12, UInt32(truncatingIfNeeded: random.next()))
    case ..<84:
      return .unmap(at: (random.chance(50) ? page : chooseRegionPage()) << 12, count: chooseRegionCount())
    case ..<90:
      // Sometimes all: frames that come back are not zero any more.
      return .deallocate(
        handle, start: random.chance(50) ? id : chooseRegionID(),
        count: random.chance(30) ? 20_000 : chooseRegionCount(), at: chooseResult(task), flags: 3)
    case ..<95:
      let from = chooseRegionID()
      let target = chooseHandle(model, task, .own)
      return .copy(
        handle, .from(from), to: target, .from(random.chance(50) ? id : chooseRegionID()),
        count: chooseCount(it, from, most: 600), frameError: 0)
    case 95: return .share(handle, remote: .number(0), result: chooseResult(task))
    case 96: return .lock(chooseHandle(model, task, .weak), microseconds: chooseTime())
    default:
      var placement = PlacementArgument(contiguous: 1)
      if random.chance(60) { placement.alignment = 2 << 20 }
      return .allocatePlaced(
        handle, start: id, count: chooseRegionCount(), at: chooseResult(task), flags: UInt32(PM_ALLOC_SQUASH),
        placement, in: chooseResult(task, 40))
    }
  }
}
