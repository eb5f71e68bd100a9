// Reclaim: takes extra frames back from tasks so that claims can be met (R3, R28–R30). The server never blocks: it
// demands the frames, and the requester waits in the machine and polls.
//
// The life of a request:
//  1. waiting: in `requests`, first come, first served. The call that needs the frames has changed nothing.
//  2. served: the frames are set aside and charged to the task, which is woken.
//  3. used: the call is repeated and takes them; unused ones are given back.
// A withdrawal (Withdrawal.swift) is a request for frames that are charged to no task.
//
// The life of a demand on a task with extra frames:
//  1. asked: pm_return_pages is raised, and the deadline runs.
//  2. met: the task has given that many frames back, by any call. Or
//  3. expired: the task is dropped; all its frames come back as it ends.

internal import GuestMemory

/// Frames that a task claims and that are not free.
struct FrameRequest {
  let task: TaskSlot
  let count: Int
  /// Frames for page tables and the like, charged to no task.
  var isWithdrawal = false
}

/// Frames demanded back from a task.
struct FrameDemand {
  var count: Int
  /// Nanoseconds of the machine's clock.
  let deadline: UInt64
  /// The task's processor time when the demand was made, in nanoseconds.
  var processorTime: UInt64
}

/// The parameters of reclaim.
public struct ReclaimRules: Sendable {
  /// The time from the demand to the drop, in nanoseconds.
  public var timeLimit: UInt64
  /// How victims are selected.
  public var selection: any VictimSelection
  /// The least number of frames to demand at once: an upcall is expensive, and the surplus serves the next requests.
  /// Until then the task that released it can recover it.
  public var leastDemand: Int

  /// - Parameters:
  ///   - timeLimit: the time from the demand to the drop, in nanoseconds.
  ///   - selection: how victims are selected.
  ///   - leastDemand: the least number of frames to demand at once.
  public init(
    timeLimit: UInt64 = 100_000_000, selection: any VictimSelection = MostExtraFirst(), leastDemand: Int = 32
  ) {
    self.timeLimit = timeLimit
    self.selection = selection
    self.leastDemand = leastDemand
  }
}

/// Waiting requests, and the demands made for them.
struct ReclaimState {
  let rules: ReclaimRules
  var requests: [FrameRequest] = []
  /// Tasks with demands.
  var victims: [TaskSlot] = []
  /// The sum of all demands, in frames.
  var demanded = 0
  /// A counter of demands, for round robin.
  var turn: UInt64 = 0

  init(rules: ReclaimRules) { self.rules = rules }

  /// A task is not dropped before it has had this much processor time since the demand: 5 ms.
  static let leastProcessorTime: UInt64 = 5_000_000
}

/// The state of a request.
public enum FrameWait: Equatable, Sendable {
  /// Repeat the call.
  case ready
  /// Ask again at this time of the machine's clock (nanoseconds), or when woken.
  case waiting(until: UInt64)
}

extension ServerState {
  // MARK: Requests

  /// Returns frames that were set aside for a call, which charges them anew.
  mutating func returnSetAside(_ task: TaskSlot) {
    let setAside = tasks[task].setAside
    guard setAside > 0 else { return }
    tasks[task].setAside = 0
    ledger.charge(&tasks[task].entitlement, -setAside)
    noteAllocated(task)
  }

  /// The number of frames a task may still allocate.
  func headroom(_ task: TaskSlot, extra: Bool) -> Int {
    ledger.headroom(tasks[task].entitlement, extra: extra, lendable: lendable)
  }

  /// Frames for borrowers: none while a request waits.
  var lendable: Int { reclaim.requests.isEmpty ? ledger.free : 0 }

  /// Charges frames that `headroom` allowed.
  /// - Throws: `.waitForFrames`, with nothing changed, when some must be reclaimed first.
  mutating func charge(_ task: TaskSlot, _ count: Int) throws(CallFailure) {
    if count > ledger.free { throw request(task, count) }
    ledger.charge(&tasks[task].entitlement, count)
    noteAllocated(task)
  }

  /// Requests the missing frames from other tasks.
  mutating func request(_ task: TaskSlot, _ count: Int) -> CallFailure {
    reclaim.requests.append(FrameRequest(task: task, count: count))
    tasks[task].lacking = 0
    ledger.setAwaited(&tasks[task].entitlement, count)
    // Frames set aside for this call may serve earlier requests.
    serveRequests()
    demandFrames()
    return .waitForFrames
  }

  /// Uncharges a task: the frames meet demands on it and serve waiting requests.
  mutating func uncharge(_ task: TaskSlot, _ count: Int) {
    guard count > 0 else { return }
    ledger.charge(&tasks[task].entitlement, -count)
    noteAllocated(task)
    if !tasks[task].demands.isEmpty { meetDemands(task, count) }
    serveRequests()
  }

  /// Serves waiting requests from the free frames, in order.
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

  /// Advances the task's request: drops tasks past their deadline, and demands frames from others if that is not
  /// enough.
  mutating func frameWait(_ task: TaskSlot) -> FrameWait {
    requestWithdrawal(task)
    guard reclaim.requests.contains(where: { $0.task == task }) else { return .ready }
    let next = expireDemands()
    demandFrames()
    return .waiting(until: next)
  }

  /// Ends a request, whether the call succeeded or not: unused frames are given back.
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

  /// Demands the frames that the requests lack, from as many tasks as necessary.
  mutating func demandFrames() {
    var missing = reclaim.requests.reduce(0) { $0 + $1.count } - ledger.free - reclaim.demanded
    guard missing > 0 else { return }
    var candidates = victimCandidates()
    while missing > 0, !candidates.isEmpty {
      let index = reclaim.rules.selection.choose(among: candidates)
      precondition(candidates.indices.contains(index), "the victim is not a candidate")
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
    // Raise it first: a waiting task then counts as runnable, and its processor time is read correctly.
    events.raiseUpcall(task)
    tasks[task].demands.append(
      FrameDemand(
        count: count, deadline: events.now + reclaim.rules.timeLimit, processorTime: events.processorTime(task))
    )
    statistics.upcalls += 1
  }

  /// The number of frames demanded since the task's handler last asked; 0: none.
  mutating func takeReturnRequest(_ task: TaskSlot) -> Int {
    defer { tasks[task].untold = 0 }
    return tasks[task].untold
  }

  /// Meets the oldest demand first.
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

  /// Limits demands to the task's extra frames (R28).
  mutating func limitDemands(_ task: TaskSlot) {
    let surplus = tasks[task].demanded - tasks[task].entitlement.extra
    if surplus > 0, !tasks[task].isDropped { meetDemands(task, surplus) }
  }

  /// Cancels the task's demands, since it has nothing to give now; requests turn to other tasks.
  mutating func forgetDemands(_ task: TaskSlot) { meetDemands(task, tasks[task].demanded) }

  // MARK: Deadlines

  /// Drops the tasks that are past their deadline.
  /// - Returns: when to check again, in nanoseconds.
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
    // It was blocked at the demand and is not any more: its processor time counts from now on.
    tasks[task].demands[0].processorTime = time
    return false
  }

  /// Drops a task (R30): it ends, and all its frames are on their way back.
  private mutating func drop(_ task: TaskSlot, late: Int) {
    statistics.tasksDropped += 1
    tasks[task].isDropped = true
    let coming = tasks[task].entitlement.allocated
    reclaim.demanded += coming - tasks[task].demanded
    tasks[task].demands = [FrameDemand(count: coming, deadline: .max, processorTime: 0)]
    events.drop(task, missing: late)
  }
}
