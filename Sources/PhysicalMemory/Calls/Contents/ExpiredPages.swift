// pm_expired_pages (R31): reports which released frames have expired.

struct ExpiredPages: ServerCall {
  private static let idsOfAStep = 4096

  let container: Handle
  let frames: GuestAddress
  let count: UInt32
  /// Where to store one byte for each id: 1 if its content has expired.
  let result: GuestAddress

  init(_ arguments: CallArguments) {
    container = arguments.words.0.asHandle
    frames = arguments.words.1.asAddress
    count = arguments.words.2.asCount
    result = arguments.words.3.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let ids = try caller.loadArray(frames, count)
    var expired: [UInt8] = []
    expired.reserveCapacity(ids.count)
    repeat {
      let some = ids[expired.count...].prefix(Self.idsOfAStep)
      expired += try caller.step { (state) throws(CallFailure) in try state.expired(caller.task, container, some) }
    } while expired.count < ids.count
    try caller.step { (state) throws(CallFailure) in try state.writeMemory(caller.task, result, expired.span) }
  }
}
