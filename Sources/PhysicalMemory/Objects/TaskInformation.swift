// What a task and the command can learn about frames: pm_task_info, and the statistics.

internal import GuestMemory

/// What pm_task_info tells. Counts are in frames.
public struct TaskInformation: Equatable, Sendable {
  public var id: TaskID
  public var guaranteed: Int
  public var allocated: Int
  public var swapped: Int
  /// What it could allocate now, extra frames included.
  public var available: Int
  /// In percent: 0: nothing is in use; 100: everything is, or somebody waits for frames.
  public var pressure: Int
  public var counters: TaskCounters
}

extension ServerState {
  func taskInformation(_ task: TaskSlot) -> TaskInformation {
    let entitlement = tasks[task].entitlement
    return TaskInformation(
      id: tasks[task].id,
      guaranteed: entitlement.guaranteed,
      allocated: entitlement.allocated,
      swapped: entitlement.swapped,
      available: ledger.headroom(entitlement, extra: true, lendable: lendable),
      pressure: lendable == 0 ? 100 : 100 * ledger.allocated / ledger.allocatable,
      counters: tasks[task].counters)
  }
}
