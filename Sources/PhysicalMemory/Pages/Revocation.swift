// Revocation: removes frames from page tables. The order is always the same:
//
//      clear or write-protect the leaves ──▶ zap the frames ──▶ copy, move, or give the frames to the pool
//
// A zap stops writes by processors. KVM's emulator may still complete a write for a task: a frame that is copied or
// shared must wait for that (`settleWrites`), and the pool reuses a frame only when no vCPU can access it any more
// (GracePeriod.swift).
//
// Zaps are batched, since one zap of a run costs a fraction of one zap a frame.

internal import GuestMemory

/// One id of one container.
struct ContainerFrame: Equatable {
  let container: ContainerSlot
  let id: FrameID
}

/// Frames whose leaves are gone: all are to be zapped, and some then go to the pool.
struct Revocations: ~Copyable {
  /// Runs to zap before their frames are used otherwise.
  var zaps: [FrameRun] = []
  /// Unused runs that go to the pool after the zaps.
  var unused: [FrameRun] = []
  /// Leaves changed while the machine may have been writing through them, and no `settleWrites` has followed.
  var isUnsettled = false
  /// Some content must not change after the zaps.
  var mustSettle = false
  static let capacity = 256

  init() {
    zaps.reserveCapacity(Self.capacity)
    unused.reserveCapacity(Self.capacity)
  }

  var isFull: Bool { zaps.count >= Self.capacity || unused.count >= Self.capacity }

  /// Appends a frame, and merges it with the last run if they are adjacent.
  /// - Parameter mayRepeat: the frame may be in a run already. Otherwise a repeat is a double free.
  static func append(_ frame: FrameNumber, to runs: inout [FrameRun], mayRepeat: Bool) {
    if let last = runs.last {
      if frame >= last.start, frame < last.end {
        precondition(mayRepeat, "a frame is freed twice")
        return
      }
      if last.end == frame {
        runs[runs.count - 1] = FrameRun(start: last.start, count: last.count + 1)
        return
      }
      if frame.advanced(by: 1) == last.start {
        runs[runs.count - 1] = FrameRun(start: frame, count: last.count + 1)
        return
      }
    }
    runs.append(FrameRun(start: frame, count: 1))
  }

  /// Merges adjacent runs: frames are often allocated in short runs, in descending order.
  static func join(_ runs: inout [FrameRun], mayRepeat: Bool) {
    guard runs.count > 1 else { return }
    runs.sort { $0.start < $1.start }
    var last = 0
    for index in 1..<runs.count {
      if runs[last].end >= runs[index].start {
        precondition(mayRepeat || runs[last].end == runs[index].start, "a frame is freed twice")
        let end = max(runs[last].end, runs[index].end)
        runs[last] = FrameRun(start: runs[last].start, count: Int(end.rawValue - runs[last].start.rawValue))
      } else {
        last += 1
        runs[last] = runs[index]
      }
    }
    runs.removeSubrange((last + 1)...)
  }
}

extension ServerState {
  /// Carries out the pending zaps and gives the unused frames to the pool. Called before the lock is released, and
  /// before a frame whose leaf was changed is read, copied or allocated.
  mutating func finishRevocations() {
    if !revocations.zaps.isEmpty {
      Revocations.join(&revocations.zaps, mayRepeat: true)
      for run in revocations.zaps {
        memory.zap(run)
        statistics.zaps += 1
        statistics.framesZapped += UInt64(run.count)
      }
      revocations.zaps.removeAll(keepingCapacity: true)
    }
    beginGracePeriod()
    if revocations.mustSettle {
      if revocations.isUnsettled { spaces.settleWrites() }
      revocations.isUnsettled = false
      revocations.mustSettle = false
    }
    if !revocations.unused.isEmpty {
      Revocations.join(&revocations.unused, mayRepeat: false)
      for run in revocations.unused { pool.give(run) }
      revocations.unused.removeAll(keepingCapacity: true)
      hasAskedForZeroedFrames = false
      blocks.hasAsked = false
    }
  }

  /// Clears one leaf, which names `frame`.
  mutating func removeLeaf(_ place: MappedPlace, of frame: FrameNumber, _ cause: SplitCause) {
    let found = spaces.unmap(place.slot, place.page, cause)
    precondition(found == frame, "the reverse map names a leaf of another frame")
    var looked = 0
    reverseMap.remove(place, from: &pool.records[frame].link, looked: &looked)
    step.count(looked * Work.look)
    noteEmptied(place.slot)
    willZap(frame)
  }

