// What a call can answer; the values are those of `enum pm_error` in the guest interface.

public enum ServerError: Error, Sendable {
  case notPermitted
  case noEntry
  case exists
  case noMemory
  case contentGone
  case invalid
  case busy
  case timedOut
  case inputOutput
  case noSpace
  case fault
  case canceled
  case again
  /// Frames that the call needs are being taken back from others. `frameWait` says when to make the call again.
  case waitForFrames
  /// The task is to end (`mustStop`), and the call was given up between two steps.
  case stopped

  /// What a task is told; nil: it is told nothing. Whoever makes a call for a task waits for frames and makes it again; and
  /// one that is stopped runs no more.
  public var answer: UInt32? {
    switch self {
    case .notPermitted: 1
    case .noEntry: 2
    case .exists: 3
    case .noMemory: 4
    case .contentGone: 5
    case .invalid: 6
    case .busy: 7
    case .timedOut: 8
    case .inputOutput: 9
    case .noSpace: 10
    case .fault: 11
    case .canceled: 12
    case .again: 13
    case .waitForFrames, .stopped: nil
    }
  }
}
