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
