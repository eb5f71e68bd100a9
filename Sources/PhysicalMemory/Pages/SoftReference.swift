// Released frames (R31, R32): the owner is no longer charged for them and can recover them with their content until the
// server reuses their frames, the oldest first.
//
// The life of a soft reference:
//  1. made by pm_release_pages: the id's word names it, and it names the content. No leaf shows the frame through this
//     id.
//  2. recovered: the id names the content again. Or
//     expired: only soft references named the content, it was the oldest such, and a frame was needed; the id is
//     unused. Or
//     dropped: the id was reused, or its container was destroyed, or its owner has too many.
//
// A soft reference counts as a sharer of its content: writing to a logical copy makes a private content, so a released
// content does not change. A content without other sharers is *released*, and is freed with its last reference. A
// released id that was never touched has no content and needs no reference: its word says so.
//
// References cannot run out: there is one for each content, and each task has an allowance of further ones, for
// contents that have one already.

internal import GuestMemory

extension ServerState {
  // MARK: Release

  /// False: some of its leaves are left, and it is not released yet.
  mutating func release(_ shown: ContainerFrame) -> Bool {
    guard let number = containers[shown.container].frames[shown.id].content else {
      releaseEmpty(shown)
      return true
    }
    let content = contents[number]
    let isAlone = content.sharers == 1
    guard removeLeaves(of: content.frame, isAlone ? .all : .showing(shown), showing: isAlone ? nil : shown) else {
      return false
    }
    // An uncharged frame must not block placements.
    if isAlone { giveUpPlace(number) }
    if let reference = makeReference(shown, number) {
      containers[shown.container].frames.set(shown.id, VirtualFrameWord(reference))
    } else {
      containers[shown.container].frames.set(shown.id, .unused)
      contents.addSharers(number, -1)
    }
    softReferences.update(contents[number])
    return true
  }

  /// Marks an untouched id as released. The mark may keep a leaf of the id table in memory, so each task has a limited
  /// number.
  private mutating func releaseEmpty(_ shown: ContainerFrame) {
    containers[shown.container].frames.set(shown.id, .releasedEmpty)
    let entry = UInt64(shown.container.rawValue) << 32 | shown.id.position
    let owner = containers[shown.container].owner
    guard let oldest = releasedEmpties.enter(entry, for: owner) else { return }
    let (slot, id) = (ContainerSlot(UInt32(oldest >> 32)), FrameID(UInt32(truncatingIfNeeded: oldest)))
    guard oldest != entry, containers.contains(slot), containers[slot].owner == owner,
      containers[slot].frames[id] == .releasedEmpty
    else { return }
    containers[slot].frames.set(id, .unused)
  }

  /// - Returns: nil: too many released ids name the content already; this one is dropped.
  private mutating func makeReference(_ shown: ContainerFrame, _ number: ContentNumber) -> SoftReferenceNumber? {
    step.count(Work.reference)
    let others = softReferences.count(of: contents[number])
    guard others < SoftReferenceTable.mostOfOneContent,
      let reference = softReferences.insert(shown, number, &contents[number])
    else { return nil }
    let owner = containers[shown.container].owner
    if others > 0, let oldest = furtherReferences.enter(softReferences.stamp(reference), for: owner),
      let number = softReferences.further(oldest)
    {
      dropReleased(number)
    }
    return reference
  }

  // MARK: Reuse

  /// Whether the frame of an expired reference is free at once.
  var mayExpire: Bool { pool.isGiving || grace.beganIdle }

  /// False: no frame is free, and vCPUs may still access those of released contents. The step ends here; the next one
  /// waits for the grace period before it begins.
  var mayTakeAnother: Bool { mayExpire || pool.takeableCount > 0 || softReferences.count == 0 }

  /// Expires the oldest released content and frees its frame.
  /// - Returns: false: there is none.
  mutating func expireOldest() -> Bool {
    guard let oldest = softReferences.oldest else { return false }
    statistics.framesExpired += 1
    for _ in 0..<softReferences.count(of: contents[oldest]) {
      guard let reference = contents[oldest].firstReference else {
        preconditionFailure("a released content without a soft reference")
      }
      dropReleased(reference)
    }
    return true
  }

  private mutating func dropReleased(_ number: SoftReferenceNumber) {
    step.count(Work.reference)
    let reference = softReferences[number]
    let content = reference.contentNumber
    softReferences.remove(number, &contents[content])
    containers[reference.container].frames.set(reference.id, .unused)
    contents.addSharers(content, -1)
    guard contents[content].sharers == 0 else {
      softReferences.update(contents[content])
      return
    }
    let frame = contents[content].frame
    precondition(pool.records[frame].link == 0, "a released frame is mapped")
    freeContent(content)
    // Its leaves were cleared and zapped when it was released.
    if grace.beganIdle { pool.giveNow(frame) } else { pool.give(frame) }
  }

  /// Drops the soft references of ids that are about to name something else, or whose container is destroyed, until the
  /// step is over.
  /// - Returns: false: more may be left.
  mutating func dropReleased(_ slot: ContainerSlot, _ ids: Range<UInt64>) -> Bool {
    guard containers[slot].frames.releasedCount > 0 else { return true }
    var next = ids.lowerBound
    while next < ids.upperBound, let id = containers[slot].frames.firstReleased(from: FrameID(position: next)),
      id.position < ids.upperBound
    {
      step.count(Work.look)
      if let number = containers[slot].frames[id].softReference {
        dropReleased(number)
      } else {
        containers[slot].frames.set(id, .unused)
      }
      next = id.position + 1
      if isStepOver { return false }
    }
    return true
  }

  /// As `dropReleased`, for at most a step's worth of ids.
  mutating func dropAllReleased(_ slot: ContainerSlot, _ ids: Range<UInt64>) {
    while !dropReleased(slot, ids) {}
  }
}
