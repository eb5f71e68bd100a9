// Giving ids of a container to empty frames, and taking them back (R16, R18). No physical frame is taken here:
// that happens when the content is first accessed.

internal import CGuestABI
internal import GuestMemory

/// PM_ALLOC_…
public struct AllocationFlags: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let partial = AllocationFlags(rawValue: UInt32(PM_ALLOC_PARTIAL))
  public static let squash = AllocationFlags(rawValue: UInt32(PM_ALLOC_SQUASH))
  public static let extra = AllocationFlags(rawValue: UInt32(PM_ALLOC_EXTRA))
  static let all: AllocationFlags = [.partial, .squash, .extra]
}

/// PM_DEALLOC_…
public struct DeallocationFlags: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let partial = DeallocationFlags(rawValue: UInt32(PM_DEALLOC_PARTIAL))
  public static let squash = DeallocationFlags(rawValue: UInt32(PM_DEALLOC_SQUASH))
  static let all: DeallocationFlags = [.partial, .squash]
}

/// How many frames a call changed, and what stopped it, if anything did. Without PARTIAL an error changes nothing.
public struct CountedResult: Equatable, Sendable {
  public let count: Int
  public let error: ServerError?

  public init(count: Int, error: ServerError?) {
    self.count = count
    self.error = error
  }
}

/// An allocation that has been checked and charged, and is now carried out in bounded steps.
struct AllocationPlan {
  let container: ContainerSlot
  /// The ids still to be done.
  var rest: Range<UInt64>
  /// Charged until all is done for what ids in use name: of a placed allocation, whose frames are taken before that goes.
  let kept: Int
  let result: CountedResult
}

extension ServerState {
  /// Checks an allocation and charges the frames it adds: nobody else can have them from here on, and carrying it out
  /// cannot fail.
  /// - Parameter placed: it takes its frames before it lets go of what the ids name.
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
    containers[slot].changes += 1
    return AllocationPlan(
      container: slot, rest: start..<(start + UInt64(count)), kept: kept,
      result: CountedResult(count: count, error: error))
  }

  /// One step: empties the next few ids. False: nothing is left to be done.
  mutating func continueAllocation(_ plan: inout AllocationPlan, most: Int = .max) -> Bool {
    beginStep()
    defer { finishRevocations() }
    let slot = plan.container
    guard let first = plan.rest.first else {
      containers[slot].changes -= 1
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

  /// Takes back what was charged for the rest of an allocation, which is not to be.
  mutating func abandon(_ plan: AllocationPlan) {
    let slot = plan.container
    let count = plan.rest.count
    let start = FrameID(UInt32(truncatingIfNeeded: plan.rest.lowerBound))
    let charged = count - containers[slot].frames.usedCount(from: start, count: count) + plan.kept
    containers[slot].promised -= charged
    containers[slot].changes -= 1
    uncharge(containers[slot].owner, charged)
  }

  /// What a deallocation would do: how many ids from the range's start on it goes over, how many of them are in use,
  /// and the error to report.
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

  /// One step: lets go of what the next few ids in use name, and makes them unused. Their owner's charge goes down.
  /// - Returns: where to go on; nil when no id in `ids` is in use any more.
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

  /// Lets go of the contents that ids name, and leaves the ids for the caller to change. Stops when the step is over.
  /// - Returns: how many ids were done; those behind name what they named, and may have lost leaves.
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
