// Taking frames back from page tables. The order is always the same, and nothing here breaks it:
//
//      empty or write-protect the leaves ──▶ zap the frames ──▶ copy, move, or give the frames to the pool
//
// A zap ends what processors write. What KVM itself is writing for a task, it may still write afterwards: before a frame
// that stays is copied or shared, that is waited for (`settleWrites`).
// The pool frees them when nobody can be looking at them any more (GracePeriod.swift).
//
// Zaps are collected, since one for a run of adjacent frames costs a fraction of one for each.

internal import GuestMemory

/// One id of one container.
struct ContainerFrame: Equatable {
  let container: ContainerSlot
  let id: FrameID
}

/// Frames whose leaves are gone: to be zapped, and some of them to be given to the pool after that.
struct Revocations: ~Copyable {
  /// Runs to zap before anything else is done with their frames.
  var zaps: [FrameRun] = []
  /// Runs without users, waiting for the zaps.
  var unused: [FrameRun] = []
  /// Leaves of a task changed while the machine may have been writing through them, and that has not been waited for.
  var isUnsettled = false
  /// A content is to stay as it is from the zaps on.
  var mustSettle = false
  static let capacity = 256

  init() {
    zaps.reserveCapacity(Self.capacity)
    unused.reserveCapacity(Self.capacity)
  }

  var isFull: Bool { zaps.count >= Self.capacity || unused.count >= Self.capacity }

  /// Appends a frame, joining it with the last run where it is adjacent to it, on either side.
  /// - Parameter mayRepeat: a frame that is there already is meant once. Without that, it has been freed twice.
  static func append(_ frame: FrameNumber, to runs: inout [FrameRun], mayRepeat: Bool) {
    if let last = runs.last {
      if frame >= last.start, frame < last.end {
        precondition(mayRepeat, "a frame is given back twice")
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

  /// Joins all runs that are adjacent: frames are often handed out in short rows, the later rows before the earlier.
  static func join(_ runs: inout [FrameRun], mayRepeat: Bool) {
    guard runs.count > 1 else { return }
    runs.sort { $0.start < $1.start }
    var last = 0
    for index in 1..<runs.count {
      if runs[last].end >= runs[index].start {
        precondition(mayRepeat || runs[last].end == runs[index].start, "a frame is given back twice")
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
  /// Does the zaps collected so far, then gives the unused frames to the pool. Called before the lock is released,
  /// and before a frame whose leaf was changed is read, copied or handed out.
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

  /// Empties one leaf, which names `frame`.
  mutating func removeLeaf(_ place: MappedPlace, of frame: FrameNumber, _ cause: SplitCause) {
    let found = spaces.unmap(place.slot, place.page, cause)
    precondition(found == frame, "the reverse map names a leaf of another frame")
    var looked = 0
    reverseMap.remove(place, from: &pool.records[frame].link, looked: &looked)
    step.count(looked * Work.look)
    noteEmptied(place.slot)
    willZap(frame)
  }

  /// A leaf of the frame was changed: the frame is to be zapped.
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

  /// Empties leaves that name the frame, as many as the step has time for: one at least, if there is one.
  /// - Parameters:
  ///   - filter: which of them; few others pass.
  ///   - shown: what they show, exactly; nil: whatever they show.
  ///   - atOnce: all of them, however long that takes: a walk that begins anew for each would take far longer.
  /// - Returns: false: there may be more. What the frame is to be taken from is as it was then: a leaf may go at any time.
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
    // A leaf that has lost its mapping is of a task that ends, step by step. It goes as well: the frame may be somebody
    // else's before the task has come to it.
    return containerFrame(at: place).map { $0 == shown } ?? true
  }

  /// Empties every leaf that names the frame.
  mutating func revokeAll(_ frame: FrameNumber, _ cause: SplitCause = .freed) {
    removeLeaves(of: frame, .all, cause, atOnce: true)
  }

  /// The mapping behind a leaf.
  mutating func mapping(at place: MappedPlace) -> Mapping? {
    guard let index = tasks[place.slot].mappings.find(place.page) else { return nil }
    return tasks[place.slot].mappings[index]
  }

  /// What the mapping behind a leaf shows there.
  mutating func containerFrame(at place: MappedPlace) -> ContainerFrame? {
    guard let mapping = mapping(at: place) else { return nil }
    return ContainerFrame(container: mapping.container.slot, id: mapping.frame(at: place.page))
  }

  /// Frames with more leaves than this lose some before something is done to all of them at once.
  static let fewLeaves = 128

  /// Empties leaves of a frame until few are left, as many as the step has time for. False: there are too many still.
  mutating func thinOut(_ frame: FrameNumber, _ cause: SplitCause) -> Bool {
    while reverseMap.count(pool.records[frame].link) > Self.fewLeaves {
      guard let place = reverseMap.first(of: pool.records[frame].link) else { break }
      removeLeaf(place, of: frame, cause)
      if isStepOver { return false }
    }
    return true
  }

  /// Takes the right to write from every leaf of a frame that has few of them: what it holds stays as it is from
  /// `finishRevocations` on.
  mutating func writeProtectAll(_ frame: FrameNumber) {
    let events = events
    let spaces = spaces
    // A leaf that went earlier may be written through still.
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

  /// For tests: takes some mapped frame from everyone who sees it, as moving it would (R25).
  /// - Parameter random: any number; the search for a mapped frame begins there.
  /// - Returns: false when none was found nearby.
  mutating func revokeSomeFrame(_ random: UInt64) -> Bool {
    var index = Int(random % UInt64(pool.count))
    // Mapped frames lie together: not always the first of them.
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

  /// For tests: whether anyone writes a frame that has no leaf. It is looked at for as long as a task needs to write
  /// it a few times over, with the lock held, so that no fault can give the task the frame back meanwhile.
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

  /// Forgets the page of each task that re-establishes its mappings itself; images and stacks stay known, and so does
  /// where a task that waits wants its message: it could not map that again before it is too late.
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

  /// One step of emptying leaves of a task in `page ..< end`.
  /// - Returns: where to go on, or nil when none is left.
  mutating func unmapPages(_ task: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    beginStep()
    defer { finishRevocations() }
    var page = page
    while let mapped = spaces.firstMapped(task, from: page, to: end) {
      // Without a leaf: the search was long enough for one step.
      guard let leaf = spaces.mappedPage(task, mapped) else { return mapped }
      removeLeaf(MappedPlace(task, mapped), of: leaf.frame, .unmapped)
      page = mapped.advanced(by: 1)
      if isStepOver { return page }
    }
    return nil
  }

  /// One of several names of a content is gone.
  mutating func letGo(of number: ContentNumber) {
    contents.addSharers(number, -1)
    // It may have been released by this, and leaves of it may have gone just now: who runs may still be looking at it.
    if softReferences.update(contents[number]) { grace.beganIdle = false }
  }

  /// One virtual frame is to let go of a content; the last one frees it.
  /// - Returns: false, and the virtual frame names it still: some of its leaves are left, for another step.
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
