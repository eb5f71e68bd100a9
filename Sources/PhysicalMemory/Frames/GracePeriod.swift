// Grace periods: a frame taken from a running task is reused only when no vCPU can access it any more.
//
// A zap flushes what processors cache, but not what KVM has in hand: to emulate an instruction for a task, KVM
// translates an address and then uses the frame, and the host may preempt its thread in between for any time
// (docs/internals/decisions/0016-frames-wait-for-visits-to-kvm.md). KVM drops the frame before it returns from
// KVM_RUN. So a frame may be reused once each vCPU of a task that lost a leaf, if it was in KVM_RUN (on a visit), has
// left since. This is read-copy-update with KVM_RUN as the read-side critical section.
//
//      clear leaf ──▶ zap ──▶ the task's vCPU is on a visit: a grace period ──▶ the visit ends ──▶ pool
//                         └──▶ it is not, as during the task's own calls ──▶ pool
//
// The life of a grace period, of which there are at most two:
//  1. open: visits are added, and all freed frames wait, regardless of their owner.
//  2. ending: no visit is added. When all its visits have ended, its frames go to the pool in bounded steps.
// An open period begins to end when the previous one has ended, so that no stream of revocations can hold frames
// forever.
//
// No request fails because frames wait: a step does not begin while free frames are short and some wait (`ServerLock`).

internal import GuestMemory
import Synchronization

/// The open and the ending grace period.
struct GracePeriods: ~Copyable {
  /// The visits that each of the two periods waits for.
  fileprivate var open: [Visit] = []
  fileprivate var ending: [Visit] = []
  /// Tasks that lost a leaf since the last zaps.
  fileprivate var touched: [TaskSlot] = []
  fileprivate var hasVisits: Bool { !open.isEmpty || !ending.isEmpty }
  /// Whether there are visits to wait for, or waiting frames.
  fileprivate(set) var isActive = false
  /// No period was active when the lock was taken: contents released before can be reused at once.
  var beganIdle = true
  /// A thread calls `watchGracePeriods` until no period is left.
  fileprivate var isWatched = false
  /// The number of periods that have ended.
  fileprivate(set) var ended: UInt64 = 0

  /// Frames that go to the pool in one step.
  fileprivate static let framesInOneStep = 256
  /// The maximum number of frames a step takes.
  static let framesOfAStep = 256
  /// The maximum number of frames a fault needs.
  static let framesOfAFault = 16
}

/// The progress of a grace period that a caller waits for.
enum PeriodProgress {
  case passed
  /// Waiting for visits to end.
  case waiting
  /// Frames are going to the pool, in steps.
  case freeing
}

extension ServerState {
  /// Records that a leaf of the task was cleared. Frames freed from now on wait, until the zaps are done and it is
  /// known whether the task was running.
  @inline(__always)
  mutating func noteEmptied(_ task: TaskSlot) {
    guard grace.touched.last != task, !tasks[task].isTouched else { return }
    tasks[task].isTouched = true
    grace.touched.append(task)
    pool.isGiving = false
  }

  /// Called after the zaps: decides whether the tasks that lost leaves are on visits.
  mutating func beginGracePeriod() {
    guard !grace.touched.isEmpty else { return }
    for task in grace.touched where tasks.contains(task) {
      tasks[task].isTouched = false
      guard let visit = events.visit(task) else { continue }
      revocations.isUnsettled = true
      guard tasks[task].awaited != visit else { continue }
      tasks[task].awaited = visit
      grace.open.append(visit)
    }
    grace.touched.removeAll(keepingCapacity: true)
    updateGracePeriods()
    guard grace.isActive, !grace.isWatched else { return }
    grace.isWatched = true
    events.watchGracePeriods()
  }

  private mutating func updateGracePeriods() {
    pool.isGiving = !grace.hasVisits && grace.touched.isEmpty
    grace.isActive = grace.hasVisits || pool.waitingCount > 0
  }

  /// Gives the frames of an ended period to the pool: a step's worth, or as many as are `needed`.
  mutating func endGracePeriods(needed: Int = 0) {
    guard grace.isActive else { return }
    defer { updateGracePeriods() }
    while true {
      // The last visit is polled until it is over, the others only after that.
      while let visit = grace.ending.last, events.visit(visit.slot) != visit { grace.ending.removeLast() }
      guard grace.ending.isEmpty else { return }
      pool.giveEnded(most: max(GracePeriods.framesInOneStep, needed - pool.takeableCount))
      guard pool.endingCount == 0 else { return }
      grace.ended += 1
      guard !grace.open.isEmpty || pool.waitingCount > 0 else { return }
      swap(&grace.open, &grace.ending)
      pool.endPeriod()
    }
  }

