// All that the server knows, as one value that the server's lock protects. Its operations are in extensions, a file
// for each subject; the public face, which takes the lock, is PhysicalMemoryServer.

internal import CGuestABI
internal import GuestMemory

struct ServerState: ~Copyable {
  // The machine, in its three roles.
  let events: any TaskEvents
  let spaces: any AddressSpaces
  let memory: any PhysicalFrames
  var pool: FramePool
  var contents: ContentTable
  var reverseMap: ReverseMap
  /// The leaves of each task that are surplus in the reverse map.
  var surplusPlaces: Allowances
  var softReferences: SoftReferenceTable
  /// The references of each task to contents that had one already.
  var furtherReferences: Allowances
  /// The ids of each task that were released and never touched.
  var releasedEmpties: Allowances
  var containers: Slab<ContainerSlot, Container>
  var tasks: Slab<TaskSlot, TaskRecord>
  var images: Slab<ImageNumber, LoadedImage>
  var endpoints: Slab<EndpointSlot, Endpoint>
  var names = NameTable()
  var pins: PinTable
  /// Pins that calls under way are about to make.
  var pinsSetAside = 0
  /// Frames whose contents stay where they were asked for.
  var placedFrames = 0
  /// Taken by the machine for itself.
  private(set) var machineFrames = 0
  var callCount: UInt64 = 0
  var ledger: Ledger
  var tables: TableReserve
  var reclaim: ReclaimState
  var policy = PolicyState()
  var revocations = Revocations()
  var grace = GracePeriods()
  var step = Step()
  var batch = FrameBatch()
  var holds = HoldTimes()
  /// Within `forAnother`.
  var isForAnother = false
  var blocks: BlockStock
  var statistics = ServerStatistics()
  private var lastTaskID: UInt64 = 0
  /// Ask for zeroed frames when fewer are in stock; and whether that was done already.
  private let lowStock: Int
  var hasAskedForZeroedFrames = false

  /// `reserved`: frames at the pool's start that are the machine's own.
  init(
    frameCount: Int, reserved: Int, taskCapacity: Int, stock: Int, blocks: Int = 0,
    reclaim: ReclaimRules = ReclaimRules(), operations: any MachineOperations
  ) throws(ReservationError) {
    // Each may fail, and a value whose parts free something may not be left half made: first all, then the value.
    let tables = TableReserve(frameCount: frameCount)
    var pool = try FramePool(frameCount: frameCount, tableFrames: tables.reserved)
    let contents = try ContentTable(capacity: frameCount)
    // Many map the same text. In a pool of 256 MiB, with 1,024 tasks: 256 each.
    let surplusPlaces = try Allowances(perTask: max(256, 4 * frameCount / taskCapacity), tasks: taskCapacity)
    let reverseMap = try ReverseMap(capacity: frameCount + surplusPlaces.perTask * taskCapacity)
    let furtherReferences = try Allowances(perTask: 256, tasks: taskCapacity)
    let releasedEmpties = try Allowances(perTask: 1024, tasks: taskCapacity)
    let softReferences = try SoftReferenceTable(capacity: frameCount + furtherReferences.perTask * taskCapacity)
    let pins = try PinTable(frameCount: frameCount, taskCapacity: taskCapacity)
    // As many as the handles of all tasks: no task can use up those of others.
    let containers = try Slab<ContainerSlot, Container>(capacity: taskCapacity << 16)
    let tasks = try Slab<TaskSlot, TaskRecord>(capacity: taskCapacity)
    let endpoints = try Slab<EndpointSlot, Endpoint>(capacity: 1 << 16)
    let images = try Slab<ImageNumber, LoadedImage>(capacity: PhysicalMemoryServer.mostImages)
    if reserved > 1 { pool.reserve(FrameRun(start: FrameNumber(1), count: reserved - 1)) }
    lowStock = stock / 2
    self.blocks = BlockStock(target: min(blocks, BlockStock.most(frameCount: frameCount)))
    ledger = Ledger(allocatable: max(0, pool.freeCount - tables.reserved))
    self.reclaim = ReclaimState(rules: reclaim)
    events = operations
    spaces = operations
    memory = operations
    self.pool = pool
    self.contents = contents
    self.reverseMap = reverseMap
    self.surplusPlaces = surplusPlaces
    self.softReferences = softReferences
    self.furtherReferences = furtherReferences
    self.releasedEmpties = releasedEmpties
    self.pins = pins
    self.containers = containers
    self.tasks = tasks
    self.images = images
    self.endpoints = endpoints
    self.tables = tables
  }

  mutating func nextTaskID() -> TaskID {
    lastTaskID += 1
    return TaskID(lastTaskID)
  }

  // MARK: Frames

  /// A frame for a content; if none is free, one of the tables kept for tasks that have ended. Claims never exceed what
  /// there is, so that nil means an image that is too large.
  @inline(__always)
  mutating func takeContentFrame() -> FrameNumber? {
    if let frame = takeZeroFrame() { return frame }
    releaseClosedSpaces()
    return takeZeroFrame()
  }

  /// A frame that reads zero, if need be one of a released content; nil when there is none.
  @inline(__always)
  private mutating func takeZeroFrame() -> FrameNumber? {
    var taken = pool.takeZeroedFrame()
    while taken == nil, mayExpire, expireOldest() { taken = pool.takeZeroedFrame() }
    return cleared(taken ?? pool.takeSpareFrame())
  }

