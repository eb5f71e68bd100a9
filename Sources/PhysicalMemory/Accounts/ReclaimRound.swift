// Taking extra frames back, so that whoever has a claim gets its frames (R3, R28–R30). Nobody waits here: the server
// asks, and the one who wants the frames waits in the machine and looks again.
//
// The life of a request:
//  1. waiting: in `requests`, the first to come first. The call that needs the frames has changed nothing.
//  2. served: the frames are set aside, charged to the task, which is woken.
//  3. used: the call is made again and takes them; what it leaves goes back.
// A withdrawal (Withdrawal.swift) is a request for frames that go to no account: they are taken from what there is.
//
// The life of a demand on a task with extra frames:
//  1. asked: pm_return_pages is raised, and the deadline runs.
//  2. met: the task has given that many frames back, by whatever call. Or
//  3. expired: the task is dropped whole; all it has comes back as it ends.

internal import GuestMemory

/// Frames that a task has a claim to and that are not there.
struct FrameRequest {
  let task: TaskSlot
  let count: Int
  /// For page tables and the like, not for the task's account.
  var isWithdrawal = false
}

/// Frames asked back from a task.
struct FrameDemand {
  var count: Int
  /// Nanoseconds of the machine's clock.
  let deadline: UInt64
  /// What the task had used of its processor when it was asked.
  var processorTime: UInt64
}

/// How frames are taken back.
public struct ReclaimRules: Sendable {
  /// From the demand to the drop, in nanoseconds.
  public var timeLimit: UInt64
  public var selection: any VictimSelection
  /// In frames: an upcall is dear, and the next requests find the rest, which whoever released it can recover if nobody
  /// comes for it.
  public var leastDemand: Int

  public init(
    timeLimit: UInt64 = 100_000_000, selection: any VictimSelection = MostExtraFirst(), leastDemand: Int = 32
  ) {
    self.timeLimit = timeLimit
    self.selection = selection
    self.leastDemand = leastDemand
  }
}

struct ReclaimState {
  let rules: ReclaimRules
  var requests: [FrameRequest] = []
  /// Tasks with demands on them.
  var victims: [TaskSlot] = []
  /// Frames in all demands.
  var demanded = 0
  /// Counts the demands made, for taking turns.
  var turn: UInt64 = 0

  init(rules: ReclaimRules) { self.rules = rules }

  /// A task is not dropped before it could have run for so long, whatever else the machine does: 5 ms.
  static let leastProcessorTime: UInt64 = 5_000_000
}

/// Where a request stands.
public enum FrameWait: Equatable, Sendable {
  /// Make the call again.
  case ready
  /// Look again at this time of the machine's clock, or when woken.
  case waiting(until: UInt64)
}

extension ServerState {
  // MARK: Requests

  /// Frames set aside for the call that waited for them count as free again: it charges them anew.
  mutating func returnSetAside(_ task: TaskSlot) {
    let setAside = tasks[task].setAside
    guard setAside > 0 else { return }
    tasks[task].setAside = 0
    ledger.charge(&tasks[task].entitlement, -setAside)
    noteAllocated(task)
  }

  /// How many more frames a task may allocate.
  func headroom(_ task: TaskSlot, extra: Bool) -> Int {
    ledger.headroom(tasks[task].entitlement, extra: extra, lendable: lendable)
  }

  /// Nobody borrows while others wait for what is theirs.
  var lendable: Int { reclaim.requests.isEmpty ? ledger.free : 0 }

  /// Charges frames that `headroom` allowed.
  /// - Throws: `.waitForFrames` when some must be taken back first; nothing has changed then.
  mutating func charge(_ task: TaskSlot, _ count: Int) throws(CallFailure) {
    if count > ledger.free { throw request(task, count) }
    ledger.charge(&tasks[task].entitlement, count)
    noteAllocated(task)
  }

  /// Asks others for what is not there.
  mutating func request(_ task: TaskSlot, _ count: Int) -> CallFailure {
    reclaim.requests.append(FrameRequest(task: task, count: count))
    tasks[task].lacking = 0
    ledger.setAwaited(&tasks[task].entitlement, count)
    // What had been set aside for this call may do for those who were before it.
    serveRequests()
    demandFrames()
    return .waitForFrames
  }

  /// Takes frames off a task's account: they meet what is demanded of it, and whoever waits gets them.
  mutating func uncharge(_ task: TaskSlot, _ count: Int) {
    guard count > 0 else { return }
    ledger.charge(&tasks[task].entitlement, -count)
    noteAllocated(task)
    if !tasks[task].demands.isEmpty { meetDemands(task, count) }
    serveRequests()
  }

  /// Gives the free frames to those who wait, in their order.
  mutating func serveRequests() {
    while let request = reclaim.requests.first, request.count <= ledger.free {
      reclaim.requests.removeFirst()
      if request.isWithdrawal {
        ledger.withdrawPromised(request.count)
        tasks[request.task].withdrawn += request.count
      } else {
        ledger.setAwaited(&tasks[request.task].entitlement, 0)
        ledger.charge(&tasks[request.task].entitlement, request.count)
        tasks[request.task].setAside += request.count
        noteAllocated(request.task)
      }
      events.wake(request.task)
    }
  }

