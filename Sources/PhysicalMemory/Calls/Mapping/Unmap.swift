// pm_unmap (R25). Unmapped pages are no error: the server may have forgotten their mapping already.

internal import GuestMemory

struct Unmap: ServerCall {
  let address: GuestAddress
  let count: UInt32

  init(_ arguments: CallArguments) {
    address = arguments.words.0.asAddress
    count = arguments.words.1.asCount
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let pages = try PageRange(address: address, count: UInt64(count))
    try caller.makeRoom(pages, new: 0)
    try caller.unmap(pages)
  }
}

extension CallContext {
  /// Makes room in the task's table of mappings, if necessary by forgetting mappings of destroyed containers.
  /// - Throws: `.noMemory` when the table is full, `.stopped`.
  func makeRoom(_ pages: PageRange, new: Int) throws(CallFailure) {
    if step({ $0.hasRoomForMappings(task, pages, new: new) }) { return }
    var position = 0
    try steps { state in
      guard let next = state.forgetDeadMappings(task, from: position) else { return false }
      position = next
      return true
    }
    guard step({ $0.hasRoomForMappings(task, pages, new: new) }) else { throw .noMemory }
  }

  /// Clears the leaves first, then removes the mappings.
  /// - Throws: `.stopped` when the task must end.
  func unmap(_ pages: PageRange) throws(CallFailure) {
    try eachPage(from: pages.start) { state, page in state.emptyPages(task, from: page, to: pages.end) }
    try steps { !$0.forgetPages(task, from: pages.start, to: pages.end) }
  }

  /// Repeats a step from the page it returned, until it returns nil.
  func eachPage(
    from start: PageNumber, _ body: (inout ServerState, PageNumber) throws(CallFailure) -> PageNumber?
  ) throws(CallFailure) {
    var page = start
    try steps { (state) throws(CallFailure) in
      guard let next = try body(&state, page) else { return false }
      page = next
      return true
    }
  }
}

extension ServerState {
  /// Whether the task's table has room for the mappings that a change of `pages` adds: a cut-off end, and `new`
  /// mappings.
  func hasRoomForMappings(_ task: TaskSlot, _ pages: PageRange, new: Int) -> Bool {
    let added = new + (tasks[task].mappings.isCutInTwo(by: pages.start, pages.end) ? 1 : 0)
    return tasks[task].mappings.count + added <= MappingTable.capacity
  }

  /// One step of forgetting mappings of destroyed containers, from a position in the table on.
  /// - Returns: the position to continue from; nil at the end.
  mutating func forgetDeadMappings(_ task: TaskSlot, from position: Int) -> Int? {
    var dead = Set<ContainerReference>()
    tasks[task].mappings.forEach(chunk: position) { mapping in
      if !isLive(mapping.container) { dead.insert(mapping.container) }
    }
    return tasks[task].mappings.filter(chunk: position) { !dead.contains($0.container) }
  }

  /// One step of clearing leaves; `forgetPages` follows.
  /// - Returns: the page to continue from; nil: no leaf is left.
  mutating func emptyPages(_ task: TaskSlot, from page: PageNumber, to end: PageNumber) -> PageNumber? {
    if tasks[task].unmapping == nil { tasks[task].unmapping = page..<end }
    return unmapPages(task, from: page, to: end)
  }

  /// One step of removing the mappings of cleared pages. False: more steps are needed.
  mutating func forgetPages(_ task: TaskSlot, from start: PageNumber, to end: PageNumber) -> Bool {
    guard removeMappings(task, from: start, to: end) else { return false }
    tasks[task].unmapping = nil
    return true
  }

  /// One step of removing mappings. The pages have no leaf any more. False: more steps are needed.
  mutating func removeMappings(_ task: TaskSlot, from start: PageNumber, to end: PageNumber) -> Bool {
    tasks[task].mappings.remove(from: start, to: end, limit: 2048)
  }
}