  private func cleared(_ taken: (frame: FrameNumber, isZero: Bool)?) -> FrameNumber? {
    guard let (frame, isZero) = taken else { return nil }
    if !isZero { memory.zero(FrameRun(start: frame, count: 1)) }
    return frame
  }

  /// Has the stock filled up before it is used up. Only faults ask: what is taken at a launch is little.
  @inline(__always)
  mutating func watchStock() {
    guard pool.stockedCount < lowStock, !hasAskedForZeroedFrames else { return }
    hasAskedForZeroedFrames = true
    memory.wantZeroedFrames()
  }

  /// A zeroed frame for a page table of a task: from the reserve within the task's quota, else from what nobody claims.
  mutating func takeTable(for task: TaskSlot) -> FrameNumber? {
    let entitlement = tasks[task].entitlement
    let quota = TableReserve.quota(frames: max(entitlement.claim, entitlement.allocated))
    let isExtra = tasks[task].reservedTables >= quota || tables.taken >= tables.reserved
    if isExtra { guard withdraw(1, for: task) else { return nil } }
    guard let frame = takeTableFrame() else {
      // For the next attempt, when the tables kept for ended tasks are back.
      if isExtra { tasks[task].withdrawn += 1 }
      return nil
    }
    if isExtra {
      tasks[task].extraTables += 1
    } else {
      takeFromReserve(task, 1)
    }
    return frame
  }

  mutating func takeFromReserve(_ task: TaskSlot, _ count: Int) {
    tasks[task].reservedTables += count
    tables.taken += count
  }

  /// A zeroed frame for the machine itself, for good.
  mutating func takeMachineFrame() -> FrameNumber? {
    guard ledger.withdraw(1) else { return nil }
    guard let frame = takeTableFrame() else {
      restore(1)
      return nil
    }
    machineFrames += 1
    return frame
  }

  /// The same for the sake of a task.
  /// - Throws: `.waitForFrames` when others must give one back first, `.noMemory` when it is nobody's to give.
  mutating func takeMachineFrame(for task: TaskSlot) throws(CallFailure) -> FrameNumber {
    guard withdraw(1, for: task) else { throw lack(task, 1) }
    var frame = takeTableFrame()
    if frame == nil {
      releaseClosedSpaces()
      frame = takeTableFrame()
    }
    guard let frame else {
      restore(1)
      throw .noMemory
    }
    machineFrames += 1
    return frame
  }

  mutating func giveMachineFrame(_ frame: FrameNumber) {
    giveTable(frame)
    machineFrames -= 1
    restore(1)
  }

  /// Gives frames that were withdrawn to the tasks again.
  mutating func restore(_ count: Int) {
    ledger.restore(count)
    serveRequests()
  }

  private mutating func takeTableFrame() -> FrameNumber? {
    guard let frame = cleared(pool.takeSpareFrame()) ?? takeZeroFrame() else { return nil }
    pool.records[frame].state = .table
    tables.used += 1
    return frame
  }

  /// Nobody is looking at it: its task's vCPU had left when the task ended, and the flush that comes before this waits for
  /// whoever is inside KVM.
  mutating func giveTable(_ frame: FrameNumber) {
    tables.used -= 1
    pool.giveNow(frame)
  }

  /// Takes back tables kept for tasks that have ended, a step's worth: some, if there are any.
  mutating func releaseClosedSpaces() {
    let spaces = spaces
    spaces.releaseClosedSpaces { giveTable($0) }
  }

  /// Links the tables for a page; if there is no frame for them, first takes back those kept for ended tasks.
  /// - Throws: `.waitForFrames` when others must give frames back first, `.noMemory` when there are none to be had.
  mutating func makeTables(_ task: TaskSlot, for page: PageNumber) throws(CallFailure) {
    let spaces = spaces
    if spaces.makeTables(task, for: page, takeTable: { takeTable(for: task) }) { return }
    releaseClosedSpaces()
    if spaces.makeTables(task, for: page, takeTable: { takeTable(for: task) }) { return }
    throw lackTables(task)
  }

  /// The task's empty address space, which it has at most once.
  mutating func openSpace(_ task: TaskSlot) throws(CallFailure) {
    guard !tasks[task].hasSpace else { return }
    let spaces = spaces
    var kept = spaces.openSpace(task) { takeTable(for: task) }
    if let count = kept, !takeKept(count, for: task) {
      // More tables than the reserve has room for, and no frames for them: the space begins anew.
      spaces.closeSpace(task) { giveTable($0) }
      kept = nil
    }
    if kept == nil {
      releaseClosedSpaces()
      kept = spaces.openSpace(task) { takeTable(for: task) }
    }
    guard kept != nil else { throw lackTables(task) }
    tasks[task].hasSpace = true
  }

  /// Tables kept for a slot are a task's again: from the reserve as far as it has room.
  private mutating func takeKept(_ count: Int, for task: TaskSlot) -> Bool {
    let fromReserve = min(count, tables.reserved - tables.taken)
    guard withdraw(count - fromReserve, for: task) else { return false }
    takeFromReserve(task, fromReserve)
    tasks[task].extraTables += count - fromReserve
    return true
  }

  private mutating func lackTables(_ task: TaskSlot) -> CallFailure {
    lack(task, min(TableReserve.mostForAPage, ledger.unclaimed))
  }
}
