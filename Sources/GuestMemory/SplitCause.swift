// Why a superpage was split: what was done to one of its pages. The server says so where it changes a leaf, and the page
// tables count it where that costs something.

public enum SplitCause: CaseIterable, Sendable {
  /// A logical copy: nobody may write the page then.
  case copied
  /// Its content went to another frame.
  case moved
  /// Unmapped, or something else was mapped there.
  case unmapped
  /// Deallocated, released or replaced.
  case freed
  /// A container was locked or its share cancelled, or the frame had too many leaves.
  case withdrawn
}
