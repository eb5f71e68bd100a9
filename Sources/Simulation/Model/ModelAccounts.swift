// The naive model's accounts: sums over all tasks, recomputed each time.

internal import GuestMemory
internal import PhysicalMemory

extension Model {
  /// Frames charged to a task.
  func allocated(_ task: ModelTask) -> Int { task.containers.reduce(task.setAside) { $0 + $1.frames.count } }
  /// Frames that the task waits for. They count as its own in the ledger.
  private func awaited(_ task: ModelTask) -> Int {
    reclaim.requests.reduce(0) { $0 + ($1.task == task.name && !$1.isWithdrawal ? $1.count : 0) }
  }
  func claim(_ task: ModelTask) -> Int {
    task.hasContract ? task.guaranteed : max(task.guaranteed, allocated(task) + awaited(task))
  }
  func extra(_ task: ModelTask) -> Int { max(0, allocated(task) - claim(task)) }

  var claimed: Int {
    // Frames that withdrawals wait for are promised.
    var sum = reclaim.requests.reduce(0) { $0 + ($1.isWithdrawal ? $1.count : 0) }
    for task in tasks { sum += claim(task) }
    return sum
  }

  var allocated: Int {
    var sum = 0
    for task in tasks { sum += allocated(task) }
    return sum
  }

  /// Frames available to tasks.
  var allocatable: Int {
    var frames = world.frames - world.reserved - tables.reserved - machineFrames.count
    if policy.buffer != nil { frames -= 1 }
    for image in images.values { frames -= image.program.filePages }
    for task in tasks { frames -= task.extraTables + task.withdrawn }
    return frames
  }

  var unclaimed: Int { allocatable - claimed }
  /// Frames that are free to allocate now.
  var notAllocated: Int { allocatable - allocated }
  /// Frames that tasks may borrow beyond their guarantees: none while requests wait.
  var lendable: Int { reclaim.requests.isEmpty ? notAllocated : 0 }

  /// Physical frames free for any use.
  var free: Int { world.frames - world.reserved - tables.used - contentCount }
  /// The free frames inside the area for page tables, and those outside.
  var freeForTables: Int { tables.reserved - tables.usedOfArea - tableAreaContents }
  var freeForContents: Int { free - freeForTables }

  func available(_ task: ModelTask, extra: Bool) -> Int {
    let promised = max(0, task.guaranteed - allocated(task))
    guard task.hasContract else { return promised + (task.mayUseExtra ? unclaimed : 0) }
    return extra && task.mayUseExtra ? max(promised, lendable) : promised
  }

  /// Frames set aside for the task's pending call are available to it again.
  func headroom(_ task: ModelTask, extra: Bool) -> Int {
    task.setAside = 0
    return available(task, extra: extra)
  }

  /// Charges frames to a task. Throws `.waitForFrames` if others must return frames first.
  mutating func charge(_ task: ModelTask, _ count: Int) throws(CallFailure) {
    guard count > notAllocated else { return }
    reclaim.waitCount += 1
    reclaim.requests.append(ModelRequest(task: task.name, count: count))
    task.lacking = 0
    serveRequests()
    demandFrames()
    throw .waitForFrames
  }

  mutating func gaveBack(_ name: TaskName, _ count: Int) {
    if let task = task(name) { meetDemands(task, count) }
    serveRequests()
  }
}
