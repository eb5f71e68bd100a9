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

/// Frames being released, in bounded steps.
struct ReleasePlan {
  let container: ContainerReference
  let ids: [FrameID]
  /// The error, if nothing is released.
  fileprivate(set) var error: CallFailure?
  fileprivate var looked = 0
  fileprivate var done = 0
}

/// Released frames being recovered, in bounded steps.
struct RecoveryPlan {
  let container: ContainerReference
  /// Without repeats.
  let ids: [FrameID]
  /// The error and its id, if nothing is recovered.
  fileprivate(set) var error: CallFailure?
  fileprivate(set) var errorID: FrameID?
  fileprivate var looked = 0
  fileprivate var isCharged = false
  fileprivate var done = 0
  fileprivate var isUndoing = false
}

extension ServerState {
  // MARK: Release

  mutating func planRelease(_ task: TaskSlot, _ handle: Handle, _ ids: [FrameID]) throws(CallFailure) -> ReleasePlan {
    let slot = try ownedContainer(task, handle)
    containers[slot].changes += 1
    return ReleasePlan(container: reference(slot), ids: ids)
  }

  /// One step: checks all ids, then releases them; the checks stay valid. False: done. Either all are released and
  /// uncharged, or none, because an id is not in use (PM_ENOENT) or pinned (PM_EBUSY).
  mutating func continueRelease(_ plan: inout ReleasePlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    // References displaced by the allowance may have been released in this very step.
    grace.beganIdle = false
    let slot = plan.container.slot
    while plan.looked < plan.ids.count {
      if isStepOver { return true }
      let id = plan.ids[plan.looked]
      plan.error = containers[slot].frames[id].isUsed ? isPinned(slot, id) ? .busy : plan.error : .noEntry
      if plan.error == .noEntry { plan.looked = plan.ids.count } else { plan.looked += 1 }
      step.count(Work.look)
    }
    var released = 0
    defer { uncharge(containers[slot].owner, released) }
    while plan.error == nil, plan.done < plan.ids.count {
      if isStepOver { return true }
      let id = plan.ids[plan.done]
      // An id named twice is released once.
      if containers[slot].frames[id].isUsed {
        guard release(ContainerFrame(container: slot, id: id)) else { return true }
        released += 1
      }
      plan.done += 1
      step.count(Work.look)
    }
    containers[slot].changes -= 1
    return false
  }

  /// False: some of its leaves are left, and it is not released yet.
  private mutating func release(_ shown: ContainerFrame) -> Bool {
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

  // MARK: Recovery

  mutating func planRecovery(
    _ task: TaskSlot, _ handle: Handle, _ ids: [FrameID], frameError: GuestAddress
  ) throws(CallFailure) -> RecoveryPlan {
    let slot = try ownedContainer(task, handle)
    if frameError != 0 { try checkWritable(task, frameError, 4) }
    containers[slot].changes += 1
    return RecoveryPlan(container: reference(slot), ids: ids)
  }

  /// One step. False: done. Either all are recovered, or none, and `error` is PM_ENOEXIST for an expired id, PM_EEXIST
  /// for an id in use, or PM_ENOMEM where neither the guarantee nor free frames suffice.
  mutating func continueRecovery(_ plan: inout RecoveryPlan) -> Bool {
    beginStep()
    while !isRecovered(&plan) {
      if isStepOver { return true }
    }
    containers[plan.container.slot].changes -= 1
    return false
  }

  /// Handles one id, or the transition from checking to recovering. True: done.
  private mutating func isRecovered(_ plan: inout RecoveryPlan) -> Bool {
    let slot = plan.container.slot
    step.count(Work.look)
    if plan.isUndoing { return isUndone(&plan) }
    if plan.looked < plan.ids.count {
      let id = plan.ids[plan.looked]
      plan.looked += 1
      let word = containers[slot].frames[id]
      guard !word.isReleased else { return false }
      (plan.error, plan.errorID) = (word.isUsed ? .exists : .contentGone, id)
      return true
    }
    guard plan.isCharged else { return !chargeRecovery(&plan) }
    guard plan.done < plan.ids.count else { return true }
    let id = plan.ids[plan.done]
    if containers[slot].frames[id] == .releasedEmpty {
      containers[slot].frames.set(id, .empty)
      containers[slot].promised -= 1
      plan.done += 1
      return false
    }
    guard let number = containers[slot].frames[id].softReference else {
      // It has expired since the check.
      (plan.error, plan.errorID) = (.contentGone, id)
      uncharge(containers[slot].owner, plan.ids.count - plan.done)
      containers[slot].promised -= plan.ids.count - plan.done
      plan.isUndoing = true
      return false
    }
    let content = softReferences[number].contentNumber
    softReferences.remove(number, &contents[content])
    softReferences.update(contents[content])
    containers[slot].frames.set(id, VirtualFrameWord(content))
    containers[slot].promised -= 1
    plan.done += 1
    step.count(Work.reference)
    return false
  }

  private mutating func chargeRecovery(_ plan: inout RecoveryPlan) -> Bool {
    let owner = containers[plan.container.slot].owner
    returnSetAside(owner)
    let headroom = headroom(owner, extra: true)
    do throws(CallFailure) {
      guard headroom >= plan.ids.count else { throw .noMemory }
      try charge(owner, plan.ids.count)
    } catch {
      plan.error = error
      if headroom < plan.ids.count { plan.errorID = plan.ids[headroom] }
      return false
    }
    containers[plan.container.slot].promised += plan.ids.count
    plan.isCharged = true
    return true
  }

  /// Releases recovered ids again. True: done.
  private mutating func isUndone(_ plan: inout RecoveryPlan) -> Bool {
    guard plan.done > 0 else { return true }
    defer { finishRevocations() }
    guard release(ContainerFrame(container: plan.container.slot, id: plan.ids[plan.done - 1])) else { return false }
    plan.done -= 1
    uncharge(containers[plan.container.slot].owner, 1)
    return false
  }

  /// Gives up the call: recovered ids stay recovered, and the owner, which is about to end, is uncharged for the rest.
  mutating func abandon(_ plan: RecoveryPlan) {
    let slot = plan.container.slot
    containers[slot].changes -= 1
    guard plan.isCharged, !plan.isUndoing else { return }
    let rest = plan.ids.count - plan.done
    containers[slot].promised -= rest
    uncharge(containers[slot].owner, rest)
  }

  /// For each id, whether it has expired: neither in use nor recoverable.
  mutating func expired(_ task: TaskSlot, _ handle: Handle, _ ids: ArraySlice<FrameID>) throws(CallFailure) -> [UInt8] {
    let slot = try ownedContainer(task, handle)
    return ids.map { containers[slot].frames[$0] == .unused ? 1 : 0 }
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
