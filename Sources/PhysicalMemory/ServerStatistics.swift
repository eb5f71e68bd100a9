// The server's counters, as `physmem run --stats` and tests read them.

/// The server's counters since it began, and its current holdings. Counts are in frames unless stated otherwise.
public struct ServerStatistics: Equatable, Sendable {
  /// Over all tasks, ended ones included; see `TaskCounters`.
  public var faults: UInt64 = 0
  public var pagesServed: UInt64 = 0
  public var spuriousFaults: UInt64 = 0
  public var deliveredFaults: UInt64 = 0
  /// By faults, and ahead of them by calls and launches.
  public var pagesMapped: UInt64 = 0
  public var copiesOnWrite: UInt64 = 0
  /// Zap operations, and the frames they covered.
  public var zaps: UInt64 = 0
  public var framesZapped: UInt64 = 0
  public var tasksCreated: UInt64 = 0
  /// Demands for frames, and tasks dropped because they did not meet one.
  public var upcalls: UInt64 = 0
  public var tasksDropped: UInt64 = 0
  public var policyCommits: UInt64 = 0
  /// Released frames that were reused.
  public var framesExpired: UInt64 = 0
  /// Free frames whose memory was given back to the host.
  public var framesGivenBack: UInt64 = 0
  public var framesMoved: UInt64 = 0
  /// Placed allocations made, and those refused.
  public var placements: UInt64 = 0
  public var placementsRefused: UInt64 = 0
  /// Superpages made at a fault, and those promoted from resident pages.
  public var superpagesMapped: UInt64 = 0
  public var superpagesPromoted: UInt64 = 0
  /// Regions whose contents were gathered for a superpage.
  public var superpagesGathered: UInt64 = 0
  public var superpages = SuperpageCounts()
  /// Test revocations after which the frame was still written. Anything but 0 is an isolation error.
  public var strayWrites: UInt64 = 0

  /// Holds of the server's lock, when measured: their number, the longest in nanoseconds, and the 99.9th percentile in
  /// nanoseconds.
  public var holds: UInt64 = 0
  public var longestHold: UInt64 = 0
  public var commonHold: UInt64 = 0

  public var frames = 0
  public var freeFrames = 0
  public var stockedFrames = 0
  public var allocatableFrames = 0
  public var claimedFrames = 0
  public var allocatedFrames = 0
  /// Ids whose frames are released and can still be recovered.
  public var releasedFrames = 0
  public var tableFrames = 0
  public var contents = 0
  public var containers = 0
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
