// Taking frames back from page tables. The order is always the same, and nothing here breaks it:
//
//      empty or write-protect the leaves ──▶ zap the frames ──▶ copy, move, or give the frames to the pool
//
// The pool frees them when nobody can be looking at them any more (GracePeriod.swift).
//
// Zaps are collected, since one for a run of adjacent frames costs a fraction of one for each.

internal import GuestMemory

/// One id of one container.
struct ContainerFrame: Equatable {
  let container: UInt32
  let id: UInt32
}

/// Frames whose leaves are gone: to be zapped, and some of them to be given to the pool after that.
struct Revocations: ~Copyable {
  /// Runs to zap before anything else is done with their frames.
  var zaps: [FrameRun] = []
  /// Runs without users, waiting for the zaps.
  var unused: [FrameRun] = []
  static let capacity = 256
  /// Leaves emptied so far: the measure of how long a step takes.
  var leavesRemoved = 0

  init() {
    zaps.reserveCapacity(Self.capacity)
    unused.reserveCapacity(Self.capacity)
  }

  var isFull: Bool { zaps.count >= Self.capacity || unused.count >= Self.capacity }

  /// Appends a frame, joining it with the last run where it is adjacent on either side.
  static func append(_ frame: FrameNumber, to runs: inout [FrameRun]) {
    if let last = runs.last {
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
  static func join(_ runs: inout [FrameRun]) {
    guard runs.count > 1 else { return }
    runs.sort { $0.start < $1.start }
    var last = 0
    for index in 1..<runs.count {
      if runs[last].end == runs[index].start {
        runs[last] = FrameRun(start: runs[last].start, count: runs[last].count + runs[index].count)
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
      Revocations.join(&revocations.zaps)
      for run in revocations.zaps {
        operations.zap(run)
        statistics.zaps += 1
        statistics.framesZapped += UInt64(run.count)
      }
      revocations.zaps.removeAll(keepingCapacity: true)
    }
    beginGracePeriod()
    if !revocations.unused.isEmpty {
      Revocations.join(&revocations.unused)
      for run in revocations.unused { pool.give(run) }
      revocations.unused.removeAll(keepingCapacity: true)
      hasAskedForZeroedFrames = false
      blocks.hasAsked = false
    }
  }

  /// Empties one leaf, which names `frame`.
  mutating func removeLeaf(_ place: MappedPlace, of frame: FrameNumber, _ cause: SplitCause) {
    let found = operations.unmap(place.slot, place.page, cause)
    precondition(found == frame, "the reverse map names a leaf of another frame")
    reverseMap.remove(place, from: &pool.records[frame].link)
    noteEmptied(place.slot)
    revocations.leavesRemoved += 1
    Revocations.append(frame, to: &revocations.zaps)
    if revocations.isFull { finishRevocations() }
  }

  /// Empties every leaf that names the frame.
  mutating func revokeAll(_ frame: FrameNumber, _ cause: SplitCause = .freed) {
    while let place = reverseMap.first(of: pool.records[frame].link) { removeLeaf(place, of: frame, cause) }
  }

  /// Empties the leaves through which tasks see the frame as `shown`, and leaves those of other logical copies.
  mutating func revoke(_ frame: FrameNumber, shownBy shown: ContainerFrame) {
    if let place = reverseMap.only(of: pool.records[frame].link) {
      if containerFrame(at: place) == shown { removeLeaf(place, of: frame, .freed) }
      return
    }
    var places: [MappedPlace] = []
    reverseMap.forEach(in: pool.records[frame].link) { places.append($0) }
    for place in places where containerFrame(at: place) == shown { removeLeaf(place, of: frame, .freed) }
  }

  /// The mapping behind a leaf.
  mutating func mapping(at place: MappedPlace) -> Mapping? {
    guard let index = tasks[place.slot.rawValue].mappings.find(place.page) else { return nil }
    return tasks[place.slot.rawValue].mappings[index]
  }

  /// What the mapping behind a leaf shows there.
  mutating func containerFrame(at place: MappedPlace) -> ContainerFrame? {
    guard let mapping = mapping(at: place) else { return nil }
    return ContainerFrame(container: mapping.container.slot, id: mapping.frame(at: place.page))
  }

  /// Takes the right to write from every leaf of the frame.
  mutating func writeProtectAll(_ frame: FrameNumber) {
    let operations = operations
    let link = pool.records[frame].link
    if let place = reverseMap.only(of: link) {
      operations.writeProtect(place.slot, place.page)
    } else {
      reverseMap.forEach(in: link) { operations.writeProtect($0.slot, $0.page) }
    }
    if link != 0 { Revocations.append(frame, to: &revocations.zaps) }
    if revocations.isFull { finishRevocations() }
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
    let start = operations.now
    for _ in 0..<200 {
      if words(of: frame) != first { return true }
      if operations.now - start > nanoseconds { break }
    }
    return false
  }

  private func words(of frame: FrameNumber) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 64)
    var span = bytes.mutableSpan
    operations.read(frame, at: 0, into: &span)
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
    for place in places where !tasks[place.slot.rawValue].keepsMappings {
      guard let index = tasks[place.slot.rawValue].mappings.find(place.page),
        !tasks[place.slot.rawValue].mappings[index].isInitial,
        !needsToWait(place),
        tasks[place.slot.rawValue].mappings.count < MappingTable.capacity
      else { continue }
      removeLeaf(place, of: frame, .withdrawn)
      _ = tasks[place.slot.rawValue].mappings.remove(from: place.page, to: place.page.advanced(by: 1), limit: 4)
    }
  }

  /// Empties leaves of a task in `page ..< end`, at most `limit` of them.
  /// - Returns: where to go on, or nil when none is left.
  mutating func unmapPages(_ task: TaskSlot, from page: PageNumber, to end: PageNumber, limit: Int) -> PageNumber? {
    defer { finishRevocations() }
    var page = page
    var left = limit
    while let mapped = operations.firstMapped(task, from: page, to: end) {
      // Without a leaf: the search was long enough for one step.
      guard left > 0, let leaf = operations.mappedPage(task, mapped) else { return mapped }
      removeLeaf(MappedPlace(task, mapped), of: leaf.frame, .unmapped)
      page = mapped.advanced(by: 1)
      left -= 1
    }
    return nil
  }

  /// One virtual frame lets go of a content. The last one frees it.
  mutating func dropContent(_ number: ContentNumber, shownBy shown: ContainerFrame) {
    let content = contents[number]
    contents.addSharers(number, -1)
    guard content.sharers == 1 else { return revoke(content.frame, shownBy: shown) }
    revokeAll(content.frame)
    freeContent(number)
    Revocations.append(content.frame, to: &revocations.unused)
    if revocations.isFull { finishRevocations() }
  }
}
