// Released frames (R31, R32): their owner is not charged for them any more, and can have them back with their content
// until the server has used their frames for something else, the oldest first.
//
// The life of a soft reference:
//  1. made by pm_release_pages: the id's word names it, it names the content. No leaf shows the frame through this id.
//  2. recovered: the id names the content again. Or
//     expired: nothing else named the content, which had been so for longest when a frame was needed; the id is unused. Or
//     dropped: the id was given something else, or its container is gone, or its owner has too many.
//
// A soft reference counts among a content's sharers: whoever writes to a logical copy makes one of its own, and
// what is released does not change. A content with no other sharer is *released*, and goes with its last reference. What was
// never touched has no content and needs no reference: its id says so.
//
// References do not run out, whatever tasks do: there is one for each content, and each task has an allowance of further
// ones, for contents that have one already.

internal import GuestMemory

/// Frames about to be released, in bounded steps.
struct ReleasePlan {
  let container: ContainerReference
  let ids: [FrameID]
  /// Why nothing is released after all.
  fileprivate(set) var error: CallFailure?
  fileprivate var looked = 0
  fileprivate var done = 0
}

/// Released frames about to be taken back, in bounded steps.
struct RecoveryPlan {
  let container: ContainerReference
  /// Each once.
  let ids: [FrameID]
  /// Why none is taken back after all, and the id that this is about.
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

  /// One step: first of looking, and what was seen stays true. False: all are released, and their owner is not charged for
  /// them any more; or none, because an id is not in use (PM_ENOENT), or is pinned (PM_EBUSY).
  mutating func continueRelease(_ plan: inout ReleasePlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    // What goes for want of room may have been released in this step.
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
      // An id that is named twice is released once.
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
    // Nobody is charged for it from here on: it is in nobody's way.
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

  /// What was never touched is not lost. That its id says so may keep a table of ids in memory: a task has not very many.
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

  /// - Returns: nil: so many released ids name the content that one more is not kept.
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

  /// One step. False: all are back; or none, and `error` says why: PM_ENOEXIST for one whose content is gone, PM_EEXIST for
  /// one that is in use, PM_ENOMEM where neither the guarantee nor what is free suffices.
  mutating func continueRecovery(_ plan: inout RecoveryPlan) -> Bool {
    beginStep()
    while !isRecovered(&plan) {
      if isStepOver { return true }
    }
    containers[plan.container.slot].changes -= 1
    return false
  }

  /// One id, or what comes between looking at all and taking all. True: nothing is left to do.
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
      // It has expired since it was looked at.
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

  /// Releases again what was taken back.
  private mutating func isUndone(_ plan: inout RecoveryPlan) -> Bool {
    guard plan.done > 0 else { return true }
    defer { finishRevocations() }
    guard release(ContainerFrame(container: plan.container.slot, id: plan.ids[plan.done - 1])) else { return false }
    plan.done -= 1
    uncharge(containers[plan.container.slot].owner, 1)
    return false
  }

  /// The call is given up where it is: what is back stays, and its owner, who is about to end, is charged for no more.
  mutating func abandon(_ plan: RecoveryPlan) {
    let slot = plan.container.slot
    containers[slot].changes -= 1
    guard plan.isCharged, !plan.isUndoing else { return }
    let rest = plan.ids.count - plan.done
    containers[slot].promised -= rest
    uncharge(containers[slot].owner, rest)
  }

  /// Of each id, whether there is nothing to be had under it any more: it is not in use, and not to be recovered.
  mutating func expired(_ task: TaskSlot, _ handle: Handle, _ ids: ArraySlice<FrameID>) throws(CallFailure) -> [UInt8] {
    let slot = try ownedContainer(task, handle)
    return ids.map { containers[slot].frames[$0] == .unused ? 1 : 0 }
  }

  // MARK: Reuse

  /// Whether a frame that a soft reference leaves is free at once.
  var mayExpire: Bool { pool.isGiving || grace.beganIdle }

  /// False: there is no frame, and those of released contents may be looked at still. A step that takes one after the other
  /// ends here; the next one waits before it begins.
  var mayTakeAnother: Bool { mayExpire || pool.takeableCount > 0 || softReferences.count == 0 }

  /// The content that has been released for longest goes: its frame is free.
  /// - Returns: false: there is none.
  mutating func expireOldest() -> Bool {
    guard let oldest = softReferences.oldest else { return false }
    statistics.framesExpired += 1
    for _ in 0..<softReferences.count(of: contents[oldest]) {
      guard let reference = contents[oldest].firstReference else {
        preconditionFailure("a released content without one")
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
    // Its leaves went, and were zapped, when it was released.
    if grace.beganIdle { pool.giveNow(frame) } else { pool.give(frame) }
  }

  /// Drops the soft references of ids that are about to name something else, or of a container that goes, until the step
  /// is over.
  /// - Returns: false: there may be more.
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

  /// The same for a step's worth of ids, at most.
  mutating func dropAllReleased(_ slot: ContainerSlot, _ ids: Range<UInt64>) {
    while !dropReleased(slot, ids) {}
  }
}
