// The server's whole state, protected by the server's lock. Its operations are in extensions, one file a subject;
// PhysicalMemoryServer is the public interface and takes the lock.

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
  /// Each task's surplus leaves in the reverse map.
  var surplusPlaces: Allowances
  var softReferences: SoftReferenceTable
  /// Each task's second and later references to the same content.
  var furtherReferences: Allowances
  /// Each task's ids that were released without ever having been touched.
  var releasedEmpties: Allowances
  var containers: Slab<ContainerSlot, Container>
  var tasks: Slab<TaskSlot, TaskRecord>
  var images: Slab<ImageNumber, LoadedImage>
  var endpoints: Slab<EndpointSlot, Endpoint>
  var names = NameTable()
  var pins: PinTable
  /// Pins reserved by calls under way.
  var pinsSetAside = 0
  /// Frames whose contents have a physical placement constraint.
  var placedFrames = 0
  /// Frames the machine took for itself.
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
  /// Set within `forAnother`.
  var isForAnother = false
  var blocks: BlockStock
  var statistics = ServerStatistics()
  private var lastTaskID: UInt64 = 0
  /// The stock level below which the server asks for more zeroed frames.
  private let lowStock: Int
  var hasAskedForZeroedFrames = false

  /// - Parameter reserved: frames at the start of the pool that belong to the machine.
  init(
    frameCount: Int, reserved: Int, taskCapacity: Int, stock: Int, blocks: Int = 0,
    reclaim: ReclaimRules = ReclaimRules(), operations: any MachineOperations
  ) throws(ReservationError) {
    // Construct every fallible part first: a partly initialized value cannot free its parts.
    let tables = TableReserve(frameCount: frameCount)
    var pool = try FramePool(frameCount: frameCount, tableFrames: tables.reserved)
    let contents = try ContentTable(capacity: frameCount)
    // Many tasks map the same text. A pool of 256 MiB with 1,024 tasks gets 256 each.
    let surplusPlaces = try Allowances(perTask: max(256, 4 * frameCount / taskCapacity), tasks: taskCapacity)
    let reverseMap = try ReverseMap(capacity: frameCount + surplusPlaces.perTask * taskCapacity)
    let furtherReferences = try Allowances(perTask: 256, tasks: taskCapacity)
    let releasedEmpties = try Allowances(perTask: 1024, tasks: taskCapacity)
    let softReferences = try SoftReferenceTable(capacity: frameCount + furtherReferences.perTask * taskCapacity)
    let pins = try PinTable(frameCount: frameCount, taskCapacity: taskCapacity)
    // One for each handle of each task, so that no task can exhaust the table for others.
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

  /// Takes a frame for a content; if none is free, frees tables kept for ended tasks. Claims never exceed the pool, so
  /// only an image that is too large gets nil.
  @inline(__always)
  mutating func takeContentFrame() -> FrameNumber? {
    if let frame = takeZeroFrame() { return frame }
    releaseClosedSpaces()
    return takeZeroFrame()
  }

  /// Takes a frame that reads zero, if necessary from a released content; nil when there is none.
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

  /// Asks for more zeroed frames before the stock runs out. Called by faults only: a launch takes few.
  @inline(__always)
  mutating func watchStock() {
    guard pool.stockedCount < lowStock, !hasAskedForZeroedFrames else { return }
    hasAskedForZeroedFrames = true
    memory.wantZeroedFrames()
  }

  /// Takes a zeroed frame for a task's page table: from the reserve within the task's quota, otherwise from unclaimed
  /// frames.
  mutating func takeTable(for task: TaskSlot) -> FrameNumber? {
    let entitlement = tasks[task].entitlement
    let quota = TableReserve.quota(frames: max(entitlement.claim, entitlement.allocated))
    let isExtra = tasks[task].reservedTables >= quota || tables.taken >= tables.reserved
    if isExtra { guard withdraw(1, for: task) else { return nil } }
    guard let frame = takeTableFrame() else {
      // Keep the charge for the next attempt, after the tables of ended tasks are freed.
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

  /// Takes a zeroed frame for the machine itself; nil when none is left.
  mutating func takeMachineFrame() -> FrameNumber? {
    guard ledger.withdraw(1) else { return nil }
    guard let frame = takeTableFrame() else {
      restore(1)
      return nil
    }
    machineFrames += 1
    return frame
  }

  /// Takes a machine frame on behalf of a task.
  /// - Throws: `.waitForFrames` when other tasks must give one back first, `.noMemory` when no task has one to give.
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

  /// Returns withdrawn frames to the ledger and serves waiting requests.
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

  /// Frees a table at once. No vCPU uses it: the task's vCPU has left, and the caller has flushed, which waits for all
  /// vCPUs inside KVM.
  mutating func giveTable(_ frame: FrameNumber) {
    tables.used -= 1
    pool.giveNow(frame)
  }

  /// Frees a step's worth of the tables kept for ended tasks; at least one if there are any.
  mutating func releaseClosedSpaces() {
    let spaces = spaces
    spaces.releaseClosedSpaces { giveTable($0) }
  }

  /// Links the tables for a page. If there is no frame for them, first frees the tables kept for ended tasks.
  /// - Throws: `.waitForFrames` when other tasks must give frames back first, `.noMemory` when none can be had.
  mutating func makeTables(_ task: TaskSlot, for page: PageNumber) throws(CallFailure) {
    let spaces = spaces
    if spaces.makeTables(task, for: page, takeTable: { takeTable(for: task) }) { return }
    releaseClosedSpaces()
    if spaces.makeTables(task, for: page, takeTable: { takeTable(for: task) }) { return }
    throw lackTables(task)
  }

  /// Opens the task's empty address space, unless it has one.
  /// - Throws: `.waitForFrames` when other tasks must give frames back first, `.noMemory` when none can be had.
  mutating func openSpace(_ task: TaskSlot) throws(CallFailure) {
    guard !tasks[task].hasSpace else { return }
    let spaces = spaces
    var kept = spaces.openSpace(task) { takeTable(for: task) }
    if let count = kept, !takeKept(count, for: task) {
      // The reserve has no room for all kept tables, and there are no frames for them: start with a new space.
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

  /// Charges the tables kept for a slot to its new task: to the reserve as far as it has room.
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
