// What a task may have of records that all tasks share: so many for each, whatever the others do. Who wants more loses what
// it got first, and nobody else loses anything.

internal import GuestMemory

/// The last so many entries of each task, in the order in which they were made. An entry may be out of date by the time
/// it is displaced.
struct Allowances: ~Copyable {
  let perTask: Int
  private var entries: SparseArray<UInt64>
  /// Made since each task began.
  private var made: [Int]

  init(perTask: Int, tasks: Int) throws(ReservationError) {
    entries = try SparseArray(count: perTask * tasks)
    made = Array(repeating: 0, count: tasks)
    self.perTask = perTask
  }

  /// - Returns: the task's oldest entry, if this is one too many.
  mutating func enter(_ entry: UInt64, for task: TaskSlot) -> UInt64? {
    let slot = Int(task.rawValue)
    let index = slot * perTask + made[slot] % perTask
    defer {
      entries[index] = entry
      made[slot] += 1
    }
    return made[slot] < perTask ? nil : entries[index]
  }

  /// Another task has the slot.
  mutating func begin(_ task: TaskSlot) { made[Int(task.rawValue)] = 0 }
}
