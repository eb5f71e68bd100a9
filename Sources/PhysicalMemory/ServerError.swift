// What a call can answer; the values are those of `enum pm_error` in the guest interface.

public enum ServerError: Int32, Error, Sendable {
  case notPermitted = 1
  case noEntry = 2
  case exists = 3
  case noMemory = 4
  case contentGone = 5
  case invalid = 6
  case busy = 7
  case timedOut = 8
  case inputOutput = 9
  case noSpace = 10
  case fault = 11
  case canceled = 12
  case again = 13
  /// Never told to a task: frames that the call needs are being taken back from others. `frameWait` says when to make
  /// the call again.
  case waitForFrames = -1
  /// Never told to a task: it is to end (`mustStop`), and the call was given up between two steps.
  case stopped = -2
}
