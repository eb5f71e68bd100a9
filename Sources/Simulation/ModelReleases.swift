// The naive model's released frames.

internal import GuestMemory
internal import PhysicalMemory

extension Model {
  /// Where there is a free frame for a content, if need be one that was released and not recovered, or a table kept for
  /// a task that has ended. nil: there is none.
  mutating func findFrame() -> ModelArea? {
    if let area = findReleasedFrame() { return area }
    tables.releaseClosed()
    return findReleasedFrame()
  }

  private mutating func findReleasedFrame() -> ModelArea? {
    while freeForContents == 0, expireOldest() {}
    return freeForContents > 0 ? .contents : freeForTables > 0 ? .tableArea : nil
  }

  /// The same for a table.
  mutating func findTableFrame() -> ModelArea? { freeForTables > 0 ? .tableArea : findReleasedFrame() }

  mutating func expireOldest() -> Bool {
    guard let oldest = released.first else { return false }
    expiredCount += 1
    forgetReleased(oldest.container, oldest.id)
    return true
  }

  /// There is nothing to be recovered under that id any more.
  mutating func forgetReleased(_ container: ModelContainer, _ id: UInt32) {
    guard let release = container.released.removeValue(forKey: id) else { return }
    released.removeAll { $0 === release }
    if let content = release.content { letGo(content) }
  }

  mutating func releasePages(_ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32)
    throws(ServerError)
  {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    for id in ids where container.frames[id] == nil { throw .noEntry }
    guard !isPinned(container, ids.contains) else { throw .busy }
    for id in ids {
      guard let frame = container.frames[id] else { continue }
      // No more of them are kept than the machine has frames.
      if released.count == world.frames { _ = expireOldest() }
      let release = ModelRelease(container, id)
      if case .content(let content) = frame {
        if content.sharers == 1 { giveUpPlace(content) }
        release.content = content
        keep(content)
      }
      container.released[id] = release
      released.append(release)
      set(container, id, nil)
    }
  }

  mutating func recoverPages(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32, frameError: UInt64
  ) throws(ServerError) {
    var ids: [UInt32] = []
    for id in try load(task, .array(address), count) where !ids.contains(id) { ids.append(id) }
    let container = try ownContainer(task, handle)
    if frameError != 0 { try check(task, frameError, 4, .write) }
    let left = headroom(task, extra: true)
    var lost: (id: UInt32, error: ServerError)?
    if let id = ids.first(where: { container.released[$0] == nil }) {
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
      guard let release = container.released[id] else { continue }
      recoveredCount += 1
      set(container, id, release.content.map { .content($0) } ?? .empty)
    }
  }

  mutating func expiredPages(
    _ task: ModelTask, _ handle: UInt32, at address: UInt64, _ count: UInt32, result: UInt64
  ) throws(ServerError) {
    let ids = try load(task, .array(address), count)
    let container = try ownContainer(task, handle)
    try write(
      task, result, ids.map { container.frames[$0] == nil && container.released[$0] == nil ? 1 : 0 })
  }
}
