// The naive model of released frames.

internal import GuestMemory
internal import PhysicalMemory

extension Model {
  /// Finds a free frame for a content, if necessary by expiring a released content or freeing the tables kept for
  /// closed slots.
  /// - Returns: its area; nil: there is none.
  mutating func findFrame() -> ModelArea? {
    if let area = findReleasedFrame() { return area }
    tables.releaseClosed()
    return findReleasedFrame()
  }

  private mutating func findReleasedFrame() -> ModelArea? {
    while freeForContents == 0, expireOldest() {}
    return freeForContents > 0 ? .contents : freeForTables > 0 ? .tableArea : nil
  }

  /// Finds a frame for a table in the same way.
  mutating func findTableFrame() -> ModelArea? { freeForTables > 0 ? .tableArea : findReleasedFrame() }

  mutating func expireOldest() -> Bool {
    guard let oldest = releasedContents.first else { return false }
    expiredCount += 1
    for release in oldest.releases { forgetReleased(release.container, release.id) }
    return true
  }

  /// Makes an id unrecoverable.
  mutating func forgetReleased(_ container: ModelContainer, _ id: UInt32) {
    container.releasedEmpties.remove(id)
    guard let release = container.released.removeValue(forKey: id) else { return }
    takeOut(release)
    letGo(release.content)
  }

  private mutating func takeOut(_ release: ModelRelease) {
    released.removeAll { $0 === release }
    release.content.releases.removeAll { $0 === release }
  }

  mutating func releasePages(_ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32)
    throws(CallFailure)
  {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    for id in ids where container.frames[id] == nil { throw .noEntry }
    guard !isPinned(container, ids.contains) else { throw .busy }
    for id in ids {
      guard let frame = container.frames[id] else { continue }
      if case .content(let content) = frame { release(task, container, id, content) }
      set(container, id, nil)
      if case .empty = frame { releaseEmpty(task, container, id) }
    }
  }

  private func releaseEmpty(_ task: ModelTask, _ container: ModelContainer, _ id: UInt32) {
    container.releasedEmpties.insert(id)
    task.emptyReleases.append((container, id))
    guard task.emptyReleases.count > 1024 else { return }
    let oldest = task.emptyReleases.removeFirst()
    if oldest.container !== container || oldest.id != id { oldest.container.releasedEmpties.remove(oldest.id) }
  }

  private mutating func release(
    _ task: ModelTask, _ container: ModelContainer, _ id: UInt32, _ content: ModelContent
  ) {
    if content.sharers == 1 { giveUpPlace(content) }
    guard content.releases.count < 1024 else { return }
    let release = ModelRelease(container, id, content)
    keep(content)
    container.released[id] = release
    released.append(release)
    content.releases.insert(release, at: min(1, content.releases.count))
    guard content.releases.count > 1 else { return }
    task.furtherReleases.append(release)
    guard task.furtherReleases.count > 256 else { return }
    let oldest = task.furtherReleases.removeFirst()
    if oldest.container.released[oldest.id] === oldest, oldest.content.releases.first !== oldest {
      forgetReleased(oldest.container, oldest.id)
    }
  }

  mutating func recoverPages(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32, frameError: UInt64
  ) throws(CallFailure) {
    var ids: [UInt32] = []
    for id in try load(task, .array(address), count) where !ids.contains(id) { ids.append(id) }
    let container = try ownContainer(task, handle)
    if frameError != 0 { try check(task, frameError, 4, .write) }
    let left = headroom(task, extra: true)
    var lost: (id: UInt32, error: CallFailure)?
    if let id = ids.first(where: { container.released[$0] == nil && !container.releasedEmpties.contains($0) }) {
      lost = (id, container.frames[id] == nil ? .contentGone : .exists)
    } else if left < ids.count {
      lost = (ids[left], .noMemory)
    }
    if let lost {
      if frameError != 0 { try writeWord(task, frameError, lost.id) }
      throw lost.error
    }
    try charge(task, ids.count)
    for id in ids {
      recoveredCount += 1
      guard let release = container.released[id] else {
        set(container, id, .empty)
        continue
      }
      // Keeps the content alive until the id names it again.
      keep(release.content)
      forgetReleased(container, id)
      set(container, id, .content(release.content))
      letGo(release.content)
    }
  }

  mutating func expiredPages(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32, result: UInt64
  ) throws(CallFailure) {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    try write(
      task, result,
      ids.map {
        container.frames[$0] == nil && container.released[$0] == nil && !container.releasedEmpties.contains($0) ? 1 : 0
      })
  }
}
