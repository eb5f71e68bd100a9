// Released frames (R31, R32): their owner is not charged for them any more, and can have them back with their content
// until the server has used their frames for something else, the oldest first.
//
// The life of a soft reference:
//  1. made by pm_release_pages: the id's word names it, it names the content. At the young end of the list. No leaf
//     shows the frame through this id.
//  2. recovered: the id names the content again. Or
//     expired: it was the oldest when a frame was needed; the id is unused. Or
//     dropped: the id was given something else, or its container is gone.
//
// A soft reference counts among a content's sharers: whoever writes to a logical copy makes one of its own, and
// what is released does not change. A content with no other sharer goes with its last reference.

internal import GuestMemory

/// An index in the table of soft references; 0 is the head of its list.
struct SoftReferenceNumber: Hashable, Sendable, BitwiseCopyable {
  let rawValue: UInt32
  init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// 20 bytes, used only while a frame is released.
struct SoftReference: BitwiseCopyable {
  /// The container's slot, and the id in it.
  var container: UInt32
  var id: UInt32
  /// 0: the frame was never touched.
  var content: UInt32
  fileprivate var previous: UInt32
  fileprivate var next: UInt32

  var contentNumber: ContentNumber? { content == 0 ? nil : ContentNumber(content) }
}

/// All soft references, from the oldest to the youngest: a ring through record 0.
struct SoftReferenceTable: ~Copyable {
  private var records: SparseArray<SoftReference>
  private var firstFree: UInt32 = 0
  private var used: UInt32 = 1
  private(set) var count = 0

  init(capacity: Int) throws(ReservationError) { records = try SparseArray(count: capacity + 1) }

  /// The youngest from now on; nil when the table is full.
  mutating func append(container: UInt32, id: UInt32, content: ContentNumber?) -> SoftReferenceNumber? {
    let number: UInt32
    if firstFree != 0 {
      number = firstFree
      firstFree = records[Int(number)].next
    } else {
      guard Int(used) < records.count else { return nil }
      number = used
      used += 1
    }
    let last = records[0].previous
    records[Int(number)] = SoftReference(
      container: container, id: id, content: content?.rawValue ?? 0, previous: last, next: 0)
    records[Int(last)].next = number
    records[0].previous = number
    count += 1
    return SoftReferenceNumber(number)
  }

  mutating func remove(_ number: SoftReferenceNumber) -> SoftReference {
    let reference = records[Int(number.rawValue)]
    records[Int(reference.previous)].next = reference.next
    records[Int(reference.next)].previous = reference.previous
    records[Int(number.rawValue)] = SoftReference(container: 0, id: 0, content: 0, previous: 0, next: firstFree)
    firstFree = number.rawValue
    count -= 1
    return reference
  }

  var oldest: SoftReferenceNumber? { records[0].next == 0 ? nil : SoftReferenceNumber(records[0].next) }

  func after(_ number: SoftReferenceNumber) -> SoftReferenceNumber? {
    let next = records[Int(number.rawValue)].next
    return next == 0 ? nil : SoftReferenceNumber(next)
  }

  subscript(number: SoftReferenceNumber) -> SoftReference { records[Int(number.rawValue)] }
}

/// Frames about to be released, in bounded steps.
struct ReleasePlan {
  let container: ContainerReference
  let ids: [UInt32]
  fileprivate var done = 0
}

extension ServerState {
  private static let releasedInOneStep = 512

  // MARK: Release

  /// PM_ENOENT for an id that is not in use, PM_EBUSY for one that is pinned; nothing has changed then.
  mutating func planRelease(_ task: TaskSlot, _ handle: UInt32, _ ids: [UInt32]) throws(ServerError) -> ReleasePlan {
    let slot = try ownedContainer(task, handle)
    guard ids.allSatisfy({ containers[slot].frames[$0].isUsed }) else { throw .noEntry }
    guard !hasPins(slot) || ids.allSatisfy({ !isPinned(slot, $0) }) else { throw .busy }
    containers[slot].changes += 1
    return ReleasePlan(container: reference(slot), ids: ids)
  }

  /// One step. False: all are released, and their owner is not charged for them any more.
  mutating func continueRelease(_ plan: inout ReleasePlan) -> Bool {
    defer { finishRevocations() }
    // What goes for want of room may have been released in this step.
    grace.beganIdle = false
    let slot = plan.container.slot
    let end = min(plan.ids.count, plan.done + Self.releasedInOneStep)
    var released = 0
    // An id that is named twice is released once.
    for id in plan.ids[plan.done..<end] where containers[slot].frames[id].isUsed {
      release(ContainerFrame(container: slot, id: id))
      released += 1
    }
    plan.done = end
    uncharge(containers[slot].owner, released)
    guard plan.done == plan.ids.count else { return true }
    containers[slot].changes -= 1
    return false
  }

