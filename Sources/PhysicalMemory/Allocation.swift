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

extension ServerState {
  mutating func allocate(
    _ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange, _ flags: AllocationFlags
  ) throws(ServerError) -> CountedResult {
    let slot = try ownedContainer(task, handle)
    let headroom = ledger.headroom(tasks[task.rawValue].entitlement, extra: flags.contains(.extra))
    var count = range.count
    var error: ServerError?
    if !flags.contains(.squash) {
      count = containers[slot].frames.run(from: range.start, limit: range.count, inUse: false)
      if count < range.count { error = .exists }
      if count > headroom {
        count = headroom
        error = .noMemory
      }
    } else {
      count = containers[slot].frames.prefix(from: range.start, limit: range.count, unused: headroom)
      if count < range.count { error = .noMemory }
    }
    if error != nil, !flags.contains(.partial) { return CountedResult(count: 0, error: error) }
    if count > 0 {
      if flags.contains(.squash) { releaseUsedFrames(slot, start: range.start, count: count) }
      containers[slot].frames.fill(range.start, count: count, .empty)
      ledger.charge(&tasks[task.rawValue].entitlement, count)
    }
    return CountedResult(count: count, error: error)
  }

  /// What a deallocation would do: how many ids from the range's start on it goes over, and the error to report.
  func planDeallocation(
    _ task: TaskSlot, _ handle: UInt32, _ range: FrameIDRange, _ flags: DeallocationFlags
  ) throws(ServerError) -> (container: UInt32, result: CountedResult) {
    let slot = try ownedContainer(task, handle)
    if flags.contains(.squash) { return (slot, CountedResult(count: range.count, error: nil)) }
    let count = containers[slot].frames.run(from: range.start, limit: range.count, inUse: true)
    if count == range.count { return (slot, CountedResult(count: count, error: nil)) }
    return (slot, CountedResult(count: flags.contains(.partial) ? count : 0, error: .noEntry))
  }

  /// Lets go of what the ids in use in a range name, and makes them unused. Their owner's charge goes down.
  /// - Returns: how many were in use.
  @discardableResult
  mutating func releaseUsedFrames(_ slot: UInt32, start: UInt32, count: Int) -> Int {
    var released = 0
    var next = UInt64(start)
    let end = next + UInt64(count)
    while next < end, let id = containers[slot].frames.firstUsed(from: UInt32(next)), UInt64(id) < end {
      let run = containers[slot].frames.run(from: id, limit: Int(end - UInt64(id)), inUse: true)
      releaseRun(slot, start: id, count: run)
      released += run
      next = UInt64(id) + UInt64(run)
    }
    finishRevocations()
    return released
  }

  private mutating func releaseRun(_ slot: UInt32, start: UInt32, count: Int) {
    for offset in 0..<UInt32(count) {
      if let content = containers[slot].frames[start + offset].content {
        dropContent(content, shownBy: ContainerFrame(container: slot, id: start + offset))
      }
    }
    containers[slot].frames.fill(start, count: count, .unused)
    let owner = containers[slot].owner
    if owner == .server {
      ledger.restore(count)
    } else {
      ledger.charge(&tasks[owner.rawValue].entitlement, -count)
    }
  }
}
