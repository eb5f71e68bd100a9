// pm_container_map (R25, R26): maps ids of a container at an address.

internal import GuestMemory

struct ContainerMap: ServerCall {
  let container: Handle
  let start: FrameID
  let count: UInt32
  let address: GuestAddress
  let flags: MappingFlags

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    start = arguments.words.1.asFrameID
    count = arguments.words.2.asCount
    address = arguments.words.3.asAddress
    flags = MappingFlags(rawValue: arguments.words.4.asFlags)
  }

  /// A lazy mapping just replaces the old one. An eager one is prepared before it replaces anything, so that it cannot
  /// fail halfway.
  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let range = try FrameIDRange(start: start, count: count)
    let pages = try PageRange(address: address, count: UInt64(count))
    let mapping = try caller.step { (state) throws(CallFailure) in
      try state.checkMapping(task, container, range, pages, flags)
    }
    try caller.makeRoom(pages, new: 1)
    // A stop in between is harmless: some leaves are missing, as after any revocation, or some pages are filled in
    // early.
    guard !flags.contains(.lazy) else {
      try caller.unmap(pages)
      return caller.step { $0.installMapping(task, mapping) }
    }
    try caller.eachPage(from: mapping.start) { (state, page) throws(CallFailure) in
      try state.prepareEager(task, mapping, page)
    }
    try caller.unmap(pages)
    caller.step { $0.installMapping(task, mapping) }
    try caller.eachPage(from: mapping.start) { state, page in state.fillNext(task, page, to: mapping.end) }
  }
}
