// pm_container_deallocate (R16, R18): makes ids unused and uncharges their owner.

internal import CGuestABI

struct ContainerDeallocate: ServerCall {
  let container: Handle
  let start: FrameID
  /// In: how many frames to deallocate. Out, also after an error: how many were deallocated.
  let count: GuestAddress
  let flags: DeallocationFlags

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asAddress
    flags = DeallocationFlags(rawValue: arguments.words.3.asFlags)
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let plan = try caller.stepWithCurrentPins { (state) throws(CallFailure) in
      let wanted = try state.loadCount(task, count)
      guard flags.isSubset(of: .all) else { throw .invalid }
      let plan = try state.planDeallocation(task, container, FrameIDRange(start: start, count: wanted), flags)
      // Store it now: the result may be in one of the frames. Nothing below can fail.
      try state.store(UInt32(plan.result.count), task, count)
      state.beginChanging(plan.container, for: task)
      return plan
    }
    // Only the owner deallocates, and it waits here, so the plan stays valid.
    var next = UInt64(start.rawValue)
    let end = next + UInt64(plan.ids)
    try caller.steps { state in
      guard next < end, let id = state.releaseFrames(plan.container, next..<end) else { return false }
      next = id
      return true
    }
    if let error = plan.result.error { throw .error(error) }
  }
}

/// Options of a deallocation. The values are those of PM_DEALLOC_… in the guest interface.
public struct DeallocationFlags: OptionSet, Sendable {
  /// PM_DEALLOC_… bits.
  public let rawValue: UInt32
  /// - Parameter rawValue: PM_DEALLOC_… bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Deallocates as many as possible.
  public static let partial = DeallocationFlags(rawValue: UInt32(PM_DEALLOC_PARTIAL))
  /// Skips ids that are not in use, instead of failing.
  public static let squash = DeallocationFlags(rawValue: UInt32(PM_DEALLOC_SQUASH))
  static let all: DeallocationFlags = [.partial, .squash]
}

extension ServerState {
  /// Plans a deallocation: how many ids from the range's start it covers, how many of them are in use, and the error to
  /// report.
  /// - Throws: as `ownedContainer`, `.busy` when a frame in the range is pinned.
  mutating func planDeallocation(
    _ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange, _ flags: DeallocationFlags
  ) throws(CallFailure) -> (container: ContainerSlot, ids: Int, result: CountedResult) {
    let slot = try ownedContainer(task, handle)
    guard firstPinned(slot, range.positions) == nil else { throw .busy }
    if flags.contains(.squash) {
      let used = containers[slot].frames.usedCount(from: range.start, count: range.count)
      return (slot, range.count, CountedResult(count: used, error: nil))
    }
    let count = containers[slot].frames.run(from: range.start, limit: range.count, inUse: true)
    if count == range.count { return (slot, count, CountedResult(count: count, error: nil)) }
    let done = flags.contains(.partial) ? count : 0
    return (slot, done, CountedResult(count: done, error: .noEntry))
  }
}
