// The server's counters, as `physmem run --stats` and tests read them.

/// The server's counters since it began, and its current holdings. Counts are in frames unless stated otherwise.
public struct ServerStatistics: Equatable, Sendable {
  /// Served faults of all tasks, including ended ones. See `TaskCounters` for this and the next three.
  public var faults: UInt64 = 0
  /// Pages filled in by served faults.
  public var pagesServed: UInt64 = 0
  /// Faults whose leaf already permitted the access.
  public var spuriousFaults: UInt64 = 0
  /// Faults delivered to tasks.
  public var deliveredFaults: UInt64 = 0
  /// Leaves filled in by faults, and ahead of them by calls and launches.
  public var pagesMapped: UInt64 = 0
  /// Contents copied on a write.
  public var copiesOnWrite: UInt64 = 0
  /// Zap operations.
  public var zaps: UInt64 = 0
  /// Frames covered by zaps.
  public var framesZapped: UInt64 = 0
  /// Tasks created.
  public var tasksCreated: UInt64 = 0
  /// Demands for frames.
  public var upcalls: UInt64 = 0
  /// Tasks dropped because they missed a deadline.
  public var tasksDropped: UInt64 = 0
  /// Policies put into force.
  public var policyCommits: UInt64 = 0
  /// Released frames that were reused.
  public var framesExpired: UInt64 = 0
  /// Free frames whose memory was given back to the host.
  public var framesGivenBack: UInt64 = 0
  /// Contents moved to another frame.
  public var framesMoved: UInt64 = 0
  /// Placed allocations made.
  public var placements: UInt64 = 0
  /// Placed allocations refused for want of a place.
  public var placementsRefused: UInt64 = 0
  /// Superpages made at a fault.
  public var superpagesMapped: UInt64 = 0
  /// Superpages promoted from resident pages.
  public var superpagesPromoted: UInt64 = 0
  /// Regions whose contents were gathered for a superpage.
  public var superpagesGathered: UInt64 = 0
  /// Superpages now, and their splits.
  public var superpages = SuperpageCounts()
  /// Test revocations after which the frame was still written. Anything but 0 is an isolation error.
  public var strayWrites: UInt64 = 0

  /// Holds of the server's lock; 0 when they are not measured.
  public var holds: UInt64 = 0
  /// The longest hold in nanoseconds.
  public var longestHold: UInt64 = 0
  /// The 99.9th percentile in nanoseconds.
  public var commonHold: UInt64 = 0

  /// All frames of the pool.
  public var frames = 0
  /// Free frames, including waiting ones.
  public var freeFrames = 0
  /// Free frames in the zeroed stock.
  public var stockedFrames = 0
  /// Frames that tasks can have in total.
  public var allocatableFrames = 0
  /// The sum of all claims.
  public var claimedFrames = 0
  /// The sum of all allocations.
  public var allocatedFrames = 0
  /// Ids whose frames are released and can still be recovered.
  public var releasedFrames = 0
  /// Page tables, including those kept for ended tasks.
  public var tableFrames = 0
  /// Contents.
  public var contents = 0
  /// Containers, including dying ones.
  public var containers = 0
  /// Tasks, including ending ones.
  public var tasks = 0
  /// Loaded programs.
  public var images = 0
}

extension ServerState {
  var currentStatistics: ServerStatistics {
    var current = statistics
    current.holds = holds.count
    current.longestHold = holds.longest
    current.commonHold = holds.quantile(999)
    current.frames = pool.count
    current.freeFrames = pool.freeCount
    current.stockedFrames = pool.stockedCount
    current.allocatableFrames = ledger.allocatable
    current.claimedFrames = ledger.claimed
    current.allocatedFrames = ledger.allocated
    current.releasedFrames = softReferences.count
    current.tableFrames = tables.used
    current.contents = contents.count
    current.containers = containers.count
    current.tasks = tasks.count
    current.images = images.count
    current.superpages = spaces.superpageCounts
    return current
  }
}
