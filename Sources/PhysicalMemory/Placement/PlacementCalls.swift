// Defragmentation, and the interface of placement for the machine and for tests.

internal import CGuestABI
internal import GuestMemory

extension PhysicalMemoryServer {
  /// What blocked the task's last refused placement; `.none` if it was no single frame.
  public func placementObstacle(_ task: TaskSlot) -> Obstacle {
    withState { $0.tasks[task].obstacle ?? Obstacle(address: 0, kind: .none) }
  }

  // MARK: Defragmentation

  /// The current fragmentation of free memory.
  public var fragmentation: Fragmentation { withState { $0.fragmentation } }

  /// One step of a compaction pass. False: it is over.
  public func continueDefragmentation(_ pass: inout DefragmentationPass) -> Bool {
    withState { $0.continueDefragmentation(&pass) }
  }

  /// For measurements: moves a step's worth of the contents from `position` on.
  /// - Returns: the number moved; nil: no frames are left, or there is no destination.
  public func moveNextFrames(_ position: inout Int) -> Int? { withState { $0.moveNextFrames(&position) } }

  /// For tests: moves a random content to another frame, as the server may at any time.
  /// - Returns: whether a content was moved.
  public func moveSomeFrame(_ random: UInt64) -> Bool { withState { $0.moveSomeFrame(random) } }
}
