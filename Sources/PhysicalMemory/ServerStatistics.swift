// The server's counters, as `physmem run --stats` and tests read them.

/// What the server has done since it began, and what it holds now. Counts are in frames where nothing else is said.
public struct ServerStatistics: Equatable, Sendable {
  /// Of all tasks there were: as in `TaskCounters`.
  public var faults: UInt64 = 0
  public var pagesServed: UInt64 = 0
  public var spuriousFaults: UInt64 = 0
  public var deliveredFaults: UInt64 = 0
  /// By faults, and by calls and launches ahead of them.
  public var pagesMapped: UInt64 = 0
  public var copiesOnWrite: UInt64 = 0
  /// Calls, and the frames they covered.
  public var zaps: UInt64 = 0
  public var framesZapped: UInt64 = 0
  public var tasksCreated: UInt64 = 0
  /// Demands for frames, and tasks that did not meet theirs.
  public var upcalls: UInt64 = 0
  public var tasksDropped: UInt64 = 0
  public var policyCommits: UInt64 = 0
  /// Released frames that were used for something else.
  public var framesExpired: UInt64 = 0
  /// Free frames whose memory went back to the host.
  public var framesGivenBack: UInt64 = 0
  public var framesMoved: UInt64 = 0
  /// Placed allocations, and those for which there was no place.
  public var placements: UInt64 = 0
  public var placementsRefused: UInt64 = 0
  /// Superpages made at a fault, and of frames that tasks had already.
  public var superpagesMapped: UInt64 = 0
  public var superpagesPromoted: UInt64 = 0
  /// Regions whose contents were moved together for one.
  public var superpagesGathered: UInt64 = 0
  public var superpages = SuperpageCounts()
  /// Revocations for tests after which the frame was written all the same. Anything but 0 is a broken promise.
  public var strayWrites: UInt64 = 0

  /// Of the server's lock, where that is measured. Times are in nanoseconds: the longest, and what 999 of 1,000 do not exceed.
  public var holds: UInt64 = 0
  public var longestHold: UInt64 = 0
  public var commonHold: UInt64 = 0

  public var frames = 0
  public var freeFrames = 0
  public var stockedFrames = 0
  public var allocatableFrames = 0
  public var claimedFrames = 0
  public var allocatedFrames = 0
  /// Ids whose frames have been released and can be recovered.
  public var releasedFrames = 0
  public var tableFrames = 0
  public var contents = 0
  public var containers = 0
  public var tasks = 0
  /// Programs that are loaded.
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
