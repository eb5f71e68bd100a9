// Allocation of a container's ids as empty virtual frames, and deallocation (R16, R18). No physical frame is taken
// here: the first access does that.

internal import CGuestABI
internal import GuestMemory

/// Options of an allocation. The values are those of PM_ALLOC_… in the guest interface.
public struct AllocationFlags: OptionSet, Sendable {
  /// PM_ALLOC_… bits.
  public let rawValue: UInt32
  /// - Parameter rawValue: PM_ALLOC_… bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Allocates as many as possible.
  public static let partial = AllocationFlags(rawValue: UInt32(PM_ALLOC_PARTIAL))
  /// Drops the contents of ids in the range that are in use, instead of failing.
  public static let squash = AllocationFlags(rawValue: UInt32(PM_ALLOC_SQUASH))
  /// May use extra frames beyond the guarantee.
  public static let extra = AllocationFlags(rawValue: UInt32(PM_ALLOC_EXTRA))
  static let all: AllocationFlags = [.partial, .squash, .extra]
}

/// The number of frames a call changed, and the error that stopped it, if any. Without PARTIAL an error changes
/// nothing.
public struct CountedResult: Equatable, Sendable {
  /// The number of frames.
  public let count: Int
  /// The error; nil: none.
  public let error: ServerError?

  /// - Parameters:
  ///   - count: the number of frames.
  ///   - error: the error; nil: none.
  public init(count: Int, error: ServerError?) {
    self.count = count
    self.error = error
  }
}

/// An allocation that is checked and charged, and is carried out in bounded steps.
struct AllocationPlan {
  let container: ContainerSlot
  /// The ids still to do.
  var rest: Range<UInt64>
  /// For a placed allocation: charged until the end for the old contents of ids in use, since it takes its frames
  /// before it drops those.
  let kept: Int
  let result: CountedResult
}

extension ServerState {
  /// Checks an allocation and charges the frames it adds, after which it cannot fail.
  /// - Parameter placed: it takes its frames before it drops the old contents of the ids.
  /// - Throws: as `ownedContainer`, `.busy` when a frame in the range is pinned, `.waitForFrames` when other tasks must
  ///   give frames back first. The plan has all other errors.
  mutating func planAllocation(
    _ task: TaskSlot, _ handle: Handle, _ range: FrameIDRange, _ flags: AllocationFlags, placed: Bool = false
  ) throws(CallFailure) -> AllocationPlan {
    let slot = try ownedContainer(task, handle)
    returnSetAside(task)
    let headroom = headroom(task, extra: flags.contains(.extra))
    var count: Int
    var error: ServerError?
    if flags.contains(.squash) {
      count =
        placed
        ? min(range.count, headroom)
        : containers[slot].frames.prefix(from: range.start, limit: range.count, unused: headroom)
      if count < range.count { error = .noMemory }
    } else {
      count = containers[slot].frames.run(from: range.start, limit: range.count, inUse: false)
      if count < range.count { error = .exists }
      if count > headroom {
        count = headroom
        error = .noMemory
      }
    }
    if error != nil, !flags.contains(.partial) { count = 0 }
    let start = range.start.position
    guard firstPinned(slot, start..<(start + UInt64(count))) == nil else { throw .busy }
    let used = containers[slot].frames.usedCount(from: range.start, count: count)
    let kept = placed ? used : 0
    try charge(task, count - used + kept)
    containers[slot].promised += count - used + kept
    return AllocationPlan(
      container: slot, rest: start..<(start + UInt64(count)), kept: kept,
      result: CountedResult(count: count, error: error))
  }

  /// One step: makes the next few ids empty. False: done.
  mutating func continueAllocation(_ plan: inout AllocationPlan, most: Int = .max) -> Bool {
    beginStep()
    defer { finishRevocations() }
    let slot = plan.container
    guard let first = plan.rest.first else {
      containers[slot].promised -= plan.kept
      uncharge(containers[slot].owner, plan.kept)
      return false
    }
    let start = FrameID(position: first)
    let most = min(plan.rest.count, most, step.left)
    guard dropReleased(slot, first..<(first + UInt64(most))) else { return true }
    let count = dropContents(slot, start: start, count: min(most, step.left))
    containers[slot].promised -= count - containers[slot].frames.usedCount(from: start, count: count)
    containers[slot].frames.fill(start, count: count, .empty)
    plan.rest = (first + UInt64(count))..<plan.rest.upperBound
    return true
  }

  /// Uncharges the rest of an allocation that is given up.
  mutating func abandon(_ plan: AllocationPlan) {
    let slot = plan.container
    let count = plan.rest.count
    let start = FrameID(UInt32(truncatingIfNeeded: plan.rest.lowerBound))
    let charged = count - containers[slot].frames.usedCount(from: start, count: count) + plan.kept
    containers[slot].promised -= charged
    uncharge(containers[slot].owner, charged)
  }

  /// One step: drops the contents of the next few ids in use, makes the ids unused, and uncharges their owner.
  /// - Returns: the id to continue from; nil when no id in `ids` is in use any more.
  mutating func releaseFrames(_ slot: ContainerSlot, _ ids: Range<UInt64>) -> UInt64? {
    beginStep()
    defer { finishRevocations() }
    guard dropReleased(slot, ids) else { return ids.lowerBound }
    var next = ids.lowerBound
    while next < ids.upperBound, let id = containers[slot].frames.firstUsed(from: FrameID(position: next)),
      id.position < ids.upperBound
    {
      let most = min(step.left, Int(ids.upperBound - id.position))
      let run = containers[slot].frames.run(from: id, limit: most, inUse: true)
      let done = dropContents(slot, start: id, count: run)
      containers[slot].frames.fill(id, count: done, .unused)
      giveBack(containers[slot].owner, done)
      next = id.position + UInt64(done)
      if done < run || isStepOver { return next }
    }
    return nil
  }

  /// Drops the contents of ids; the caller changes the words. Stops when the step is over.
  /// - Returns: the number of ids done. Those after it keep their contents but may have lost leaves.
  mutating func dropContents(_ slot: ContainerSlot, start: FrameID, count: Int) -> Int {
    for offset in 0..<count {
      step.count(Work.look)
      guard let content = containers[slot].frames[start.advanced(by: offset)].content else { continue }
      guard dropContent(content, shownBy: ContainerFrame(container: slot, id: start.advanced(by: offset))) else {
        return offset
      }
      if isStepOver { return offset + 1 }
    }
    return count
  }

  private mutating func giveBack(_ owner: TaskSlot, _ count: Int) {
    if owner == .server {
      restore(count)
    } else {
      uncharge(owner, count)
    }
  }
}