  private mutating func release(_ shown: ContainerFrame) {
    let content = containers[shown.container].frames[shown.id].content
    if let content {
      revoke(contents[content].frame, shownBy: shown)
      // Nobody is charged for it from here on: it is in nobody's way.
      if contents[content].sharers == 1 { giveUpPlace(content) }
    }
    var number = softReferences.append(container: shown.container, id: shown.id, content: content)
    if number == nil, expireOldest() {
      number = softReferences.append(container: shown.container, id: shown.id, content: content)
    }
    guard let number else { preconditionFailure("no room for a soft reference where one has just gone") }
    containers[shown.container].frames.set(shown.id, VirtualFrameWord(number))
  }

  // MARK: Recovery

  /// Takes released frames back, all or none. PM_ENOEXIST for one whose content is gone, PM_EEXIST for one that is in
  /// use, PM_ENOMEM where neither the guarantee nor what is free suffices; the first id in question is stored at
  /// `frameError`, unless that is 0.
  /// - Parameter ids: each once.
  mutating func recover(_ task: TaskSlot, _ handle: UInt32, _ ids: [UInt32], frameError: UInt64) throws(ServerError) {
    let slot = try ownedContainer(task, handle)
    if frameError != 0 { try checkWritable(task, frameError, 4) }
    let headroom = headroom(task, extra: true)
    if let (id, error) = firstLost(slot, ids, headroom) {
      if frameError != 0 { try store(id, task, frameError) }
      throw error
    }
    try charge(task, ids.count)
    for id in ids {
      guard let number = containers[slot].frames[id].softReference else { preconditionFailure("an id named twice") }
      let reference = softReferences.remove(number)
      containers[slot].frames.set(id, reference.contentNumber.map { VirtualFrameWord($0) } ?? .empty)
    }
  }

  /// The first id that cannot be recovered, and why.
  private func firstLost(_ slot: UInt32, _ ids: [UInt32], _ headroom: Int) -> (UInt32, ServerError)? {
    if let lost = ids.first(where: { containers[slot].frames[$0].softReference == nil }) {
      return (lost, containers[slot].frames[lost].isUsed ? .exists : .contentGone)
    }
    return headroom < ids.count ? (ids[headroom], .noMemory) : nil
  }

  /// Of each id, whether there is nothing to be had under it any more: it is not in use, and not to be recovered.
  mutating func expired(_ task: TaskSlot, _ handle: UInt32, _ ids: [UInt32]) throws(ServerError) -> [UInt8] {
    let slot = try ownedContainer(task, handle)
    return ids.map { containers[slot].frames[$0] == .unused ? 1 : 0 }
  }

  // MARK: Reuse

  /// Whether a frame that a soft reference leaves is free at once.
  var mayExpire: Bool { pool.isGiving || grace.beganIdle }

  /// The oldest soft reference goes; its frame is free if nobody else had the content.
  /// - Returns: false: there is none.
  mutating func expireOldest() -> Bool {
    guard let oldest = softReferences.oldest else { return false }
    statistics.framesExpired += 1
    dropReleased(oldest)
    return true
  }

  private mutating func dropReleased(_ number: SoftReferenceNumber) {
    let reference = softReferences.remove(number)
    containers[reference.container].frames.set(reference.id, .unused)
    guard let content = reference.contentNumber else { return }
    contents.addSharers(content, -1)
    guard contents[content].sharers == 0 else { return }
    let frame = contents[content].frame
    precondition(pool.records[frame].link == 0, "a released frame is mapped")
    freeContent(content)
    // Its leaves went, and were zapped, when it was released.
    if grace.beganIdle { pool.giveNow(frame) } else { pool.give(frame) }
  }

  /// Drops the soft references of ids that are about to name something else, or of a container that goes; at most a
  /// step's worth.
  /// - Returns: false: there may be more.
  @discardableResult
  mutating func dropReleased(_ slot: UInt32, _ ids: Range<UInt64>, limit: Int = .max) -> Bool {
    guard containers[slot].frames.releasedCount > 0 else { return true }
    var next = ids.lowerBound
    var left = limit
    while next < ids.upperBound, let id = containers[slot].frames.firstReleased(from: UInt32(next)),
      UInt64(id) < ids.upperBound, let number = containers[slot].frames[id].softReference
    {
      guard left > 0 else { return false }
      dropReleased(number)
      next = UInt64(id) + 1
      left -= 1
    }
    return true
  }
}
