// pm_container_map (R25, R26).

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

  /// A lazy mapping replaces what is mapped there; an eager one is made ready before that, so that it cannot fail behind it.
  func perform(_ caller: CallContext) throws(CallFailure) {
    let task = caller.task
    let range = try FrameIDRange(start: start, count: count)
    let pages = try PageRange(address: address, count: UInt64(count))
    let mapping = try caller.step { (state) throws(CallFailure) in
      try state.checkMapping(task, container, range, pages, flags)
    }
    try caller.makeRoom(pages, new: 1)
    // Where it is given up there are some leaves less, which any revocation may do, or some pages more.
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
