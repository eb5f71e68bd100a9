// How much is done in one hold of the server's lock: a call that may take long looks here whether it should go on, and
// gives the lock to others when it should not.
//
// What counts is all that takes time: what is looked at as well as what is changed. One unit of work is about 100 ns on
// a slow machine. Units bound a step whatever the clock does, and alike in each run of a test; the clock bounds it where
// units cost more than was thought. Each step does something, however late it is.

internal import GuestMemory

/// Units of work.
enum Work {
  /// An id, or a node of a chain, looked at.
  static let look = 1
  /// A place whose mapping was looked up.
  static let place = 2
  /// A leaf changed.
  static let leaf = 4
  /// A run of frames zapped, and each further frame of it.
  static let zap = 24
  static let zappedFrame = 3
  /// A soft reference made or dropped.
  static let reference = 4
  /// A frame taken and cleared, or copied.
  static let frame = 16
  /// A content made private. No step makes more of them than `GracePeriods.framesOfAStep`.
  static let copy = 128
}

struct Step {
  static let most = 4096
  /// What a step may do. Only tests change it.
  var limit = Self.most
  private static let nanoseconds: UInt64 = 400_000
  /// Looking at the clock costs about as much as this.
  private static let betweenLooks = 64

  /// Since the server began.
  private(set) var work = 0
  private var end = 0
  private var nextLook = 0
  private var deadline: UInt64 = 0

  /// For tests: the most that was done from one beginning to the next.
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

  /// Units left, at least one: for what is best done in one go.
  var left: Int { max(1, end - work) }

  mutating func isOver(_ now: () -> UInt64) -> Bool {
    if work >= end { return true }
    guard work >= nextLook else { return false }
    nextLook = work + Self.betweenLooks
    guard now() >= deadline else { return false }
    // Time does not go back: nobody needs to look again.
    end = work
    return true
  }
}

extension ServerState {
  mutating func beginStep() { step.begin(now: events.now) }

  /// Whether the step has done its share. It is asked between one thing done and the next.
  var isStepOver: Bool {
    mutating get {
      let events = events
      return step.isOver { events.now }
    }
  }
}

extension PhysicalMemoryServer {
  /// For tests: a step does so much, in units of work; nil: as much as ever.
  package func limitSteps(to work: Int?) { withState { $0.step.limit = work ?? Step.most } }
}
