// Address space for the server's own tables: reserved as a whole, backed by memory once touched.

internal import Glibc

/// The host refused to reserve address space.
public struct ReservationError: Error, Equatable, CustomStringConvertible {
  /// The requested size in bytes.
  public let byteCount: Int
  /// The errno of `mmap`.
  public let errorNumber: Int32

  /// A sentence for the user.
  public var description: String {
    "\(byteCount) bytes of address space for a server table could not be reserved (error \(errorNumber))"
  }
}

/// A private anonymous mapping: zero, page aligned, never moved, unmapped by deinit.
@safe
struct AddressReservation: ~Copyable {
  let base: UnsafeMutableRawPointer
  let byteCount: Int

  init(byteCount: Int) throws(ReservationError) {
    precondition(byteCount > 0, "an empty reservation")
    // SAFETY: an anonymous mapping at an address chosen by the kernel overlaps nothing.
    let mapped = unsafe mmap(
      nil,
      byteCount,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0
    )
    guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
      throw ReservationError(byteCount: byteCount, errorNumber: errno)
    }
    // With transparent huge pages set to `always`, one touched record would cost 2 MiB and the time to clear it. A
    // kernel without them refuses the advice, which is harmless.
    // SAFETY: the range is the mapping just made.
    _ = unsafe madvise(mapped, byteCount, MADV_NOHUGEPAGE)
    unsafe self.base = mapped
    self.byteCount = byteCount
  }

  deinit {
    // SAFETY: this value owns the mapping, and all borrows have ended.
    _ = unsafe munmap(base, byteCount)
  }
}
