// Logical copies between containers: ids come to name the same contents, and data is copied only when one side writes
// (R16, R24).
//
// A copy has three stages, so that a failed copy changes nothing and ranges may overlap:
//  1. check: every source id is in use, every destination id is available; charges what the copy adds.
//  2. collect: takes a reference to each source content and write-protects its leaves.
//  3. install: makes the destination ids name the contents, and drops what they named before.
// Stages 2 and 3 run in bounded steps and cannot fail.

internal import CGuestABI
internal import GuestMemory

/// The ids of one side: consecutive or listed.
enum FrameIDs {
  case from(FrameID)
  /// `isRepeat`: for each id, whether it occurs earlier in the list; empty: no id is repeated.
  case list([FrameID], isRepeat: [Bool])

  /// Finds repeated ids, which takes long for a long list: call it without the server's lock.
  static func list(_ ids: [FrameID]) -> FrameIDs {
    if zip(ids, ids.dropFirst()).allSatisfy({ $0 < $1 }) { return .list(ids, isRepeat: []) }
    var seen = Set<FrameID>(minimumCapacity: ids.count)
    return .list(ids, isRepeat: ids.map { !seen.insert($0).inserted })
  }

  @inline(__always)
  subscript(index: Int) -> FrameID {
    switch self {
    case .from(let start): start.advanced(by: index)
    case .list(let ids, _): ids[index]
    }
  }

  /// - Throws: `.invalid` for no ids, for ids past 2^32, or for a list longer than a call may pass.
  func check(count: UInt32) throws(CallFailure) {
    switch self {
    case .from(let start): _ = try FrameIDRange(start: start, count: count)
    case .list(let ids, _): guard count > 0, ids.count == Int(count) else { throw .invalid }
    }
  }
}

/// The error of a copy, and the id it is about, if any.
struct CopyError: Error {
  let error: CallFailure
  var frame: FrameID?
}

/// A copy under way.
struct CopyPlan {
  let source: ContainerReference
  let destination: ContainerReference
  let ownsDestination: Bool
  let sourceIDs: FrameIDs
  let destinationIDs: FrameIDs
  let count: Int

  /// The contents of the source ids, each with a reference taken; a run of empty frames is one entry.
  fileprivate var entries: [(word: VirtualFrameWord, count: Int)] = []
  fileprivate var collected = 0
  /// Nothing more is read from the source.
  fileprivate var installedEntries = 0
  /// Installed ids of the next entry.
  fileprivate var installedOfEntry = 0
  fileprivate var installed = 0
  /// Charged to the destination's owner for ids that are not in use yet.
  fileprivate var promised = 0
  fileprivate var isAbandoned = false
}

extension ServerState {
  /// Empty ids visited at a time.
  private static let emptyInOneStep = 1 << 15

  // MARK: 1. Check

  /// Checks a copy and charges what it adds.
  /// - Throws: `CopyError` with an error of a handle (`container`), `.noEntry` for an id not in use, `.busy` for a
  ///   pinned one, `.noMemory`, `.waitForFrames`.
  mutating func planCopy(
    _ task: TaskSlot, _ source: Handle, _ sourceIDs: FrameIDs, _ destination: Handle, _ destinationIDs: FrameIDs,
    count: Int
  ) throws(CopyError) -> CopyPlan {
    let from: ContainerAccess
    let to: ContainerAccess
    do throws(CallFailure) {
      from = try container(task, source)
      to = try container(task, destination)
    } catch {
      throw CopyError(error: error)
    }
    if let missing = firstUnused(from.slot, sourceIDs, count) { throw CopyError(error: .noEntry, frame: missing) }
    if let id = firstPinned(from.slot, sourceIDs, count) { throw CopyError(error: .busy, frame: id) }
    if let id = firstPinned(to.slot, destinationIDs, count) { throw CopyError(error: .busy, frame: id) }
    var plan = CopyPlan(
      source: reference(from.slot), destination: reference(to.slot), ownsDestination: to.isOwner, sourceIDs: sourceIDs,
      destinationIDs: destinationIDs, count: count)
    guard to.isOwner else {
      if let missing = firstUnused(to.slot, destinationIDs, count) { throw CopyError(error: .noEntry, frame: missing) }
      return plan
    }
    plan.promised = try chargeCopy(task, to.slot, destinationIDs, count)
    containers[to.slot].promised += plan.promised
    // Until the source is collected: pins made meanwhile would end up on shared contents.
    return plan
  }