  /// Schedules a zap of the frame, one of whose leaves was changed.
  private mutating func willZap(_ frame: FrameNumber) {
    step.count(Work.leaf)
    zap(frame)
  }

  private mutating func zap(_ frame: FrameNumber) {
    let before = (runs: revocations.zaps.count, frames: revocations.zaps.last?.count)
    Revocations.append(frame, to: &revocations.zaps, mayRepeat: true)
    if revocations.zaps.count > before.runs {
      step.count(Work.zap)
    } else if revocations.zaps.last?.count != before.frames {
      step.count(Work.zappedFrame)
    }
    if revocations.isFull { finishRevocations() }
  }

  /// Clears leaves that name the frame, as many as the step has time for, but at least one.
  /// - Parameters:
  ///   - filter: selects the leaves; a few others may pass.
  ///   - shown: what they must show, exactly; nil: anything.
  ///   - atOnce: clears all, however long it takes: restarting the walk for each would take far longer.
  /// - Returns: false: more may be left. The state is consistent in between: a leaf may go at any time.
  @discardableResult
  mutating func removeLeaves(
    of frame: FrameNumber, _ filter: PlaceFilter = .all, showing shown: ContainerFrame? = nil,
    _ cause: SplitCause = .freed, atOnce: Bool = false
  ) -> Bool {
    let link = pool.records[frame].link
    if let place = reverseMap.only(of: link) {
      if filter.passes(place), isShowing(place, shown) { removeLeaf(place, of: frame, cause) }
      return true
    }
    var position = reverseMap.begin(link)
    var looked = 0
    defer { step.count(looked * Work.look) }
    while let place = reverseMap.next(&position, filter, looked: &looked) {
      guard isShowing(place, shown) else {
        position.skip()
        continue
      }
      let found = spaces.unmap(place.slot, place.page, cause)
      precondition(found == frame, "the reverse map names a leaf of another frame")
      reverseMap.remove(at: &position, from: &pool.records[frame].link)
      noteEmptied(place.slot)
      willZap(frame)
      if !atOnce, isStepOver { return false }
    }
    return true
  }

  private mutating func isShowing(_ place: MappedPlace, _ shown: ContainerFrame?) -> Bool {
    guard let shown else { return true }
    step.count(Work.place)
    // A leaf without a mapping belongs to a task that is ending step by step. Clear it too: the frame may be reused
    // before the task's end gets to it.
    return containerFrame(at: place).map { $0 == shown } ?? true
  }

  /// Clears every leaf that names the frame.
  mutating func revokeAll(_ frame: FrameNumber, _ cause: SplitCause = .freed) {
    removeLeaves(of: frame, .all, cause, atOnce: true)
  }

  /// The mapping behind a leaf.
  mutating func mapping(at place: MappedPlace) -> Mapping? {
    guard let index = tasks[place.slot].mappings.find(place.page) else { return nil }
    return tasks[place.slot].mappings[index]
  }

  /// The id that the mapping behind a leaf shows there.
  mutating func containerFrame(at place: MappedPlace) -> ContainerFrame? {
    guard let mapping = mapping(at: place) else { return nil }
    return ContainerFrame(container: mapping.container.slot, id: mapping.frame(at: place.page))
  }

  /// A frame with more leaves is thinned out before an operation on all its leaves at once.
  static let fewLeaves = 128

  /// Clears leaves of a frame until few are left, as many as the step has time for. False: too many are left.
  mutating func thinOut(_ frame: FrameNumber, _ cause: SplitCause) -> Bool {
    while reverseMap.count(pool.records[frame].link) > Self.fewLeaves {
      guard let place = reverseMap.first(of: pool.records[frame].link) else { break }
      removeLeaf(place, of: frame, cause)
      if isStepOver { return false }
    }
    return true
  }

  /// Write-protects every leaf of a frame that has few. The content does not change after `finishRevocations`.
  mutating func writeProtectAll(_ frame: FrameNumber) {
    let events = events
    let spaces = spaces
    // A write through a leaf that was cleared earlier may still be under way.
    revocations.mustSettle = true
    let link = pool.records[frame].link
    guard link != 0 else { return }
    var isUnsettled = false
    reverseMap.forEach(in: link) {
      spaces.writeProtect($0.slot, $0.page)
      if events.visit($0.slot) != nil { isUnsettled = true }
    }
    if isUnsettled { revocations.isUnsettled = true }
    step.count(reverseMap.count(link) * Work.leaf)
    zap(frame)
  }

