// The tasks that have been launched and have not ended.

internal import PhysicalMemory
import Synchronization

final class TaskList: Sendable {
  private let tasks = Mutex<[UInt64: GuestTask]>([:])

  func add(_ task: GuestTask) { tasks.withLock { $0[task.id.rawValue] = task } }
  func remove(_ task: GuestTask) { tasks.withLock { _ = $0.removeValue(forKey: task.id.rawValue) } }
  var all: [GuestTask] { tasks.withLock { Array($0.values) } }
}
