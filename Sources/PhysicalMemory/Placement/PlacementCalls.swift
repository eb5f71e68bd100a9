// Defragmentation, and what placements and tests ask of the server outside calls.

internal import CGuestABI
internal import GuestMemory

extension PhysicalMemoryServer {
  /// What was in the way of the task's last placement that was refused; `.none` where it was nothing in particular.
  public func placementObstacle(_ task: TaskSlot) -> Obstacle {
    withState { $0.tasks[task].obstacle ?? Obstacle(address: 0, kind: .none) }
  }

  // MARK: Defragmentation

  public var fragmentation: Fragmentation { withState { $0.fragmentation } }

  /// One step of a pass. False: it is over.
  public func continueDefragmentation(_ pass: inout DefragmentationPass) -> Bool {
    withState { $0.continueDefragmentation(&pass) }
  }

  /// For measurements: moves a step's worth of the contents from `position` on elsewhere; nil: that was all.
  public func moveNextFrames(_ position: inout Int) -> Int? { withState { $0.moveNextFrames(&position) } }

  /// For tests: moves some content to another frame, as the server may at any time.
  public func moveSomeFrame(_ random: UInt64) -> Bool { withState { $0.moveSomeFrame(random) } }
}
