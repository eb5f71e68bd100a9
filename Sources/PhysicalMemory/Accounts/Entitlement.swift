// Who may have how many frames (R2–R6).
//
//      allocated ≤ allocatable     so that there is a frame behind every virtual frame
//      claimed   ≤ allocatable     so that whoever has a claim can be given its frames, if need be by taking extra
//                                  frames back from others (ReclaimRound.swift)

/// One task's share. Counts are in frames.
struct Entitlement: BitwiseCopyable {
  /// Frames it always gets.
  var guaranteed = 0
  /// Virtual frames of the containers it owns, and what is set aside for a call of its under way.
  var allocated = 0
  /// What its request waits for.
  var awaited = 0
  var swapped = 0
  var swapQuota = 0
  /// Whether it may go beyond its guarantee at all.
  var mayUseExtra = true
  /// False: nobody decided about this task, and it takes what it wants, first come, first served (R8): what it has is
  /// as good as guaranteed.
  var hasContract = false

  /// What others cannot be promised.
  var claim: Int { hasContract ? guaranteed : max(guaranteed, allocated + awaited) }
  /// What it can be asked to give back.
  var extra: Int { max(0, allocated - claim) }
  /// What it may allocate whatever others do.
  var guaranteedLeft: Int { max(0, guaranteed - allocated) }
}

/// The machine's frames against all that tasks have and may have. All checks are O(1).
struct Ledger {
  /// Frames that tasks can have at all.
  private(set) var allocatable: Int
  /// The sum of all claims, and of what withdrawals wait for.
  private(set) var claimed = 0
  /// The sum of what all tasks have.
  private(set) var allocated = 0

  init(allocatable: Int) { self.allocatable = allocatable }

  /// What tasks without a contract can have, and what new guarantees can promise.
  var unclaimed: Int { allocatable - claimed }
  /// What is there now, without taking anything back.
  var free: Int { allocatable - allocated }

  /// How many more frames the task may allocate. Those beyond `free` must be taken back from others first; there are
  /// always enough to be taken.
  /// - Parameter lendable: what there is for those who go beyond their guarantee.
  func headroom(_ entitlement: Entitlement, extra: Bool, lendable: Int) -> Int {
    guard entitlement.hasContract else {
      return entitlement.guaranteedLeft + (entitlement.mayUseExtra ? unclaimed : 0)
    }
    guard extra, entitlement.mayUseExtra else { return entitlement.guaranteedLeft }
    return max(entitlement.guaranteedLeft, lendable)
  }

  /// What a request waits for is the task's from now on, so that nobody is promised it meanwhile (0: no longer). A
  /// task without a contract has no other claim to it.
  mutating func setAwaited(_ entitlement: inout Entitlement, _ count: Int) {
    let before = entitlement.claim
    entitlement.awaited = count
    claimed += entitlement.claim - before
    precondition(claimed <= allocatable)
  }

  /// Books `count` frames (or gives back, if negative) that `headroom` allowed and that are there.
  mutating func charge(_ entitlement: inout Entitlement, _ count: Int) {
    let before = entitlement.claim
    entitlement.allocated += count
    allocated += count
    claimed += entitlement.claim - before
    precondition(entitlement.allocated >= 0 && claimed <= allocatable && allocated <= allocatable)
  }

  /// Sets what a task is promised; false, and nothing changed, when it would overcommit (R4).
  mutating func set(_ entitlement: inout Entitlement, guaranteed: Int, hasContract: Bool) -> Bool {
    // Whoever asks may name any number: first the bounds, so that no sum overflows.
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

  /// Takes frames away from what tasks can have, for the server's own tables; false when they are claimed or in use.
  mutating func withdraw(_ count: Int) -> Bool {
    guard min(unclaimed, free) >= count else { return false }
    allocatable -= count
    return true
  }

  mutating func restore(_ count: Int) { allocatable += count }

  /// Promises frames to a withdrawal that waits until they are there (or no longer, if negative): `unclaimed` has them.
  mutating func promise(_ count: Int) {
    claimed += count
    precondition(claimed <= allocatable)
  }

  /// Takes frames away that were promised, and are there.
  mutating func withdrawPromised(_ count: Int) {
    claimed -= count
    allocatable -= count
    precondition(allocated <= allocatable)
  }
}