  private func firstUnused(_ slot: ContainerSlot, _ ids: FrameIDs, _ count: Int) -> FrameID? {
    switch ids {
    case .from(let start):
      let used = containers[slot].frames.run(from: start, limit: count, inUse: true)
      return used < count ? start.advanced(by: used) : nil
    case .list(let ids, _): return ids.first { !containers[slot].frames[$0].isUsed }
    }
  }

  private func firstPinned(_ slot: ContainerSlot, _ ids: FrameIDs, _ count: Int) -> FrameID? {
    guard hasPins(slot) else { return nil }
    switch ids {
    case .from(let start): return firstPinned(slot, start.position..<(start.position + UInt64(count)))
    case .list(let ids, _): return ids.first { isPinned(slot, $0) }
    }
  }

  /// Charges the destination ids that are not in use.
  /// - Returns: their number.
  private mutating func chargeCopy(
    _ task: TaskSlot, _ slot: ContainerSlot, _ ids: FrameIDs, _ count: Int
  ) throws(CopyError) -> Int {
    var fresh = 0
    returnSetAside(task)
    let headroom = headroom(task, extra: false)
    switch ids {
    case .from(let start):
      fresh = count - containers[slot].frames.usedCount(from: start, count: count)
      if fresh > headroom {
        let fits = containers[slot].frames.prefix(from: start, limit: count, unused: headroom)
        throw CopyError(error: .noMemory, frame: start.advanced(by: fits))
      }
    case .list(let ids, let isRepeat):
      for (index, id) in ids.enumerated() where !containers[slot].frames[id].isUsed {
        if !isRepeat.isEmpty, isRepeat[index] { continue }
        fresh += 1
        if fresh > headroom { throw CopyError(error: .noMemory, frame: id) }
      }
    }
    do throws(CallFailure) { try charge(task, fresh) } catch { throw CopyError(error: error) }
    return fresh
  }

  // MARK: 2. Collect

  /// One step. False: all references are taken.
  mutating func collect(_ plan: inout CopyPlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    // The owner may have destroyed the source since the check: treat the rest as empty.
    if !isCurrent(plan.source), plan.collected < plan.count {
      plan.entries.append((.empty, plan.count - plan.collected))
      plan.collected = plan.count
    }
    while plan.collected < plan.count {
      let id = plan.sourceIDs[plan.collected]
      guard let word = takeReference(plan.source.slot, id) else { return true }
      var run = 1
      if word == .empty, case .from = plan.sourceIDs {
        let most = min(plan.count - plan.collected, Self.emptyInOneStep)
        run = max(1, containers[plan.source.slot].frames.emptyRun(from: id, limit: most))
      }
      plan.entries.append((word, run))
      plan.collected += run
      step.count(Work.look + run / 32)
      if isStepOver { return true }
    }
    return false
  }

  /// Takes a reference to the content of an id and write-protects its leaves.
  /// - Returns: nil: it has too many leaves to write-protect at once. Some were removed, and it is as private as
  ///   before.
  private mutating func takeReference(_ slot: ContainerSlot, _ id: FrameID) -> VirtualFrameWord? {
    let word = containers[slot].frames[id]
    // The owner may have deallocated it since the check: treat it as empty.
    guard let number = word.content else { return .empty }
    let content = contents[number]
    if content.sharers == 1 {
      guard thinOut(content.frame, .copied) else { return nil }
      writeProtectAll(content.frame)
    }
    contents.addSharers(number, 1)
    return word
  }

  // MARK: 3. Install

  /// One step. False: the copy is complete, and the excess charge is given back.
  mutating func install(_ plan: inout CopyPlan) -> Bool {
    beginStep()
    defer { finishRevocations() }
    let isThere = isCurrent(plan.destination) && !plan.isAbandoned
    while plan.installedEntries < plan.entries.count {
      if isStepOver { return true }
      let entry = plan.entries[plan.installedEntries]
      step.count(Work.look)
      if let number = entry.word.content {
        guard let isTaken = isThere ? installOne(&plan, number) : false else { return true }
        if !isTaken { dropReference(number) }
        plan.installed += 1
        plan.installedEntries += 1
        continue
      }
      let count = min(entry.count - plan.installedOfEntry, step.left)
      let done = isThere ? installEmpty(&plan, count) : count
      step.count(done * Work.look)
      plan.installed += done
      plan.installedOfEntry += done
      if done < count { return true }
      guard plan.installedOfEntry == entry.count else { continue }
      plan.installedEntries += 1
      plan.installedOfEntry = 0
    }
    finishCopy(&plan)
    return false
  }

