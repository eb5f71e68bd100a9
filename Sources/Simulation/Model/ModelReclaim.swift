// The naive model of reclaim: how extra frames return from the tasks that borrowed them.

internal import GuestMemory
internal import PhysicalMemory

/// Frames demanded of a task.
struct ModelDemand {
  var count: Int
  let deadline: UInt64
  /// CPU time that the task had used when the frames were demanded.
  let processorTime: UInt64
}

/// Frames that a task waits for.
struct ModelRequest {
  let task: TaskName
  let count: Int
  /// For page tables and the like, not for the task's account.
  var isWithdrawal = false
}

/// The state of reclaim.
struct ModelReclaim {
  /// Requests for frames, in order of arrival.
  var requests: [ModelRequest] = []
  /// Number of demands, and of dropped tasks.
  var demandCount: UInt64 = 0
  var dropCount: UInt64 = 0
  var waitCount = 0
  var servedCount = 0
  var withdrawalCount = 0
}

extension Model {
  // MARK: Requests

  func isWaitingForFrames(_ task: ModelTask) -> Bool { reclaim.requests.contains { $0.task == task.name } }

  mutating func serveRequests() {
    while let request = reclaim.requests.first, request.count <= notAllocated {
      reclaim.requests.removeFirst()
      woken.append(request.task)
      if request.isWithdrawal {
        task(request.task)?.withdrawn += request.count
      } else {
        task(request.task)?.setAside += request.count
      }
      reclaim.servedCount += 1
    }
  }

  /// Drops tasks that are late, and demands more frames if needed.
  /// - Returns: the time to wait until; nil: no need to wait.
  mutating func frameWait(_ task: ModelTask) -> UInt64? {
    requestWithdrawal(task)
    guard isWaitingForFrames(task) else { return nil }
    let next = expireDemands()
    demandFrames()
    return next
  }

  mutating func endRequest(_ task: ModelTask) {
    reclaim.requests.removeAll { $0.task == task.name }
    task.setAside = 0
    task.withdrawn = 0
    task.lacking = 0
    serveRequests()
  }

  // MARK: Withdrawals

  /// Takes frames for no account: first those withdrawn for the task, then unclaimed free ones.
  mutating func withdraw(_ task: ModelTask, _ count: Int = 1) -> Bool {
    let used = min(count, task.withdrawn)
    guard count == used || min(unclaimed, notAllocated) >= count - used else { return false }
    task.withdrawn -= used
    return true
  }

  /// The error of a call or access that lacks such frames.
  mutating func lack(_ task: ModelTask, _ count: Int) -> CallFailure {
    if isForAnother { return .noMemory }
    guard canRequestWithdrawal(task, count) else {
      endRequest(task)
      return .noMemory
    }
    task.lacking = count
    return .waitForFrames
  }

  private func canRequestWithdrawal(_ task: ModelTask, _ count: Int) -> Bool {
    count > notAllocated && count <= unclaimed && extra(task) == 0
  }

  private mutating func requestWithdrawal(_ task: ModelTask) {
    let count = task.lacking
    task.lacking = 0
    guard canRequestWithdrawal(task, count) else { return }
    reclaim.withdrawalCount += 1
    reclaim.requests.append(ModelRequest(task: task.name, count: count, isWithdrawal: true))
  }

  // MARK: Demands

  /// A smaller demand does not pay for its upcall.
  static let leastDemand = 32

  mutating func demandFrames() {
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

  /// The task with the most extra frames; then the one asked longest ago; then the one in the lowest slot.
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

  mutating func meetDemands(_ task: ModelTask, _ count: Int) {
    var left = count
    while left > 0, let first = task.demands.first {
      let met = min(left, first.count)
      left -= met
      task.demands[0].count -= met
      if met == first.count { task.demands.removeFirst() }
    }
    task.untold = min(task.untold, task.demanded)
  }

  /// 5 ms, as in the server, whatever its load.
  private static let leastProcessorTime: UInt64 = 5_000_000

  private mutating func expireDemands() -> UInt64 {
    var next = now + 1_000_000_000
    for task in tasks where !task.isDropped && !task.isEnding {
      guard let first = task.demands.first else { continue }
      if first.deadline > now {
        next = min(next, first.deadline)
      } else if task.processorTime - first.processorTime >= Self.leastProcessorTime {
        // All frames of a dropped task are on their way back.
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
}
