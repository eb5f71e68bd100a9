// The search for a window of frames that can be cleared: a scan of the frame records, in bounded steps.

internal import GuestMemory

/// The position of a search. Counts are in frames.
struct PlacementSearch {
  private static let recordsInOneStep = 1 << 15

  /// The result of a step.
  enum Result {
    case found(FrameRun)
    case searching
    /// The scan is over; the last obstacle encountered, if any.
    case nothing(Obstacle?)
  }

  private let count: Int
  /// Where passes over the pool begin: the zone below 16 MiB is scanned last.
  private let allPasses: [Int]
  private var passes: [Int]
  /// The start of the current window, and the end of its frames that were checked.
  private var start: Int
  private var next: Int
  private var hasBegun = false
  private var wantsFree = true
  private var obstacle: Obstacle?

  init(_ placement: Placement, count: Int) {
    self.count = count
    let scarce = Int(FrameZone.below4GiB.start.rawValue)
    allPasses = placement.end > scarce ? [1, scarce] : [1]
    passes = allPasses
    start = 0
    next = 0
    beginPass()
  }

  private mutating func beginPass() {
    start = passes.popLast() ?? .max
    next = start
  }

  /// True the first time.
  mutating func begin() -> Bool {
    defer { hasBegun = true }
    return !hasBegun
  }

  /// Continues behind a frame that turned out to be an obstacle.
  mutating func goOn(behind frame: FrameNumber) {
    start = Int(frame.rawValue) + 1
    next = start
  }

  /// Searches for a run.
  mutating func step(_ placement: Placement, _ state: borrowing ServerState) -> Result {
    var left = Self.recordsInOneStep
    while left > 0 {
      guard start != .max, let aligned = placement.start(from: start, count: count) else {
        if passes.isEmpty { return .nothing(obstacle) }
        beginPass()
        continue
      }
      start = aligned
      next = max(next, start)
      while next < start + count, left > 0 {
        let frame = FrameNumber(UInt32(next))
        left -= 1
        if !state.canBeCleared(frame) {
          obstacle = state.obstacle(at: frame)
          start = next + 1
          break
        }
        next += 1
      }
      if next == start + count {
        // If the caller comes back, the window contained an obstacle.
        return .found(FrameRun(start: FrameNumber(UInt32(start)), count: count))
      }
    }
    return .searching
  }

  /// Searches for a single frame: first a free one, then one with a movable content. Does not advance until the frame
  /// is neither.
  mutating func nextSingle(
    _ placement: Placement, _ state: borrowing ServerState, for task: TaskSlot
  ) -> Result {
    for _ in 0..<Self.recordsInOneStep {
      guard start != .max, let aligned = placement.start(from: start, count: 1) else {
        if passes.isEmpty {
          guard wantsFree else { return .nothing(obstacle) }
          wantsFree = false
          passes = allPasses
        }
        beginPass()
        continue
      }
      let frame = FrameNumber(UInt32(aligned))
      if wantsFree ? state.canBeTaken(frame) : state.canBeCleared(frame) {
        start = aligned
        return .found(FrameRun(start: frame, count: 1))
      }
      if !wantsFree, !state.isIsolated(frame, task) { obstacle = state.obstacle(at: frame) }
      start = aligned + 1
    }
    return .searching
  }
}

extension ServerState {
  /// Whether the frame is free.
  func canBeTaken(_ frame: FrameNumber) -> Bool {
    switch pool.records[frame].state {
    case .loose, .stocked, .freeHead: true
    case .interior: Int(frame.rawValue) < pool.runs.end
    default: false
    }
  }

  /// Whether the frame is free, waiting, or holds a movable content, and is not in the area for page tables.
  func canBeCleared(_ frame: FrameNumber) -> Bool {
    canBeTaken(frame)
      || Int(frame.rawValue) < pool.runs.end && (isMovable(frame) || pool.records[frame].state == .waiting)
  }
}
