// The naive model's accounts, and how frames come back from those who have more than their guarantee.

internal import GuestMemory
internal import PhysicalMemory

struct ModelDemand {
  var count: Int
  let deadline: UInt64
  /// What the task had used of its processor when it was asked.
  let processorTime: UInt64
}

struct ModelReclaim {
  /// Who waits for how many frames, the first to come first.
  var requests: [(task: TaskName, count: Int)] = []
  /// Demands made, and tasks dropped.
  var demandCount: UInt64 = 0
  var dropCount: UInt64 = 0
  var waitCount = 0
  var servedCount = 0
}

extension Model {
  // MARK: Accounts

  /// What a task is charged for.
  func allocated(_ task: ModelTask) -> Int { task.containers.reduce(task.setAside) { $0 + $1.frames.count } }
  /// What it waits for is its own already, as far as promises to others go.
  private func awaited(_ task: ModelTask) -> Int {
    reclaim.requests.reduce(0) { $0 + ($1.task == task.name ? $1.count : 0) }
  }
  func claim(_ task: ModelTask) -> Int {
    task.hasContract ? task.guaranteed : max(task.guaranteed, allocated(task) + awaited(task))
  }
  func extra(_ task: ModelTask) -> Int { max(0, allocated(task) - claim(task)) }

  var claimed: Int {
    var sum = 0
    for task in tasks { sum += claim(task) }
    return sum
  }

  var allocated: Int {
    var sum = 0
    for task in tasks { sum += allocated(task) }
    return sum
  }

  /// Frames that tasks can have.
  var allocatable: Int {
    var frames = world.frames - world.reserved - tables.reserved - machineFrames
    for image in images.values { frames -= image.program.filePages }
    for task in tasks { frames -= task.extraTables }
    return frames
  }

  var unclaimed: Int { allocatable - claimed }
  /// What nobody has at the moment.
  var notAllocated: Int { allocatable - allocated }
  /// What those can borrow who have their guarantee already: nothing while others wait for what is theirs.
  var lendable: Int { reclaim.requests.isEmpty ? notAllocated : 0 }

  /// Frames that are good for anything at the moment.
  var free: Int { world.frames - world.reserved - tables.used - contentCount }

  func available(_ task: ModelTask, extra: Bool) -> Int {
    let promised = max(0, task.guaranteed - allocated(task))
    guard task.hasContract else { return promised + (task.mayUseExtra ? unclaimed : 0) }
    return extra && task.mayUseExtra ? max(promised, lendable) : promised
  }

  /// What was set aside for the call is counted again.
  func headroom(_ task: ModelTask, extra: Bool) -> Int {
    task.setAside = 0
    return available(task, extra: extra)
  }

  /// A task is about to have more. `.waitForFrames`: others must give them back first.
  mutating func charge(_ task: ModelTask, _ count: Int) throws(ServerError) {
    guard count > notAllocated else { return }
    reclaim.waitCount += 1
    reclaim.requests.append((task.name, count))
    demandFrames()
    throw .waitForFrames
  }

  mutating func gaveBack(_ name: TaskName, _ count: Int) {
    if let task = task(name) { meetDemands(task, count) }
    serveRequests()
  }

  // MARK: Requests

  func isWaitingForFrames(_ task: ModelTask) -> Bool { reclaim.requests.contains { $0.task == task.name } }

  mutating func serveRequests() {
    while let (name, count) = reclaim.requests.first, count <= notAllocated {
      reclaim.requests.removeFirst()
      woken.append(name)
      task(name)?.setAside += count
      reclaim.servedCount += 1
    }
  }

  /// Drops who is late, asks others if need be; until when to wait, nil: no longer.
  mutating func frameWait(_ task: ModelTask) -> UInt64? {
    guard isWaitingForFrames(task) else { return nil }
    let next = expireDemands()
    demandFrames()
    return next
  }

  mutating func endRequest(_ task: ModelTask) {
    reclaim.requests.removeAll { $0.task == task.name }
    task.setAside = 0
    serveRequests()
  }

  // MARK: Demands

  /// One upcall for a frame is dear.
  private static let leastDemand = 32

  private mutating func demandFrames() {
    let wanted = reclaim.requests.reduce(0) { $0 + $1.count }
    while true {
      let coming = tasks.reduce(0) { $0 + $1.demanded }
      let missing = wanted - notAllocated - coming
      guard missing > 0, let victim = chooseVictim() else { return }
      reclaim.demandCount += 1
      let count = min(extra(victim) - victim.demanded, max(missing, Self.leastDemand))
      victim.lastTurn = reclaim.demandCount
      asked.append(victim.slot)
      victim.untold += count
      victim.demands.append(
        ModelDemand(count: count, deadline: now + world.timeLimit * 1000, processorTime: victim.processorTime))
    }
  }