  /// - Returns: false: the destination id cannot take it, or names it already; nil: its old content is not dropped yet.
  private mutating func installOne(_ plan: inout CopyPlan, _ number: ContentNumber) -> Bool? {
    let slot = plan.destination.slot
    let id = plan.destinationIDs[plan.installed]
    let old = containers[slot].frames[id]
    if old == VirtualFrameWord(number) { return false }
    guard claimID(&plan, old) else { return false }
    if let content = old.content {
      guard dropContent(content, shownBy: ContainerFrame(container: slot, id: id)) else { return nil }
    }
    if !containers[slot].frames.replace(id, VirtualFrameWord(number)) {
      dropAllReleased(slot, id.position..<(id.position + 1))
      containers[slot].frames.set(id, VirtualFrameWord(number))
    }
    return true
  }

  /// Gives an unused id one of the promised frames. A copy through a weak capability has none.
  private mutating func claimID(_ plan: inout CopyPlan, _ old: VirtualFrameWord) -> Bool {
    if old.isUsed { return true }
    guard plan.promised > 0 else { return false }
    plan.promised -= 1
    containers[plan.destination.slot].promised -= 1
    return true
  }

  /// - Returns: the number of ids done; fewer than `count`: the step is over.
  private mutating func installEmpty(_ plan: inout CopyPlan, _ count: Int) -> Int {
    guard case .from = plan.destinationIDs, plan.ownsDestination else { return installEmptyOneByOne(&plan, count) }
    let slot = plan.destination.slot
    let start = plan.destinationIDs[plan.installed]
    var done = 0
    while done < count {
      let next = containers[slot].frames.firstContent(from: start.advanced(by: done), limit: count - done)
      let end = next.map { Int($0.position - start.position) } ?? count
      fillEmpty(&plan, start.advanced(by: done), end - done)
      done = end
      guard let id = next, let content = containers[slot].frames[id].content else { break }
      guard dropContent(content, shownBy: ContainerFrame(container: slot, id: id)) else { return done }
      containers[slot].frames.set(id, .empty)
      done += 1
      if isStepOver { return done }
    }
    return count
  }

  /// Makes ids empty that name no content.
  private mutating func fillEmpty(_ plan: inout CopyPlan, _ start: FrameID, _ count: Int) {
    guard count > 0 else { return }
    let slot = plan.destination.slot
    let fresh = count - containers[slot].frames.usedCount(from: start, count: count)
    dropAllReleased(slot, start.position..<(start.position + UInt64(count)))
    containers[slot].frames.fill(start, count: count, .empty)
    plan.promised -= fresh
    containers[slot].promised -= fresh
  }

  private mutating func installEmptyOneByOne(_ plan: inout CopyPlan, _ count: Int) -> Int {
    let slot = plan.destination.slot
    for offset in 0..<count {
      let id = plan.destinationIDs[plan.installed + offset]
      let old = containers[slot].frames[id]
      guard claimID(&plan, old) else { continue }
      if let content = old.content {
        guard dropContent(content, shownBy: ContainerFrame(container: slot, id: id)) else { return offset }
      }
      dropAllReleased(slot, id.position..<(id.position + 1))
      containers[slot].frames.set(id, .empty)
      if isStepOver { return offset + 1 }
    }
    return count
  }

  /// Drops a reference that no id names.
  private mutating func dropReference(_ number: ContentNumber) {
    letGo(of: number)
    guard contents[number].sharers == 0 else { return }
    let frame = contents[number].frame
    revokeAll(frame)
    freeContent(number)
    Revocations.append(frame, to: &revocations.unused, mayRepeat: false)
  }

  private mutating func finishCopy(_ plan: inout CopyPlan) {
    guard isCurrent(plan.destination) else { return }
    let slot = plan.destination.slot
    guard plan.promised > 0 else { return }
    containers[slot].promised -= plan.promised
    uncharge(containers[slot].owner, plan.promised)
    plan.promised = 0
  }

  /// One step of dropping what is not installed yet, because the caller must end. Installed copies stay. False: done.
  mutating func abandon(_ plan: inout CopyPlan) -> Bool {
    plan.isAbandoned = true
    plan.collected = plan.count
    return install(&plan)
  }
}
