// The task information of pm_task_info.

internal import GuestMemory

/// The result of pm_task_info (R14). Counts are in frames.
public struct TaskInformation: Equatable, Sendable {
  /// The task's id.
  public var id: TaskID
  /// The guarantee.
  public var guaranteed: Int
  /// What the task has.
  public var allocated: Int
  /// What is in swap.
  public var swapped: Int
  /// What it could allocate now, including extra frames.
  public var available: Int
  /// In percent: 0: no frame is in use; 100: all are, or a request waits.
  public var pressure: Int
  /// The task's counters.
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