  /// Who has most; of several, who was asked longest ago; of several, who has the lowest slot.
  private func chooseVictim() -> ModelTask? {
    var best: ModelTask?
    for task in tasks where !task.isEnding && !task.isDropped && extra(task) > task.demanded {
      guard let other = best else {
        best = task
        continue
      }
      let (more, less) = (extra(task) - task.demanded, extra(other) - other.demanded)
      if more > less || more == less && (task.lastTurn, task.slot.rawValue) < (other.lastTurn, other.slot.rawValue) {
        best = task
      }
    }
    return best
  }

  private mutating func meetDemands(_ task: ModelTask, _ count: Int) {
    var left = count
    while left > 0, let first = task.demands.first {
      let met = min(left, first.count)
      left -= met
      task.demands[0].count -= met
      if met == first.count { task.demands.removeFirst() }
    }
    task.untold = min(task.untold, task.demanded)
  }

  /// 5 ms, whatever else the machine does.
  private static let leastProcessorTime: UInt64 = 5_000_000

  private mutating func expireDemands() -> UInt64 {
    var next = now + 1_000_000_000
    for task in tasks where !task.isDropped && !task.isEnding {
      guard let first = task.demands.first else { continue }
      if first.deadline > now {
        next = min(next, first.deadline)
      } else if task.processorTime - first.processorTime >= Self.leastProcessorTime {
        // It loses everything: all that it has is on its way.
        reclaim.dropCount += 1
        task.isDropped = true
        dropped.append(task.slot)
        task.demands = [ModelDemand(count: allocated(task), deadline: .max, processorTime: 0)]
      } else {
        next = min(next, now + 1_000_000)
      }
    }
    return next
  }

  // MARK: Released frames

  /// A free frame, if need be one that was released and not recovered, or a table kept for a task that has ended.
  mutating func findFrame() -> Bool {
    if findReleasedFrame() { return true }
    tables.releaseClosed()
    return findReleasedFrame()
  }

  mutating func findReleasedFrame() -> Bool {
    while free == 0 { guard expireOldest() else { return false } }
    return true
  }

  private mutating func expireOldest() -> Bool {
    guard let oldest = released.first else { return false }
    expiredCount += 1
    forgetReleased(oldest.container, oldest.id)
    return true
  }

  /// There is nothing to be recovered under that id any more.
  mutating func forgetReleased(_ container: ModelContainer, _ id: UInt32) {
    guard let release = container.released.removeValue(forKey: id) else { return }
    released.removeAll { $0 === release }
    if let content = release.content { letGo(content) }
  }

  mutating func releasePages(_ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32)
    throws(ServerError)
  {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    for id in ids where container.frames[id] == nil { throw .noEntry }
    guard !isPinned(container, ids.contains) else { throw .busy }
    for id in ids {
      guard let frame = container.frames[id] else { continue }
      // No more of them are kept than the machine has frames.
      if released.count == world.frames { _ = expireOldest() }
      let release = ModelRelease(container, id)
      if case .content(let content) = frame {
        release.content = content
        keep(content)
      }
      container.released[id] = release
      released.append(release)
      set(container, id, nil)
    }
  }

  mutating func recoverPages(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32, frameError: UInt64
  ) throws(ServerError) {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    if frameError != 0 { try check(task, frameError, 4, .write) }
    let left = headroom(task, extra: true)
    var lost: (id: UInt32, error: ServerError)?
    if let id = ids.first(where: { container.released[$0] == nil }) {
      lost = (id, container.frames[id] == nil ? .contentGone : .exists)
    } else if left < ids.count {
      lost = (ids[left], .noMemory)
    }
    if let lost {
      if frameError != 0 { try writeWord(task, frameError, lost.id) }
      throw lost.error
    }
    try charge(task, ids.count)
    for id in ids {
      // One that is named twice was charged twice.
      guard let release = container.released[id] else {
        gaveBack(task.name, 1)
        continue
      }
      recoveredCount += 1
      set(container, id, release.content.map { .content($0) } ?? .empty)
    }
  }

  mutating func expiredPages(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32, result: UInt64
  ) throws(ServerError) {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    try write(
      task, result, ids.map { container.frames[$0] == nil && container.released[$0] == nil ? 1 : 0 })
  }
}
