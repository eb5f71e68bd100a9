// A fixed number of plain elements, backed by memory once touched.

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
    // SAFETY: page aligned, large enough and zero; `Element` is plain bits, so the memory may stay bound to it.
    unsafe self.elements = reservation.base.bindMemory(to: Element.self, capacity: count)
  }

  subscript(index: Int) -> Element {
    @inline(__always)
    unsafeAddress {
      precondition(index >= 0 && index < count, "index beyond the sparse array")
      // SAFETY: the index is checked, and the mapping lives as long as `self`.
      return unsafe UnsafePointer(elements + index)
    }
    @inline(__always)
    unsafeMutableAddress {
      precondition(index >= 0 && index < count, "index beyond the sparse array")
      // SAFETY: the index is checked, the mapping lives as long as `self`, and access to `self` is exclusive.
      return unsafe elements + index
    }
  }
}

// SAFETY: the mapping has one owner and cannot be copied; exclusive access to the array is exclusive access to its
// elements.
extension SparseArray: @unchecked Sendable where Element: Sendable {}