  /// Looks after the task's request: drops who is late, asks others if that is not enough.
  mutating func frameWait(_ task: TaskSlot) -> FrameWait {
    requestWithdrawal(task)
    guard reclaim.requests.contains(where: { $0.task == task }) else { return .ready }
    let next = expireDemands()
    demandFrames()
    return .waiting(until: next)
  }

  /// The call is done, or given up: what was set aside for it and not used goes back.
  mutating func endRequest(_ task: TaskSlot) {
    endWithdrawal(task)
    reclaim.requests.removeAll { $0.task == task }
    ledger.setAwaited(&tasks[task].entitlement, 0)
    let setAside = tasks[task].setAside
    tasks[task].setAside = 0
    uncharge(task, setAside)
    serveRequests()
  }

  // MARK: Demands

  /// Demands as many frames as the requests lack, from as many tasks as it takes.
  mutating func demandFrames() {
    var missing = reclaim.requests.reduce(0) { $0 + $1.count } - ledger.free - reclaim.demanded
    guard missing > 0 else { return }
    var candidates = victimCandidates()
    while missing > 0, !candidates.isEmpty {
      let index = reclaim.rules.selection.choose(among: candidates)
      precondition(candidates.indices.contains(index), "a victim that is no candidate")
      let candidate = candidates.remove(at: index)
      let count = min(candidate.extra, max(missing, reclaim.rules.leastDemand))
      demand(candidate.slot, count)
      missing -= count
    }
  }

  private func victimCandidates() -> [VictimCandidate] {
    var candidates: [VictimCandidate] = []
    tasks.forEachIndex { slot in
      guard !tasks[slot].isEnding, !tasks[slot].isDropped else { return }
      let extra = tasks[slot].entitlement.extra - tasks[slot].demanded
      guard extra > 0 else { return }
      candidates.append(
        VictimCandidate(
          slot: slot, task: tasks[slot].id, guaranteed: tasks[slot].entitlement.guaranteed,
          allocated: tasks[slot].entitlement.allocated, extra: extra, lastTurn: tasks[slot].lastTurn))
    }
    return candidates
  }

  private mutating func demand(_ task: TaskSlot, _ count: Int) {
    reclaim.turn += 1
    reclaim.demanded += count
    if tasks[task].demands.isEmpty { reclaim.victims.append(task) }
    tasks[task].lastTurn = reclaim.turn
    tasks[task].untold += count
    // First: then a task that waits is known to be on its way, and its time is told.
    events.raiseUpcall(task)
    tasks[task].demands.append(
      FrameDemand(
        count: count, deadline: events.now + reclaim.rules.timeLimit, processorTime: events.processorTime(task))
    )
    statistics.upcalls += 1
  }

  /// What the task's handler is to be told now: frames asked for since it was told last, or 0.
  mutating func takeReturnRequest(_ task: TaskSlot) -> Int {
    defer { tasks[task].untold = 0 }
    return tasks[task].untold
  }

  /// The oldest demand first.
  private mutating func meetDemands(_ task: TaskSlot, _ count: Int) {
    var left = count
    while left > 0, let first = tasks[task].demands.first {
      let met = min(left, first.count)
      left -= met
      reclaim.demanded -= met
      tasks[task].demands[0].count -= met
      if met == first.count { tasks[task].demands.removeFirst() }
    }
    let rest = tasks[task].demanded
    tasks[task].untold = min(tasks[task].untold, rest)
    if rest == 0 { reclaim.victims.removeAll { $0 == task } }
  }

  /// Never more is asked for than a task has beyond its guarantee (R28).
  mutating func limitDemands(_ task: TaskSlot) {
    let surplus = tasks[task].demanded - tasks[task].entitlement.extra
    if surplus > 0, !tasks[task].isDropped { meetDemands(task, surplus) }
  }

  /// The task has nothing more to give, or nothing for now: who waits asks others.
  mutating func forgetDemands(_ task: TaskSlot) { meetDemands(task, tasks[task].demanded) }

  // MARK: Deadlines

  /// Drops the tasks whose time is up.
  /// - Returns: when to look again.
  private mutating func expireDemands() -> UInt64 {
    let now = events.now
    var next = now + 1_000_000_000
    for task in reclaim.victims {
      guard !tasks[task].isDropped, !tasks[task].isEnding,
        let first = tasks[task].demands.first
      else { continue }
      if first.deadline > now {
        next = min(next, first.deadline)
      } else if hasHadTime(task, since: first.processorTime) {
        drop(task, late: first.count)
      } else {
        next = min(next, now + 1_000_000)
      }
    }
    return next
  }

  private mutating func hasHadTime(_ task: TaskSlot, since start: UInt64) -> Bool {
    let time = events.processorTime(task)
    if time == .max { return true }
    if start != .max { return time - start >= ReclaimState.leastProcessorTime }
    // It waited when it was asked, and does not any more: its time counts from here on.
    tasks[task].demands[0].processorTime = time
    return false
  }

  /// The task loses everything (R30). It ends as others do; all that it has is on its way back.
  private mutating func drop(_ task: TaskSlot, late: Int) {
    statistics.tasksDropped += 1
    tasks[task].isDropped = true
    let coming = tasks[task].entitlement.allocated
    reclaim.demanded += coming - tasks[task].demanded
    tasks[task].demands = [FrameDemand(count: coming, deadline: .max, processorTime: 0)]
    events.drop(task, missing: late)
  }
}
