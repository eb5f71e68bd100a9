// A fixed number of plain elements that cost memory only once they are touched.

/// `count` elements, all bits zero at the start. Zero bits must be a valid `Element`: a number, or a struct of numbers.
@safe
struct SparseArray<Element: BitwiseCopyable>: ~Copyable {
  let count: Int
  private let reservation: AddressReservation
  private let elements: UnsafeMutablePointer<Element>

  /// Reserves address space for `count` elements, at least one.
  init(count: Int) throws(ReservationError) {
    precondition(count > 0, "an empty sparse array")
    self.count = count
    self.reservation = try AddressReservation(byteCount: count * MemoryLayout<Element>.stride)
    // SAFETY: page aligned, large enough, zero, and `Element` is plain bits: bound to it for good.
    unsafe self.elements = reservation.base.bindMemory(to: Element.self, capacity: count)
  }

  subscript(index: Int) -> Element {
    @inline(__always)
    unsafeAddress {
      precondition(index >= 0 && index < count, "index beyond the sparse array")
      // SAFETY: the index was checked, and the mapping lives as long as `self`.
      return unsafe UnsafePointer(elements + index)
    }
    @inline(__always)
    unsafeMutableAddress {
      precondition(index >= 0 && index < count, "index beyond the sparse array")
      // SAFETY: the index was checked, the mapping lives as long as `self`, and access to `self` is exclusive.
      return unsafe elements + index
    }
  }
}

// SAFETY: the mapping has one owner, which nothing can copy; whoever holds it holds the elements alone.
extension SparseArray: @unchecked Sendable where Element: Sendable {}
