// Reuse waits: a frame that was taken from a running task becomes free only when nobody can still be looking at it.
//
// A zap ends what processors hold. It does not end what KVM has in hand: to carry out an instruction for a task, KVM
// looks an address up in the page tables and then uses the frame, and its thread may be stopped between the two for as
// long as the host likes (docs/internals/decisions/0016-frames-wait-for-visits-to-kvm.md). But it forgets the frame before it
// returns from KVM_RUN. So a frame may be reused when each vCPU that was in KVM_RUN, a visit, when a leaf of its task
// went, has left since. This is read-copy-update with KVM_RUN as the reader.
//
//      leaf emptied ──▶ zap ──▶ the task's vCPU is on a visit: a grace period ──▶ the visit ends ──▶ pool
//                          └──▶ it is not, as with each task's own calls ──▶ pool
//
// The life of a grace period, of which there are two at most:
//  1. open: visits are added, and all frames that are given back wait, whoever had them.
//  2. ending: no visit is added. When all of its visits are over, its frames go to the pool, in bounded steps.
// An open one begins to end when the one before it has ended, so that no stream of revocations can keep frames for ever.
//
// Nobody fails because frames wait: what takes frames does not begin while there are too few and some wait (`ServerLock`).

internal import GuestMemory
import Synchronization

struct GracePeriods: ~Copyable {
  /// The visits that each of the two periods waits for.
  fileprivate var open: [Visit] = []
  fileprivate var ending: [Visit] = []
  /// Tasks whose leaves were emptied since the last zaps.
  fileprivate var touched: [TaskSlot] = []
  fileprivate var hasVisits: Bool { !open.isEmpty || !ending.isEmpty }
  /// There are visits to wait for, or frames that wait.
  fileprivate(set) var isActive = false
  /// There was none when the lock was taken: what was released before that is nobody's to see.
  var beganIdle = true
  /// Somebody calls `endGracePeriods` until there is nothing more to be done.
  fileprivate var isWatched = false
  /// Periods that have ended.
  fileprivate(set) var ended: UInt64 = 0

  /// Frames that go to the pool in one step.
  fileprivate static let framesInOneStep = 256
  /// No step takes more frames than this.
  static let framesOfAStep = 256
  /// Nor a fault, for all that it must have.
  static let framesOfAFault = 16
}

enum PeriodProgress {
  case passed
  /// For visits to end.
  case waiting
  /// Frames are on their way to the pool, in steps.
  case freeing
}

extension ServerState {
  /// A leaf of the task was emptied. What is given back from here on waits, until the zaps are done and it is known whether
  /// the task was running.
  @inline(__always)
  mutating func noteEmptied(_ task: TaskSlot) {
    guard grace.touched.last != task, !tasks[task].isTouched else { return }
    tasks[task].isTouched = true
    grace.touched.append(task)
    pool.isGiving = false
  }

  /// The leaves emptied so far are zapped.
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

  /// Gives the frames of a period that is over to the pool: a step's worth, or as many as are `needed`.
  mutating func endGracePeriods(needed: Int = 0) {
    guard grace.isActive else { return }
    defer { updateGracePeriods() }
    while true {
      // The last one is looked at again and again, and the others only when it is over.
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

  /// Whether there are too few frames for a step, and more of them when visits have ended.
  private func lacksWaiting(_ needed: Int) -> Bool {
    grace.hasVisits && pool.takeableCount < needed && (pool.waitingCount > 0 || softReferences.count > 0)
  }

  /// Whether a step that may take so many frames can begin. If not, the visits it waits for have been told to end.
  mutating func mayBegin(_ needed: Int) -> Bool {
    endGracePeriods(needed: needed)
    guard lacksWaiting(needed) else { return true }
    hurryVisits()
    endGracePeriods(needed: needed)
    return !lacksWaiting(needed)
  }

  /// Whether all frames that waited when so many periods had `ended` are free: two more have ended since. If not, and the
  /// thing to wait for is the end of visits, those have been told to end.
  mutating func hasPassed(_ ended: UInt64) -> PeriodProgress {
    endGracePeriods()
    if grace.hasVisits, grace.ended < ended + 2 {
      hurryVisits()
      endGracePeriods()
    }
    if !grace.isActive || grace.ended >= ended + 2 { return .passed }
    return grace.hasVisits && pool.endingCount == 0 ? .waiting : .freeing
  }

  /// Between steps nothing is half done, and frames wait for somebody only.
  func checkGracePeriods(_ found: inout [String]) {
    if !grace.touched.isEmpty { found.append("leaves of \(grace.touched.count) tasks were emptied and not zapped") }
    if pool.isGiving == grace.hasVisits {
      found.append("frames given back \(pool.isGiving ? "do not wait" : "wait"), the visits are \(grace.hasVisits)")
    }
    if grace.isActive != (grace.hasVisits || pool.waitingCount > 0) {
      found.append("grace periods are said to be active: \(grace.isActive)")
    }
    if grace.isActive, grace.hasVisits, !grace.isWatched { found.append("nobody watches the grace periods") }
  }

  /// For who watches: one step. False: there is nothing more to be done.
  mutating func watchGracePeriods() -> Bool {
    hurryVisits()
    endGracePeriods()
    grace.isWatched = grace.isActive
    return grace.isActive
  }
}

/// The server's lock. Who wants it waits first, without it, where frames that are needed cannot be used yet.
struct ServerLock: ~Copyable, Sendable {
  private let state: Mutex<ServerState>
  private let departures: (any Departures)?
  private let isMeasured: Bool

  /// - Parameter isMeasured: see to it how long the lock is held.
  init(_ state: consuming sending ServerState, departures: (any Departures)?, isMeasured: Bool = false) {
    self.state = Mutex(state)
    self.departures = departures
    self.isMeasured = isMeasured
  }

  /// - Parameter needed: more frames than `body` takes.
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
          // Before it is looked whether visits are over: none is missed.
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

  /// Waits until frames that have been given back so far, and those that were left by moves, are nobody's to see.
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
