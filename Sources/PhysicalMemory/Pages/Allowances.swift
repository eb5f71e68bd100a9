// Per-task quotas of records from a shared table. A task over its quota loses its own oldest entry, never that of
// another task.

internal import GuestMemory

/// The most recent entries of each task, in the order they were made. An entry may be stale by the time it is
/// displaced.
struct Allowances: ~Copyable {
  let perTask: Int
  private var entries: SparseArray<UInt64>
  /// Entries made since each task began.
  private var made: [Int]

  init(perTask: Int, tasks: Int) throws(ReservationError) {
    entries = try SparseArray(count: perTask * tasks)
    made = Array(repeating: 0, count: tasks)
    self.perTask = perTask
  }

  /// - Returns: the task's oldest entry, if it is displaced.
  mutating func enter(_ entry: UInt64, for task: TaskSlot) -> UInt64? {
    let slot = Int(task.rawValue)
    let index = slot * perTask + made[slot] % perTask
    defer {
      entries[index] = entry
      made[slot] += 1
    }
    return made[slot] < perTask ? nil : entries[index]
  }

  /// Resets a slot for its next task.
  mutating func begin(_ task: TaskSlot) { made[Int(task.rawValue)] = 0 }
}
