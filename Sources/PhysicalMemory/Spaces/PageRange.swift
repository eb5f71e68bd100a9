// The page range of a call.

internal import CGuestABI
internal import GuestMemory

/// A page range, checked to be in the task's half of the address space.
struct PageRange {
  let start: PageNumber
  let count: UInt64
  var end: PageNumber { PageNumber(start.rawValue + count) }

  /// - Throws: `.invalid` when the range is not aligned, empty, or not in the task's half.
  init(address: GuestAddress, count: UInt64) throws(CallFailure) {
    guard address.offsetInPage == 0, count > 0, address.rawValue >= PM_USER_START, address.rawValue < PM_USER_END,
      count <= (PM_USER_END - address.rawValue) >> 12
    else { throw .invalid }
    start = address.page
    self.count = count
  }
}
