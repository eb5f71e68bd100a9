// pm_sample (R37): which pages of a range have a leaf, and its accessed and dirty bits.

internal import CGuestABI
internal import GuestMemory

struct Sample: ServerCall {
  private static let pagesOfAStep: UInt64 = 512

  let address: GuestAddress
  let count: UInt32
  let flags: UInt32
  /// Where to store a byte for each page.
  let bits: GuestAddress

  init(_ arguments: CallArguments) {
    address = arguments.words.0.asAddress
    count = arguments.words.1.asCount
    flags = arguments.words.2.asFlags
    bits = arguments.words.3.asAddress
  }

  func perform(_ caller: CallContext) throws(CallFailure) {
    let pages = try PageRange(address: address, count: UInt64(count))
    guard flags == 0, count <= PM_FRAMES_MAXIMUM else { throw .invalid }
    var done: UInt64 = 0
    try caller.steps { (state) throws(CallFailure) in
      let length = min(pages.count - done, Self.pagesOfAStep)
      let sampled = (0..<length).map { offset in
        state.spaces.pageUse(caller.task, PageNumber(pages.start.rawValue + done + offset)).rawValue
      }
      try state.writeMemory(caller.task, GuestAddress(bits.rawValue &+ done), sampled.span)
      done += length
      return done < pages.count
    }
  }
}