  private mutating func hurryVisits() {
    for visit in grace.ending { events.hurry(visit) }
    for visit in grace.open { events.hurry(visit) }
  }

  /// Whether there are too few frames for a step while some wait.
  private func lacksWaiting(_ needed: Int) -> Bool {
    grace.hasVisits && pool.takeableCount < needed && (pool.waitingCount > 0 || softReferences.count > 0)
  }

  /// Whether a step that takes up to `needed` frames can begin. If not, the awaited visits have been told to end.
  mutating func mayBegin(_ needed: Int) -> Bool {
    endGracePeriods(needed: needed)
    guard lacksWaiting(needed) else { return true }
    hurryVisits()
    endGracePeriods(needed: needed)
    return !lacksWaiting(needed)
  }

  /// Whether all frames that waited when `ended` periods had ended are free: two more have ended since. If that needs
  /// visits to end, they have been told to.
  mutating func hasPassed(_ ended: UInt64) -> PeriodProgress {
    endGracePeriods()
    if grace.hasVisits, grace.ended < ended + 2 {
      hurryVisits()
      endGracePeriods()
    }
    if !grace.isActive || grace.ended >= ended + 2 { return .passed }
    return grace.hasVisits && pool.endingCount == 0 ? .waiting : .freeing
  }

  /// Checks that between steps no zap is pending and frames wait only for visits.
  func checkGracePeriods(_ found: inout [String]) {
    if !grace.touched.isEmpty { found.append("leaves of \(grace.touched.count) tasks were cleared and not zapped") }
    if pool.isGiving == grace.hasVisits {
      found.append("freed frames \(pool.isGiving ? "do not wait" : "wait"), the visits are \(grace.hasVisits)")
    }
    if grace.isActive != (grace.hasVisits || pool.waitingCount > 0) {
      found.append("grace periods are wrongly marked active: \(grace.isActive)")
    }
    if grace.isActive, grace.hasVisits, !grace.isWatched { found.append("no thread watches the grace periods") }
  }

  /// One step of ending grace periods, for the watching thread. False: no period is left.
  mutating func watchGracePeriods() -> Bool {
    hurryVisits()
    endGracePeriods()
    grace.isWatched = grace.isActive
    return grace.isActive
  }
}

/// The server's lock. Taking it first waits, without it, while the frames that are needed are in a grace period.
struct ServerLock: ~Copyable, Sendable {
  private let state: Mutex<ServerState>
  private let departures: (any Departures)?
  private let isMeasured: Bool

  /// - Parameter isMeasured: measure how long the lock is held.
  init(_ state: consuming sending ServerState, departures: (any Departures)?, isMeasured: Bool = false) {
    self.state = Mutex(state)
    self.departures = departures
    self.isMeasured = isMeasured
  }

  /// Runs `body` with the lock held.
  /// - Parameter needed: an upper bound of the frames that `body` takes.
  @inline(__always)
  func withLock<Result: ~Copyable, Failure: Error>(
    needed: Int = GracePeriods.framesOfAStep, _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    while true {
      var seen: UInt64 = 0
      let result = try state.withLock { (state) throws(Failure) -> sending Result? in
        let start = isMeasured ? state.events.now : 0
        defer { if isMeasured { state.holds.add(state.events.now - start) } }
        state.grace.beganIdle = true
        if state.grace.isActive {
          // Read the count before the visits are checked, so that no departure is missed.
          seen = departures?.count ?? 0
          guard state.mayBegin(needed) else { return nil }
          state.grace.beganIdle = !state.grace.isActive
        }
        return try body(&state)
      }
      if let result { return result }
      departures?.wait(after: seen)
    }
  }

  /// Waits until no vCPU can access the frames that were freed or vacated by moves before the call.
  func waitForGracePeriod() {
    let start = state.withLock { $0.grace.isActive ? $0.grace.ended : nil }
    guard let start else { return }
    while true {
      let seen = departures?.count ?? 0
      switch state.withLock({ $0.hasPassed(start) }) {
      case .passed: return
      case .waiting: departures?.wait(after: seen)
      case .freeing: continue
      }
    }
  }
}
