// The budget of one hold of the server's lock. A long call checks it and releases the lock when the budget is used up.
//
// Every visit and every change counts. A unit of work is about 100 ns on a slow machine. Units bound a step
// independently of the clock and identically in each run of a test; the clock bounds it where units cost more than
// expected. Each step makes progress, however late it is.

internal import GuestMemory

/// Costs in units of work.
enum Work {
  /// Visiting an id or a node of a chain.
  static let look = 1
  /// Looking up the mapping of a place.
  static let place = 2
  /// Changing a leaf.
  static let leaf = 4
  /// Zapping a run of frames, and each further frame of it.
  static let zap = 24
  static let zappedFrame = 3
  /// Making or dropping a soft reference.
  static let reference = 4
  /// Taking and zeroing a frame, or copying one.
  static let frame = 16
  /// Making a content private. At most `GracePeriods.framesOfAStep` in a step.
  static let copy = 128
}

struct Step {
  static let most = 4096
  /// The budget of a step. Only tests change it.
  var limit = Self.most
  private static let nanoseconds: UInt64 = 400_000
  /// Units between two readings of the clock, which cost about as much.
  private static let betweenLooks = 64

  /// Units since the server began.
  private(set) var work = 0
  private var end = 0
  private var nextLook = 0
  private var deadline: UInt64 = 0

  /// For tests: the most work of any step.
  private(set) var longest = 0
  private var start = 0

  mutating func begin(now: UInt64) {
    longest = max(longest, work - start)
    start = work
    end = work + limit
    nextLook = work + Self.betweenLooks
    deadline = now + Self.nanoseconds
  }

  @inline(__always)
  mutating func count(_ units: Int) { work += units }

  /// Units left, at least one; for work that is done as a whole.
  var left: Int { max(1, end - work) }

  mutating func isOver(_ now: () -> UInt64) -> Bool {
    if work >= end { return true }
    guard work >= nextLook else { return false }
    nextLook = work + Self.betweenLooks
    guard now() >= deadline else { return false }
    // Time does not go back: no further reading is needed.
    end = work
    return true
  }
}

extension ServerState {
  mutating func beginStep() { step.begin(now: events.now) }

  /// Whether the budget is used up. Checked between two units of progress.
  var isStepOver: Bool {
    mutating get {
      let events = events
      return step.isOver { events.now }
    }
  }
}

extension PhysicalMemoryServer {
  /// For tests: sets the budget of a step in units of work; nil: the default.
  package func limitSteps(to work: Int?) { withState { $0.step.limit = work ?? Step.most } }
}