  /// For tests: revokes a random mapped frame, as moving it would (R25).
  /// - Parameter random: any number; the search for a mapped frame begins there.
  /// - Returns: false when none was found nearby.
  mutating func revokeSomeFrame(_ random: UInt64) -> Bool {
    var index = Int(random % UInt64(pool.count))
    // Mapped frames are clustered: do not always pick the first.
    var passed = Int(random >> 32 & 63)
    var found: FrameNumber?
    for _ in 0..<4096 {
      let frame = FrameNumber(UInt32(index))
      if pool.records[frame].state == .inUse, pool.records[frame].link != 0 {
        found = frame
        if passed == 0 { break }
        passed -= 1
      }
      index = index + 1 == pool.count ? 0 : index + 1
    }
    guard let found else { return false }
    forgetMappings(of: found)
    revokeAll(found, .withdrawn)
    finishRevocations()
    if isWritten(found) { statistics.strayWrites += 1 }
    return true
  }

  /// For tests: whether a frame without leaves is written. Watches it, with the lock held, for as long as a task needs
  /// to write it a few times, so that no fault can map it again meanwhile.
  private func isWritten(_ frame: FrameNumber) -> Bool {
    let nanoseconds: UInt64 = 20_000
    let first = words(of: frame)
    let start = events.now
    for _ in 0..<200 {
      if words(of: frame) != first { return true }
      if events.now - start > nanoseconds { break }
    }
    return false
  }

  private func words(of frame: FrameNumber) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 64)
    var span = bytes.mutableSpan
    memory.read(frame, at: 0, into: &span)
    return bytes
  }

  private func needsToWait(_ place: MappedPlace) -> Bool {
    WaitLevel.allCases.contains { wait(Waiter(place.slot, $0)).needs(place.page) }
  }

  /// Removes the frame's pages from the mappings of tasks that re-establish mappings themselves. Keeps images, stacks,
  /// and the message buffer of a waiting task, which could not map it again in time.
  private mutating func forgetMappings(of frame: FrameNumber) {
    var places: [MappedPlace] = []
    reverseMap.forEach(in: pool.records[frame].link) { places.append($0) }
    for place in places where !tasks[place.slot].keepsMappings {
      guard let index = tasks[place.slot].mappings.find(place.page),
        !tasks[place.slot].mappings[index].isInitial,
        !needsToWait(place),
        tasks[place.slot].mappings.count < MappingTable.capacity
      else { continue }
      removeLeaf(place, of: frame, .withdrawn)
      _ = tasks[place.slot].mappings.remove(from: place.page, to: place.page.advanced(by: 1), limit: 4)
    }
  }

  /// One step of clearing a task's leaves in `page ..< end`.
  /// - Returns: the page to continue from; nil when none is left.
  mutating func unmapPages(_ task: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    beginStep()
    defer { finishRevocations() }
    var page = page
    while let mapped = spaces.firstMapped(task, from: page, to: end) {
      // A page without a leaf: the search used up this step.
      guard let leaf = spaces.mappedPage(task, mapped) else { return mapped }
      removeLeaf(MappedPlace(task, mapped), of: leaf.frame, .unmapped)
      page = mapped.advanced(by: 1)
      if isStepOver { return page }
    }
    return nil
  }

  /// Removes one sharer of a content, not the last.
  mutating func letGo(of number: ContentNumber) {
    contents.addSharers(number, -1)
    // This may have released it, and its leaves may have just gone: running vCPUs may still access it.
    if softReferences.update(contents[number]) { grace.beganIdle = false }
  }

  /// Removes the sharer `shown` from a content, and frees the content if it was the last.
  /// - Returns: false: some of its leaves are left for another step, and it still names the content.
  mutating func dropContent(_ number: ContentNumber, shownBy shown: ContainerFrame) -> Bool {
    let content = contents[number]
    guard content.sharers == 1 else {
      guard removeLeaves(of: content.frame, .showing(shown), showing: shown) else { return false }
      letGo(of: number)
      return true
    }
    guard removeLeaves(of: content.frame) else { return false }
    contents.addSharers(number, -1)
    freeContent(number)
    Revocations.append(content.frame, to: &revocations.unused, mayRepeat: false)
    if revocations.isFull { finishRevocations() }
    return true
  }
}
