// Who may have how many frames (R2–R6).

/// One task's share. Counts are in frames.
struct Entitlement: BitwiseCopyable {
  /// Frames it always gets.
  var guaranteed = 0
  /// Virtual frames of the containers it owns.
  var allocated = 0
  var swapped = 0
  /// Whether it may go beyond its guarantee at all.
  var mayUseExtra = true
  /// False: nobody decided about this task, and it takes what it wants, first come, first served (R8).
  var hasContract = false

  /// What the task keeps from others: what it has, or what it was promised.
  var claim: Int { max(guaranteed, allocated) }
}

/// The machine's frames against all claims: `claimed` never exceeds `allocatable`, so that a frame within a
/// guarantee is always there (R3, R4). All checks are O(1).
struct Ledger {
  /// Frames that tasks can have at all.
  private(set) var allocatable: Int
  /// The sum of all claims.
  private(set) var claimed = 0

  init(allocatable: Int) { self.allocatable = allocatable }

  var unclaimed: Int { allocatable - claimed }

  /// How many more frames the task may allocate now. `extra`: the request may go beyond the guarantee.
  func headroom(_ entitlement: Entitlement, extra: Bool) -> Int {
    let guaranteedLeft = max(0, entitlement.guaranteed - entitlement.allocated)
    let mayGoBeyond = entitlement.mayUseExtra && (extra || !entitlement.hasContract)
    return guaranteedLeft + (mayGoBeyond ? unclaimed : 0)
  }

  /// Books `count` frames (or gives back, if negative) that `headroom` allowed.
  mutating func charge(_ entitlement: inout Entitlement, _ count: Int) {
    let before = entitlement.claim
    entitlement.allocated += count
    claimed += entitlement.claim - before
    precondition(entitlement.allocated >= 0 && claimed <= allocatable)
  }

  /// Sets a guarantee; false, and nothing changed, when it would overcommit (R4).
  mutating func setGuarantee(_ entitlement: inout Entitlement, _ guaranteed: Int) -> Bool {
    // Whoever asks may name any number: first the bounds, so that no sum overflows.
    guard guaranteed >= 0, guaranteed <= allocatable else { return false }
    var changed = entitlement
    changed.guaranteed = guaranteed
    let claimed = claimed - entitlement.claim + changed.claim
    guard claimed <= allocatable else { return false }
    self.claimed = claimed
    entitlement = changed
    return true
  }

  /// Takes frames away from what tasks can have, for the server's own tables; false when all are claimed.
  mutating func withdraw(_ count: Int) -> Bool {
    guard unclaimed >= count else { return false }
    allocatable -= count
    return true
  }

  mutating func restore(_ count: Int) { allocatable += count }
}
