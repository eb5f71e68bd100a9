// Address space for the server's own tables: reserved whole, backed by memory only where it was touched.

internal import Glibc

/// Address space could not be reserved.
public struct ReservationError: Error, Equatable, CustomStringConvertible {
  public let byteCount: Int
  /// What `mmap` reported.
  public let errorNumber: Int32

  public var description: String {
    "\(byteCount) bytes of address space for a table of the server could not be reserved (error \(errorNumber))"
  }
}

/// A private anonymous mapping: all zero, page aligned, never moved, given back at the end.
@safe
struct AddressReservation: ~Copyable {
  let base: UnsafeMutableRawPointer
  let byteCount: Int

  init(byteCount: Int) throws(ReservationError) {
    precondition(byteCount > 0, "an empty reservation")
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
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
    // With transparent huge pages set to `always` one touched record would cost 2 MiB and the time to clear
    // them. A kernel without them refuses, which is as good.
    // SAFETY: the range is the mapping just made.
    _ = unsafe madvise(mapped, byteCount, MADV_NOHUGEPAGE)
    unsafe self.base = mapped
    self.byteCount = byteCount
  }

  deinit {
    // SAFETY: the mapping is this value's alone, and whoever borrowed from it has ended before it.
    _ = unsafe munmap(base, byteCount)
  }
}
