// What a task and the command can learn about frames: pm_task_info, and the statistics.

internal import GuestMemory

/// What pm_task_info tells. Counts are in frames.
public struct TaskInformation: Equatable, Sendable {
  public var id: TaskID
  public var guaranteed: Int
  public var allocated: Int
  public var swapped: Int
  /// What it could allocate now, extra frames included.
  public var available: Int
  /// In percent: 0: nothing is in use; 100: everything is, or somebody waits for frames.
  public var pressure: Int
  public var counters: TaskCounters
}

extension ServerState {
  func taskInformation(_ task: TaskSlot) -> TaskInformation {
    let entitlement = tasks[task].entitlement
    return TaskInformation(
      id: tasks[task].id,
      guaranteed: entitlement.guaranteed,
      allocated: entitlement.allocated,
      swapped: entitlement.swapped,
      available: ledger.headroom(entitlement, extra: true, lendable: lendable),
      pressure: lendable == 0 ? 100 : 100 * ledger.allocated / ledger.allocatable,
      counters: tasks[task].counters)
  }

  var currentStatistics: ServerStatistics {
    var current = statistics
    current.holds = holds.count
    current.longestHold = holds.longest
    current.commonHold = holds.quantile(999)
    current.frames = pool.count
    current.freeFrames = pool.freeCount
    current.stockedFrames = pool.stockedCount
    current.allocatableFrames = ledger.allocatable
    current.claimedFrames = ledger.claimed
    current.allocatedFrames = ledger.allocated
    current.releasedFrames = softReferences.count
    current.tableFrames = tables.used
    current.contents = contents.count
    current.containers = containers.count
    current.tasks = tasks.count
    current.images = images.count
    current.superpages = operations.superpageCounts
    return current
  }

  /// A few at a time: the lock is not held longer than for a small copy.
  mutating func zeroAhead(target: Int) -> [FrameRun] {
    let missing = target - pool.stockedCount
    guard missing > 0 else {
      hasAskedForZeroedFrames = false
      return []
    }
    // With nothing left to clear, nobody asks again until frames come back.
    let batch = pool.takeForZeroing(most: min(missing, 16))
    for run in batch.dirtyRuns { operations.zero(run) }
    pool.giveZeroed(batch)
    return batch.runs
  }

  // MARK: Small values in a task's memory

  mutating func loadCount(_ task: TaskSlot, _ address: GuestAddress) throws(ServerError) -> UInt32 {
    try checkWritable(task, address, 4)
    var bytes = [UInt8](repeating: 0, count: 4)
    try readMemory(task, address, into: &bytes)
    return bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  mutating func store(_ value: UInt32, _ task: TaskSlot, _ address: GuestAddress) throws(ServerError) {
    let bytes = InlineArray<4, UInt8> { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    try writeMemory(task, address, bytes.span)
  }

  mutating func store(_ handle: Handle, _ task: TaskSlot, _ address: GuestAddress) throws(ServerError) {
    try store(handle.rawValue, task, address)
  }
}
