// The public face of mapping (R25–R27). See PhysicalMemoryServer.

internal import CGuestABI
internal import GuestMemory

extension PhysicalMemoryServer {
  public func map(
    _ task: TaskSlot, _ handle: UInt32, start: UInt32, count: UInt32, address: UInt64, flags: UInt32
  ) throws(ServerError) {
    let range = try FrameIDRange(start: FrameID(start), count: count)
    let pages = try PageRange(address: GuestAddress(address), count: UInt64(count))
    let flags = MappingFlags(rawValue: flags)
    let mapping = try withState { (state) throws(ServerError) in
      try state.checkMapping(task, Handle(handle), range, pages, flags)
    }
    try makeRoom(task, pages, new: 1)
    // Where it is given up there are some leaves less, which any revocation may do, or some pages more.
    guard !flags.contains(.lazy) else {
      try remove(task, pages)
      return withState { $0.installMapping(task, mapping) }
    }
    try eachPage(of: task, from: mapping.start) { (state, page) throws(ServerError) in
      try state.prepareEager(task, mapping, page)
    }
    try remove(task, pages)
    withState { $0.installMapping(task, mapping) }
    try eachPage(of: task, from: mapping.start) { state, page in state.fillNext(task, page, to: mapping.end) }
  }

  /// Goes on where each step says, until one says nil.
  private func eachPage(
    of task: TaskSlot, from start: PageNumber,
    _ step: (inout ServerState, PageNumber) throws(ServerError) -> PageNumber?
  ) throws(ServerError) {
    var page = start
    let isDone = try steps(of: task) { (state) throws(ServerError) in
      guard let next = try step(&state, page) else { return false }
      page = next
      return true
    }
    guard isDone else { throw .stopped }
  }

  /// Unmapping what is not mapped is no error: the server may have forgotten it already.
  public func unmap(_ task: TaskSlot, address: UInt64, count: UInt32) throws(ServerError) {
    let pages = try PageRange(address: GuestAddress(address), count: UInt64(count))
    try makeRoom(task, pages, new: 0)
    try remove(task, pages)
  }

  /// Makes sure that the task's table has room, if need be by forgetting what shows containers that are gone.
  private func makeRoom(_ task: TaskSlot, _ pages: PageRange, new: Int) throws(ServerError) {
    if withState({ $0.hasRoomForMappings(task, pages, new: new) }) { return }
    var position = 0
    let isDone = steps(of: task) { state in
      guard let next = state.forgetDeadMappings(task, from: position) else { return false }
      position = next
      return true
    }
    guard isDone else { throw .stopped }
    guard withState({ $0.hasRoomForMappings(task, pages, new: new) }) else { throw .noMemory }
  }

  /// The leaves first, then what is behind them.
  private func remove(_ task: TaskSlot, _ pages: PageRange) throws(ServerError) {
    try eachPage(of: task, from: pages.start) { state, page in
      state.emptyPages(task, from: page, to: pages.end)
    }
    let isDone = steps(of: task) { !$0.forgetPages(task, from: pages.start, to: pages.end) }
    guard isDone else { throw .stopped }
  }
}
