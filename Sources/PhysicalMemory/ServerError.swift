// The errors a task can get from a call. The values are those of `enum pm_error` in the guest interface.

/// An error as the task sees it; `guest/include/physmem.h` says which call returns which.
public enum ServerError: UInt32, Error, Sendable {
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
}
