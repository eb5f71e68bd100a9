// The tasks that have been launched and have not ended.
//
// The list is open until the machine is shut down. A task is added before it starts, so closing the list returns every
// task that will ever run.

internal import PhysicalMemory
import Synchronization

/// The list of live tasks.
final class TaskList: Sendable {
  private struct State {
    var tasks: [UInt64: GuestTask] = [:]
    var isClosed = false
  }
  private let state = Mutex(State())

  /// Adds a task.
  /// - Returns: false if the list is closed and the task must not be started.
  func add(_ task: GuestTask) -> Bool {
    state.withLock { state in
      if !state.isClosed { state.tasks[task.id.rawValue] = task }
      return !state.isClosed
    }
  }

  func remove(_ task: GuestTask) { state.withLock { _ = $0.tasks.removeValue(forKey: task.id.rawValue) } }

  /// Closes the list to new tasks.
  /// - Returns: the tasks that have not ended yet.
  func close() -> [GuestTask] {
    state.withLock { state in
      state.isClosed = true
      return Array(state.tasks.values)
    }
  }
}
