// Why a superpage was split: the change to one of its pages. The server passes the cause when it changes a leaf, and
// the page tables count those that cost a flush.

public enum SplitCause: CaseIterable, Sendable {
  /// A logical copy: the page must become read-only.
  case copied
  /// Its content moved to another frame.
  case moved
  /// Unmapped, or replaced by another mapping.
  case unmapped
  /// Deallocated, released or replaced.
  case freed
  /// A container was locked or its share revoked, or the frame had too many leaves.
  case withdrawn
}
