// The naive model of containers: handles, ids, mappings.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// How many frames a call changed, and the error that stopped it.
struct ModelCount {
  var count: UInt32
  var error: CallFailure?
}

extension Model {
  // MARK: Handles

  /// The container of a handle, as its owner or through a weak capability.
  func container(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) -> (it: ModelContainer, epoch: Int?) {
    let found: (ModelContainer, Int?)
    switch task.handles[handle] {
    case .container(let container): found = (container, nil)
    case .weak(let container, let epoch, let holder):
      guard container.isLive, container.epoch == epoch else { throw .canceled }
      guard holder == nil || holder == task.id else { throw .notPermitted }
      found = (container, epoch)
    default: throw .invalid
    }
    // A lock applies to the owner through every capability.
    if found.0.owner == task.name, currentLock(found.0) != nil { throw .busy }
    return found
  }

  func ownContainer(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) -> ModelContainer {
    let (container, epoch) = try container(task, handle)
    guard epoch == nil else { throw .notPermitted }
    return container
  }

  private mutating func addContainer(_ task: ModelTask, _ name: HandleName) -> ModelContainer {
    let container = ModelContainer(owner: task.name)
    container.handle = task.handles.insert(.container(container), name)
    task.containers.append(container)
    return container
  }

  mutating func createContainer(_ task: ModelTask, _ name: HandleName, result: UInt64) throws(CallFailure) {
    try check(task, result, 4, .write)
    try writeWord(task, result, addContainer(task, name).handle)
  }

  mutating func destroyContainer(_ task: ModelTask, _ handle: UInt32) throws(CallFailure) {
    let container = try ownContainer(task, handle)
    guard handle != PM_CAP_CONTAINER else { throw .notPermitted }
    guard !isPinned(container, container.pins.keys.contains) else { throw .busy }
    destroy(task, container)
  }

  private mutating func destroy(_ task: ModelTask, _ container: ModelContainer) {
    task.handles.remove(container.handle)
    task.containers.removeAll { $0 === container }
    empty(container)
  }

  // MARK: Ids

  /// Throws `.invalid` (PM_EINVAL) for an empty range or one beyond the last id.
  static func range(_ start: UInt32, _ count: UInt32) throws(CallFailure) -> ClosedRange<UInt32> {
    guard count > 0, UInt64(start) + UInt64(count) <= 1 << 32 else { throw .invalid }
    return start...(start + (count - 1))
  }

  mutating func allocate(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ flags: AllocationFlags
  ) throws(CallFailure) -> ModelCount {
    guard flags.rawValue < 8 else { throw .invalid }
    let plan = try planAllocation(task, handle, try Self.range(start, count), flags)
    for id in plan.ids { set(plan.container, id, .empty) }
    return ModelCount(count: UInt32(plan.ids.count), error: plan.error)
  }

  /// Plans an allocation, given how many more frames the task may have. A placed one also needs frames for ids in use,
  /// until these release theirs.
  mutating func planAllocation(
    _ task: ModelTask, _ handle: UInt32, _ ids: ClosedRange<UInt32>, _ flags: AllocationFlags,
    placed: Bool = false
  ) throws(CallFailure) -> (container: ModelContainer, ids: [UInt32], error: CallFailure?) {
    let container = try ownContainer(task, handle)
    var left = headroom(task, extra: flags.contains(.extra))
    var error: CallFailure?
    var done: [UInt32] = []
    for id in ids {
      let isUsed = container.frames[id] != nil
      if isUsed, !flags.contains(.squash) {
        error = .exists
      } else if !isUsed || placed, left == 0 {
        error = .noMemory
      }
      if error != nil { break }
      left -= isUsed && !placed ? 0 : 1
      done.append(id)
    }
    if error != nil, !flags.contains(.partial) { done = [] }
    guard !isPinned(container, done.contains) else { throw .busy }
    try charge(task, done.count { placed || container.frames[$0] == nil })
    return (container, done, error)
  }

  /// Plans a deallocation.
  private func planDeallocation(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ flags: DeallocationFlags
  ) throws(CallFailure) -> (container: ModelContainer, ids: [UInt32], result: ModelCount) {
    guard flags.rawValue < 4 else { throw .invalid }
    let ids = try Self.range(start, count)
    let container = try ownContainer(task, handle)
    guard !isPinned(container, ids.contains) else { throw .busy }
    if flags.contains(.squash) {
      let used = container.frames.keys.filter(ids.contains)
      return (container, used, ModelCount(count: UInt32(used.count), error: nil))
    }
    var done: [UInt32] = []
    for id in ids {
      guard container.frames[id] != nil else { break }
      done.append(id)
    }
    if done.count == ids.count { return (container, done, ModelCount(count: count, error: nil)) }
    if !flags.contains(.partial) { done = [] }
    return (container, done, ModelCount(count: UInt32(done.count), error: .noEntry))
  }

  /// Allocates. The count is in the task's memory, where the number of frames done is stored.
  mutating func allocate(
    _ task: ModelTask, _ handle: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32
  ) throws(CallFailure) -> ModelCount {
    let count = try loadCount(task, countAddress)
    let result = try allocate(task, handle, start, count, AllocationFlags(rawValue: flags))
    try writeWord(task, countAddress, result.count)
    return result
  }

