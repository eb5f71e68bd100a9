// How many frames each task may have (R2–R6).
//
//      allocated ≤ allocatable     every virtual frame can be backed by a frame
//      claimed   ≤ allocatable     every claim can be met, if necessary by taking extra frames back from other tasks
//      (ReclaimRound.swift)

/// A task's entitlement. Counts are in frames.
struct Entitlement: BitwiseCopyable {
  /// Frames it is guaranteed.
  var guaranteed = 0
  /// Virtual frames of the containers it owns, and frames set aside for a call of its under way.
  var allocated = 0
  /// Frames its request waits for.
  var awaited = 0
  var swapped = 0
  var swapQuota = 0
  /// Whether it may exceed its guarantee.
  var mayUseExtra = true
  /// False: no policy has been set for the task. It is served first come, first served (R8), and what it has counts as
  /// guaranteed.
  var hasContract = false

  /// Frames that cannot be promised to other tasks.
  var claim: Int { hasContract ? guaranteed : max(guaranteed, allocated + awaited) }
  /// Frames that can be demanded back.
  var extra: Int { max(0, allocated - claim) }
  /// Frames it may allocate regardless of other tasks.
  var guaranteedLeft: Int { max(0, guaranteed - allocated) }
}

/// The machine's frames against the claims and allocations of all tasks. All checks are O(1).
struct Ledger {
  /// Frames that tasks can have in total.
  private(set) var allocatable: Int
  /// The sum of all claims and of pending withdrawals.
  private(set) var claimed = 0
  /// The sum of all allocations.
  private(set) var allocated = 0

  init(allocatable: Int) { self.allocatable = allocatable }

  /// Frames that tasks without a contract can have, and that new guarantees can promise.
  var unclaimed: Int { allocatable - claimed }
  /// Frames available now, without reclaim.
  var free: Int { allocatable - allocated }

  /// The number of frames the task may still allocate. Those beyond `free` must be reclaimed from other tasks first,
  /// which always have enough.
  /// - Parameter lendable: frames available to tasks beyond their guarantee.
  func headroom(_ entitlement: Entitlement, extra: Bool, lendable: Int) -> Int {
    guard entitlement.hasContract else {
      return entitlement.guaranteedLeft + (entitlement.mayUseExtra ? unclaimed : 0)
    }
    guard extra, entitlement.mayUseExtra else { return entitlement.guaranteedLeft }
    return max(entitlement.guaranteedLeft, lendable)
  }

  /// Reserves the frames that a request waits for, so that they are not promised to other tasks meanwhile (0: no
  /// longer). A task without a contract has no other claim to them.
  mutating func setAwaited(_ entitlement: inout Entitlement, _ count: Int) {
    let before = entitlement.claim
    entitlement.awaited = count
    claimed += entitlement.claim - before
    precondition(claimed <= allocatable)
  }

  /// Charges `count` available frames that `headroom` allowed (uncharges if negative).
  mutating func charge(_ entitlement: inout Entitlement, _ count: Int) {
    let before = entitlement.claim
    entitlement.allocated += count
    allocated += count
    claimed += entitlement.claim - before
    precondition(entitlement.allocated >= 0 && claimed <= allocatable && allocated <= allocatable)
  }

  /// Sets a task's guarantee. False, with nothing changed, when that would overcommit (R4).
  mutating func set(_ entitlement: inout Entitlement, guaranteed: Int, hasContract: Bool) -> Bool {
    // The number is untrusted: check the bounds first, so that no sum overflows.
    guard guaranteed >= 0, guaranteed <= allocatable else { return false }
    var changed = entitlement
    changed.guaranteed = guaranteed
    changed.hasContract = hasContract
    let claimed = claimed - entitlement.claim + changed.claim
    guard claimed <= allocatable else { return false }
    self.claimed = claimed
    entitlement = changed
    return true
  }

  /// Withdraws frames for the server's own tables. False when they are claimed or in use.
  mutating func withdraw(_ count: Int) -> Bool {
    guard min(unclaimed, free) >= count else { return false }
    allocatable -= count
    return true
  }

  mutating func restore(_ count: Int) { allocatable += count }

  /// Promises `unclaimed` frames to a pending withdrawal (takes the promise back if negative).
  mutating func promise(_ count: Int) {
    claimed += count
    precondition(claimed <= allocatable)
  }

  /// Withdraws frames that were promised and are available.
  mutating func withdrawPromised(_ count: Int) {
    claimed -= count
    allocatable -= count
    precondition(allocated <= allocatable)
  }
}
