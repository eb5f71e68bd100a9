// The server's part of a page fault: find the mapping, make the content resident, fill in the leaf and as many
// neighbours as pay off (R16, R25). Nothing here allocates memory or looks into a dictionary.

internal import GuestMemory

/// The result of a page fault.
public enum FaultOutcome: Equatable, Sendable {
  /// Filled in `pages` leaves: retry the access.
  case served(pages: Int)
  /// The leaf already permits the access; the processor used a stale translation. Retry.
  case spurious
  /// The leaf has permitted the access at `UnexplainedFaults.limit` faults in a row and has not changed. The tables do
  /// not explain the faults, and retrying would never end.
  case unexplained
  /// No mapping, or a mapping of a frame that is no longer allocated: delivered to the task.
  case notMapped
  /// The mapping does not permit this access: delivered to the task.
  case forbidden
  /// No frame for the page or for a page table.
  case noMemory
  /// Page tables need frames from other tasks: retry when `frameWait` is `.ready`, then call `endRequest`.
  case waitForFrames
  /// The container is locked against its owner (R21): retry when the lock ends, at this time (nanoseconds) at the
  /// latest.
  case locked(until: UInt64)
}

/// Counts consecutive unexplained faults of one task on one page.
///
/// A fault on a valid leaf is explained by a recent change: the processor used the leaf, or the entry above it, as it
/// was before. Therefore each fault marks the leaf and each change clears the mark; a fault that finds the mark is
/// counted here.
struct UnexplainedFaults {
  /// Far more than races produce, such as a superpage promoted between the faults.
  static let limit = 1000

  private var page = PageNumber(0)
  /// The task's served faults at the last count.
  private var served: UInt64 = 0
  private var count = 0

  /// - Returns: whether the limit is reached.
  mutating func add(_ page: PageNumber, served: UInt64) -> Bool {
    if page != self.page || served != self.served { count = 0 }
    self.page = page
    self.served = served
    count += 1
    return count >= Self.limit
  }

  mutating func forget() { count = 0 }
}

extension ServerState {
  /// Decides whether a fault on a leaf that permits the access can be due to a recent change.
  mutating func judgeSpurious(_ task: TaskSlot, _ page: PageNumber) -> FaultOutcome {
    guard spaces.suspect(task, page) else {
      tasks[task].unexplained.forget()
      return .spurious
    }
    let served = tasks[task].counters.faults
    return tasks[task].unexplained.add(page, served: served) ? .unexplained : .spurious
  }

  mutating func serveFault(_ task: TaskSlot, _ page: PageNumber, _ access: Access) -> FaultOutcome {
    guard let index = tasks[task].mappings.find(page) else { return .notMapped }
    let mapping = tasks[task].mappings[index]
    guard mapping.flags.effectiveRights.contains(access.right) else { return .forbidden }
    guard isGood(mapping) else { return .notMapped }
    if let lock = currentLock(mapping, against: task) { return .locked(until: lock.deadline) }
    if let pages = serveSuperpages(task, index, mapping, page) { return .served(pages: pages) }
    let wanted = faultAroundWindow(task, mapping, page)

    var absent = spaces.absentRun(task, from: page, limit: wanted)
    if absent == 0 {
      if let leaf = spaces.mappedPage(task, page) { return serveProtectionFault(task, mapping, page, access, leaf) }
      do { try makeTables(task, for: page) } catch { return error == .waitForFrames ? .waitForFrames : .noMemory }
      absent = spaces.absentRun(task, from: page, limit: wanted)
    }
    let served: Int
    do {
      if access == .write { try breakSharing(mapping, page) }
      served = try fill(task, mapping, page, most: absent)
    } catch {
      return error == .noEntry ? .notMapped : error == .noMemory ? .noMemory : .forbidden
    }
    tasks[task].mappings[index].expected = page.advanced(by: served)
    // Store the wanted length, not the achieved one: the end of a leaf table must not reset a sequential reader's
    // window.
    tasks[task].mappings[index].window = UInt32(wanted)
    countServed(task, pages: served)
    watchStock()
    return .served(pages: served)
  }

  /// Counts for the task and for the totals, which must agree.
  @inline(__always)
  mutating func countServed(_ task: TaskSlot, pages: Int) {
    tasks[task].counters.faults += 1
    tasks[task].counters.pages += UInt64(pages)
    statistics.faults += 1
    statistics.pagesServed += UInt64(pages)
  }

  mutating func countDelivered(_ task: TaskSlot) {
    tasks[task].counters.deliveredFaults += 1
    statistics.deliveredFaults += 1
  }

  /// The number of pages to fill in, including the page at fault.
  @inline(__always)
  private func faultAroundWindow(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber) -> Int {
    let left = Int(min(mapping.end.rawValue - page.rawValue, UInt64(FaultAround.most)))
    switch tasks[task].faultAround {
    case .fixed(let pages): return max(1, min(pages, left))
    case .automatic:
      guard mapping.window > 0, page == mapping.expected else { return 1 }
      return min(Int(mapping.window) * 2, left)
    }
  }

