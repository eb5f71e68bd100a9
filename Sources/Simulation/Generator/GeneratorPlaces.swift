// Chooses the ids and addresses of operations: few enough that operations meet.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Generator {
  // MARK: Ids

  /// An id from a few ranges, in use or not. In one of four containers also near a border between leaves of the id
  /// table and at its end: in all of them that would only cost time.
  func chooseID(_ container: ModelContainer?) -> UInt32 {
    let handle = container?.handle ?? 0
    if handle == UInt32(PM_CAP_CONTAINER) {
      return UInt32(random.chance(85) ? random.number(0...5) : random.number(0...60))
    }
    if hasSuperpages, random.chance(40) { return chooseRegionID() }
    guard handle % 4 == 0 else { return UInt32(random.number(0...24)) }
    switch random.number(below: 100) {
    case 0..<70: return UInt32(random.number(0...24))
    case 70..<92: return UInt32(random.number(1018...1030))
    default: return .max - UInt32(random.number(0...6))
    }
  }

  /// An id in use, if it finds one.
  func chooseUsedID(_ container: ModelContainer?) -> UInt32 {
    var id = chooseID(container)
    guard let container, !random.chance(3) else { return id }
    for _ in 0..<5 {
      if container.frames[id] != nil { return id }
      id = chooseID(container)
    }
    return id
  }

  /// Up to the number of ids in use from `start`, and sometimes more.
  func chooseCount(_ container: ModelContainer?, _ start: UInt32, most: Int = 10) -> UInt32 {
    if random.chance(2) { return random.one(of: [0, .max, .max - start, UInt32(PM_FRAMES_MAXIMUM) + 1, 300]) ?? 0 }
    var count: UInt32 = 1
    while count < most, start < .max - count, container?.frames[start + count] != nil,
      !random.chance(most > 40 ? 0 : 15)
    { count += 1 }
    return random.chance(4) ? count + 1 : count
  }

  private func chooseList(_ container: ModelContainer?, _ count: Int) -> [UInt32] {
    (0..<count).map { _ in chooseUsedID(container) }
  }

  // MARK: Addresses

  static let border: UInt64 = 1 << 18

  func choosePage() -> UInt64 {
    if hasSuperpages, random.chance(50) { return chooseRegionPage() }
    switch random.number(below: 100) {
    case 0..<72: return Self.border - 5 + UInt64(random.number(below: 12))
    case 72..<90: return 0x400 + UInt64(random.number(below: 2) * 16 + random.number(below: 4))
    case 90..<96: return Program.stack.rawValue + UInt64(Program.stackPages - 1 - random.number(below: 3))
    case 96..<98: return UInt64(1) << UInt64(random.number(19...34)) + 511
    case 98: return random.one(of: [0, PM_USER_END >> 12, 1 << 40, .max >> 12, PM_USER_END >> 12 - 1]) ?? 0
    default: return Program.stack.rawValue + UInt64(random.number(below: Program.stackPages + 2)) - 1
    }
  }

  private func chooseMappedPage(_ task: ModelTask) -> UInt64 {
    var page = choosePage()
    for _ in 0..<4 {
      if task.mappings[page] != nil { break }
      page = choosePage()
    }
    return page
  }

  /// An address for this many bytes.
  func chooseAddress(_ task: ModelTask, _ count: Int = 4) -> UInt64 {
    if random.chance(1) { return random.next() }
    let page = chooseMappedPage(task)
    let offset = random.one(of: [0, 4, 256, 1024, 2048, 4096 - count, 4096 - count / 2 & ~1, 3000]) ?? 0
    return page << 12 &+ UInt64(max(0, offset))
  }

  /// An address for a result, mostly one that is mapped.
  func chooseResult(_ task: ModelTask, _ count: Int = 4) -> UInt64 {
    if random.chance(65) {
      return PM_STACK_TOP - UInt64(random.number(2...3)) * 1024 + UInt64(random.number(below: 8)) * 8
    }
    return chooseAddress(task, count)
  }
}