  mutating func deallocate(
    _ task: ModelTask, _ handle: UInt32, start: UInt32, countAddress: UInt64, flags: UInt32
  ) throws(CallFailure) -> ModelCount {
    let count = try loadCount(task, countAddress)
    let flags = DeallocationFlags(rawValue: flags)
    let plan = try planDeallocation(task, handle, start, count, flags)
    // The count may be in one of the new frames.
    try writeWord(task, countAddress, plan.result.count)
    if flags.contains(.squash) {
      let ids = try Self.range(start, count)
      for id in plan.container.released.keys.filter(ids.contains) { forgetReleased(plan.container, id) }
      for id in plan.container.releasedEmpties.filter(ids.contains) { forgetReleased(plan.container, id) }
    }
    for id in plan.ids { set(plan.container, id, nil) }
    return plan.result
  }

  mutating func loadCount(_ task: ModelTask, _ address: UInt64) throws(CallFailure) -> UInt32 {
    try check(task, address, 4, .write)
    return try readWords(task, address, 1)[0]
  }

  // MARK: Mappings

  /// Throws `.invalid` (PM_EINVAL) if misaligned, empty, or outside the user half.
  static func pages(_ address: UInt64, _ count: UInt32) throws(CallFailure) {
    guard address % 4096 == 0, count > 0, address >= PM_USER_START, address < PM_USER_END,
      UInt64(count) * 4096 <= PM_USER_END - address
    else { throw .invalid }
  }

  mutating func map(
    _ task: ModelTask, _ handle: UInt32, _ start: UInt32, _ count: UInt32, _ address: UInt64, _ flags: MappingFlags
  ) throws(CallFailure) {
    let ids = try Self.range(start, count)
    try Self.pages(address, count)
    guard flags.rawValue < 32, !flags.effectiveRights.isEmpty else { throw .invalid }
    let (container, epoch) = try container(task, handle)
    for id in ids where container.frames[id] == nil { throw .noEntry }
    let page = PageNumber(containing: address)
    if !flags.contains(.lazy) {
      // Tables and copies first, one leaf table at a time: if that fails, nothing is mapped.
      for (offset, id) in ids.enumerated() {
        let next = page.advanced(by: offset)
        if offset == 0 || next.rawValue % 512 == 0, !isRegion(next, of: page, ids.count, task, flags) {
          try makeTables(task, next)
        }
        if flags.contains(.forceWrite) { makePrivate(container, id) }
      }
    }
    show(task, container, start, ids.count, at: page, flags, epoch: epoch)
    if !flags.contains(.lazy) { fill(task, container, ids, at: page) }
  }

  /// Fills in pages as far as there are tables; a superpage's tables are made last.
  private mutating func fill(
    _ task: ModelTask, _ container: ModelContainer, _ ids: ClosedRange<UInt32>, at page: PageNumber
  ) {
    for (offset, id) in ids.enumerated() {
      let next = page.advanced(by: offset)
      if next.rawValue % 512 == 0, (try? makeTables(task, next)) == nil { return }
      makeResident(container, id)
    }
  }

  mutating func unmap(_ task: ModelTask, _ address: UInt64, _ count: UInt32) throws(CallFailure) {
    try Self.pages(address, count)
    if count > 1 << 16 {
      let first = address / 4096
      task.mappings = task.mappings.filter { $0.key < first || $0.key - first >= UInt64(count) }
    } else {
      for offset in 0..<UInt64(count) { task.mappings[address / 4096 + offset] = nil }
    }
  }

  /// The container's handle, the id, the flags, and the content if there is one.
  func mapping(_ task: ModelTask, _ address: UInt64) throws(CallFailure) -> (
    handle: UInt32, mapping: ModelMapping, content: ModelContent?
  ) {
    guard let mapping = task.mappings[address / 4096], isGood(mapping), let frame = mapping.container.frames[mapping.id]
    else { throw .noEntry }
    let handle = mapping.container.owner == task.name ? mapping.container.handle : 0
    if case .content(let content) = frame { return (handle, mapping, content) }
    return (handle, mapping, nil)
  }

  // MARK: Creation with frames

  mutating func createFilled(
    _ task: ModelTask, _ names: (container: HandleName, weak: HandleName), from source: (UInt32, ModelIDs)?,
    count: UInt32, remote: UInt32, result: UInt64, weak: UInt64
  ) throws(CallFailure) {
    let ids = try Self.range(0, count)
    let sources: [UInt32]? = try source.map { (_, ids) throws(CallFailure) in try load(task, ids, count) }
    try check(task, result, 4, .write)
    if weak != 0 { try check(task, weak, 4, .write) }
    let container = addContainer(task, names.container)
    var weakHandle: UInt32?
    do throws(CallFailure) {
      if let source, let sources {
        do throws(ModelCopyError) {
          try copy(task, source.0, sources, container.handle, Array(ids.prefix(mostIDs)), count: Int(count))
        } catch {
          throw error.error
        }
      } else {
        let made = try allocate(task, container.handle, 0, count, [])
        if let error = made.error { throw error }
      }
      if weak != 0 {
        let handle = try share(task, names.weak, container.handle, remote: remote)
        weakHandle = handle
        try writeWord(task, weak, handle)
      }
      try writeWord(task, result, container.handle)
    } catch {
      if let weakHandle { task.handles.remove(weakHandle) }
      destroy(task, container)
      throw error
    }
  }
}
