// The naive model: shared containers, locks and pins.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Model {
  /// All containers owned by tasks.
  var containers: [ModelContainer] { tasks.flatMap(\.containers) }

  // MARK: Shares

  mutating func share(
    _ task: ModelTask, _ name: HandleName, _ handle: UInt32, remote: UInt32
  ) throws(CallFailure) -> UInt32 {
    let container = try ownContainer(task, handle)
    var holder: TaskID?
    if remote != PM_CAP_NONE {
      switch task.handles[remote] {
      case .task: holder = task.id
      case .peer(let id): holder = id
      case .endpoint(let endpoint, _):
        guard endpoint.isLive else { throw .canceled }
        holder = self.task(endpoint.owner)?.id
      default: throw .invalid
      }
    }
    return task.handles.insert(.weak(container, epoch: container.epoch, holder: holder), name)
  }

  mutating func share(
    _ task: ModelTask, _ name: HandleName, _ handle: UInt32, remote: UInt32, result: UInt64
  ) throws(CallFailure) {
    try check(task, result, 4, .write)
    try writeWord(task, result, try share(task, name, handle, remote: remote))
  }

  mutating func revoke(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) {
    let container = try ownContainer(task, handle)
    guard heldByOthers(container) == nil else { throw .busy }
    container.epoch += 1
  }

  /// The latest time at which others stop holding a container against its owner; nil: none does.
  func heldByOthers(_ container: ModelContainer) -> UInt64? {
    var deadlines: [UInt64] = []
    if let lock = currentLock(container) { deadlines.append(lock.deadline) }
    for (id, pin) in container.pins {
      if pin.deadline > now {
        if pin.holder != container.owner { deadlines.append(pin.deadline) }
      } else if container.transfers[id] != nil {
        // No time is known for its end.
        deadlines.append(now + 10_000_000)
      }
    }
    return deadlines.max()
  }

  // MARK: Locks

  private static func check(microseconds: UInt64) throws(CallFailure) {
    guard microseconds > 0, microseconds <= PM_LOCK_MAXIMUM_US else { throw .invalid }
  }

  mutating func lock(_ task: ModelTask, _ handle: UInt32, microseconds: UInt64) throws(CallFailure) {
    try Self.check(microseconds: microseconds)
    let (container, epoch) = try container(task, handle)
    guard epoch != nil, container.owner != task.name else { throw .notPermitted }
    let current = currentLock(container)
    if let current, current.holder != task.name { throw .busy }
    guard !isEnding(container) else { throw .canceled }
    // A lock may be extended, up to the longest time from its start.
    let start = current?.start ?? now
    let deadline = min(now + microseconds * 1000, start + PM_LOCK_MAXIMUM_US * 1000)
    container.lock = (task.name, start, deadline)
  }

  mutating func unlock(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) {
    let (container, _) = try container(task, handle)
    guard let lock = currentLock(container), lock.holder == task.name else { throw .notPermitted }
    endLock(container)
  }

  private func isEnding(_ container: ModelContainer) -> Bool {
    container.owner.flatMap { task($0)?.isEnding } ?? false
  }

  private mutating func endLock(_ container: ModelContainer) {
    container.lock = nil
    if let owner = container.owner { woken.append(owner) }
  }

  // MARK: Pins

  func isPinned(_ container: ModelContainer, _ id: UInt32) -> Bool {
    guard let pin = container.pins[id] else { return false }
    return pin.deadline > now || container.transfers[id] != nil
  }

  /// Whether an id that satisfies `isMeant` is pinned.
  func isPinned(_ container: ModelContainer, _ isMeant: (UInt32) -> Bool) -> Bool {
    container.pins.keys.contains { isPinned(container, $0) && isMeant($0) }
  }

  mutating func checkPin(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, microseconds: UInt64, physical: UInt64
  ) throws(CallFailure) -> (container: ModelContainer, ids: ClosedRange<UInt32>) {
    let ids = try Self.range(start, count)
    guard count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    try check(task, physical, Int(count) * 8, .write)
    try Self.check(microseconds: microseconds)
    let (container, _) = try container(task, handle)
    for id in ids where container.frames[id] == nil { throw .noEntry }
    guard !isEnding(container) else { throw .canceled }
    for id in ids where isPinned(container, id) && container.pins[id]?.holder != task.name { throw .busy }
    var pinned = 0
    for container in containers { pinned += container.pins.keys.count { isPinned(container, $0) } }
    let more = ids.count { !isPinned(container, $0) }
    guard pinned + more <= allocatable / 2 else { throw .noMemory }
    return (container, ids)
  }

  /// - Parameter addresses: the frames' addresses as the server reports them.
  /// - Returns: a message if one of them is wrong.
  mutating func pin(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, microseconds: UInt64, physical: UInt64,
    addresses: [UInt64]
  ) throws(CallFailure) -> String? {
    let (container, ids) = try checkPin(
      task, handle, start, count, microseconds: microseconds, physical: physical)
    var wrong: String?
    for (id, address) in zip(ids, addresses) {
      makePrivate(container, id)
      makeResident(container, id)
      container.pins[id] = (task.name, now + microseconds * 1000)
      guard case .content(let content) = container.frames[id] else { continue }
      if let text = place(content, at: address) { wrong = text }
    }
    try write(task, physical, addresses.flatMap(littleEndian))
    return wrong
  }

  /// Records a content's address.
  /// - Returns: a message if it cannot be there.
  func place(_ content: ModelContent, at address: UInt64) -> String? {
    guard address > 0, address % 4096 == 0, address / 4096 < UInt64(world.frames) else {
      return "\(address) is not the address of a frame"
    }
    let frame = FrameNumber(UInt32(address / 4096))
    if let old = content.frame, old != frame { return "frame \(frame.rawValue) for the content of \(old.rawValue)" }
    content.frame = frame
    return nil
  }

  mutating func unpin(_ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32) throws(CallFailure) {
    let ids = try Self.range(start, count)
    guard count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    let (container, _) = try container(task, handle)
    for id in ids {
      guard let pin = container.pins[id], pin.deadline > now else { throw .noEntry }
      guard pin.holder == task.name else { throw .notPermitted }
    }
    for id in ids { endPin(container, id) }
    if let owner = container.owner { woken.append(owner) }
  }

  /// Ends a pin, but keeps it during a transfer.
  private func endPin(_ container: ModelContainer, _ id: UInt32) {
    if container.transfers[id] == nil { container.pins[id] = nil } else { container.pins[id]?.deadline = 0 }
  }

  // MARK: Transfers

  /// The frames of a transfer with these ids; nil: the task's arguments are wrong.
  func transferFrames(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32
  ) -> (container: ModelContainer, ids: ClosedRange<UInt32>, frames: [FrameNumber])? {
    guard count <= 64, let ids = try? Self.range(start, count),
      let (container, _) = try? container(task, handle)
    else { return nil }
    var frames: [FrameNumber] = []
    for id in ids {
      guard case .content(let content) = container.frames[id], let frame = content.frame else { return nil }
      frames.append(frame)
    }
    return (container, ids, frames)
  }

  /// - Returns: whether it starts.
  func beginTransfer(_ task: ModelTask, _ container: ModelContainer, _ ids: ClosedRange<UInt32>) -> Bool {
    for id in ids {
      guard let pin = container.pins[id], pin.deadline > now, pin.holder == task.name else { return false }
    }
    for id in ids { container.transfers[id, default: 0] += 1 }
    return true
  }

  mutating func endTransfer(_ container: ModelContainer, _ ids: ClosedRange<UInt32>) {
    for id in ids {
      container.transfers[id, default: 0] -= 1
      guard container.transfers[id] == 0 else { continue }
      container.transfers[id] = nil
      guard let pin = container.pins[id], pin.deadline <= now else { continue }
      container.pins[id] = nil
      if let owner = container.owner { woken.append(owner) }
    }
  }

  // MARK: Ends

  mutating func leaveSharing(_ task: ModelTask) {
    for container in containers {
      if let lock = currentLock(container), lock.holder == task.name { endLock(container) }
      let ids = container.pins.filter { $0.value.holder == task.name && isPinned(container, $0.key) }.map(\.key)
      for id in ids {
        endPin(container, id)
        container.pins[id]?.holder = nil
      }
      // The task's own containers do not count, since the task is ending.
      if !ids.isEmpty, let owner = container.owner, owner != task.name { woken.append(owner) }
    }
  }
}