  /// A fault on a present leaf: it permits the access after all, or it is read-only because the content was shared.
  private mutating func serveProtectionFault(
    _ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber, _ access: Access, _ leaf: MappedPage
  ) -> FaultOutcome {
    if leaf.rights.contains(access.right) {
      tasks[task].counters.spuriousFaults += 1
      statistics.spuriousFaults += 1
      return .spurious
    }
    guard access == .write else { return .forbidden }
    do {
      try breakSharing(mapping, page)
      // The last sharer keeps its leaf and only gains the write permission.
      if spaces.mappedPage(task, page) != nil {
        upgrade(task, mapping, page, leaf.frame)
      } else {
        _ = try fill(task, mapping, page, most: 1)
      }
    } catch {
      return error == .noMemory ? .noMemory : .forbidden
    }
    countServed(task, pages: 1)
    watchStock()
    return .served(pages: 1)
  }

  /// Makes a read-only leaf writable for the same frame. KVM sees that at the next fault, without a zap.
  mutating func upgrade(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber, _ frame: FrameNumber) {
    batch.removeAll()
    batch.append(frame)
    spaces.map(
      task, page, frames: batch.frames.span.extracting(first: batch.count), rights: mapping.flags.effectiveRights)
  }

  /// Makes the content that `page` shows private and writable.
  /// - Throws: `.error` when the mapping is neither lazy nor `forceWrite` and the content is shared: the fault is then
  ///   delivered to the task (R26).
  mutating func breakSharing(_ mapping: Mapping, _ page: PageNumber) throws(CallFailure) {
    let shown = ContainerFrame(container: mapping.container.slot, id: mapping.frame(at: page))
    guard let number = containers[shown.container].frames[shown.id].content, contents[number].sharers > 1 else {
      return
    }
    guard !mapping.flags.isDisjoint(with: [.lazy, .forceWrite]) else { throw .notPermitted }
    try makePrivate(shown)
  }

  /// Fills in absent leaves from `page` on: at least one, at most `most`, all with the same rights. Stops early at an
  /// unused id or when frames run out.
  /// - Throws: `.noEntry` when the id at `page` is unused, `.noMemory` when there is no frame for it.
  mutating func fill(_ task: TaskSlot, _ mapping: Mapping, _ page: PageNumber, most: Int) throws(CallFailure) -> Int {
    let container = mapping.container.slot
    let rights = mapping.flags.effectiveRights
    var granted = rights
    var surplus = 0
    let firstID = mapping.frame(at: page)
    batch.removeAll()
    while batch.count < most {
      let id = FrameID(firstID.rawValue &+ UInt32(batch.count))
      let word = containers[container].frames[id]
      var rightsHere = rights
      let frame: FrameNumber
      if let number = word.content {
        frame = contents[number].frame
        if contents[number].sharers > 1 { rightsHere.remove(.write) }
      } else {
        // Do not take a frame for a page that will not be filled in.
        guard word.isUsed, batch.count == 0 || granted == rights else { break }
        guard let fresh = makeResident(container, id) else { break }
        frame = fresh
      }
      if batch.count == 0 { granted = rightsHere } else if granted != rightsHere { break }
      let place = MappedPlace(
        task, page.advanced(by: batch.count), showing: ContainerFrame(container: container, id: id),
        isWeak: mapping.epoch != 0)
      if !reverseMap.add(place, to: &pool.records[frame].link) {
        // Do not displace a leaf of this batch: it is not written yet.
        guard surplus <= surplusPlaces.perTask / 2, addSurplus(place, of: frame, makingRoom: batch.count == 0) else {
          break
        }
        surplus += 1
      }
      batch.append(frame)
    }
    if surplus > 0 { finishRevocations() }
    guard batch.count > 0 else { throw containers[container].frames[firstID].isUsed ? .noMemory : .noEntry }
    spaces.map(task, page, frames: batch.frames.span.extracting(first: batch.count), rights: granted)
    statistics.pagesMapped += UInt64(batch.count)
    return batch.count
  }

  /// Takes a physical frame for an empty virtual frame.
  @inline(__always)
  mutating func makeResident(_ container: ContainerSlot, _ id: FrameID) -> FrameNumber? {
    guard let frame = takeContentFrame() else { return nil }
    guard let number = contents.insert(frame: frame) else {
      pool.give(FrameRun(start: frame, count: 1))
      return nil
    }
    pool.records[frame].owner = number.rawValue
    containers[container].frames.set(id, VirtualFrameWord(number))
    return frame
  }

  /// Enters a leaf beyond the first three of a frame and charges it to the task's allowance; over the allowance, the
  /// task's oldest such leaf is removed. `finishRevocations` follows.
  /// - Parameter makingRoom: a frame with the maximum number of leaves gives one up. None of its leaves may be about to
  ///   be written.
  private mutating func addSurplus(_ place: MappedPlace, of frame: FrameNumber, makingRoom: Bool) -> Bool {
    while !reverseMap.addSurplus(place, to: &pool.records[frame].link) {
      guard makingRoom, let other = reverseMap.first(of: pool.records[frame].link) else { return false }
      removeLeaf(other, of: frame, .withdrawn)
    }
    guard let oldest = surplusPlaces.enter(place.location, for: place.slot) else { return true }
    let displaced = MappedPlace(rawValue: oldest)
    if let leaf = spaces.mappedPage(displaced.slot, displaced.page) {
      removeLeaf(displaced, of: leaf.frame, .withdrawn)
    }
    return true
  }
}
