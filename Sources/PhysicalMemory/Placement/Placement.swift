// Where the frames of a placed allocation may be (R19), and what can be in the way.

internal import CGuestABI
internal import GuestMemory

/// Physical placement constraints. Counts and addresses are in frames.
struct Placement: Equatable {
  /// All frames are below this.
  let end: Int
  /// A power of two: alignment of the first frame of a run, or of each single frame.
  let alignment: Int
  /// A run does not cross a multiple of this power of two.
  let boundary: Int?
  let fixed: Int?
  /// Whether the frames must be adjacent.
  let isRun: Bool

  /// Converts `struct pm_placement`, which is in bytes.
  /// - Throws: `.invalid` for constraints that a pool of this size cannot satisfy.
  init(
    below: UInt64, alignment: UInt64, boundary: UInt64, fixed: UInt64, contiguous: UInt32, count: Int, frameCount: Int
  ) throws(CallFailure) {
    guard alignment & (alignment &- 1) == 0, boundary & (boundary &- 1) == 0, contiguous <= 1, fixed & 4095 == 0 else {
      throw .invalid
    }
    end = below == 0 ? frameCount : Int(min(below >> 12, UInt64(frameCount)))
    let alignmentFrames = max(1, alignment >> 12)
    guard alignmentFrames < UInt64(frameCount) else { throw .invalid }
    self.alignment = Int(alignmentFrames)
    self.isRun = contiguous == 1 || fixed != 0
    self.boundary = boundary == 0 || !isRun ? nil : Int(min(boundary >> 12, 1 << 40))
    self.fixed = fixed == 0 ? nil : Int(min(fixed >> 12, UInt64(frameCount)))
    guard boundary == 0 || boundary >= 4096 else { throw .invalid }
    if let boundary = self.boundary, boundary < count { throw .invalid }
    guard count > 0, canHold(count) else { throw .invalid }
  }

  private func canHold(_ count: Int) -> Bool {
    if let fixed {
      return fixed % alignment == 0 && count <= end - min(fixed, end) && start(from: fixed, count: count) == fixed
    }
    // Frame 0 is never allocated.
    return isRun ? start(from: 1, count: count) != nil : (end - 1) / alignment >= count
  }

  /// The first position, at `index` or after it, where a run of `count` frames may begin.
  func start(from index: Int, count: Int) -> Int? {
    var start = (max(index, fixed ?? 0) + alignment - 1) & ~(alignment - 1)
    if let boundary, start / boundary != (start + count - 1) / boundary {
      let next = (start / boundary + 1) * boundary
      start = (next + alignment - 1) & ~(alignment - 1)
      if start / boundary != (start + count - 1) / boundary { return nil }
    }
    return start + count <= end && start == fixed ?? start ? start : nil
  }

  /// Whether a single frame satisfies the constraints.
  func permits(_ frame: FrameNumber) -> Bool {
    Int(frame.rawValue) < end && Int(frame.rawValue) & (alignment - 1) == 0
  }
}

/// What blocked a placement.
public struct Obstacle: Equatable, Sendable {
  /// The kind of an obstacle; the values are those of the guest interface.
  public enum Kind: UInt32, Sendable {
    case none = 0
    /// A frame of the machine itself.
    case reserved
    case pageTable
    case pinned
    /// The frame of an earlier placement.
    case placed
    /// A frame of another placement under way.
    case busy
  }

  /// The frame's physical address in bytes.
  public let address: UInt64
  /// Why the frame cannot be cleared.
  public let kind: Kind

  /// - Parameters:
  ///   - address: the frame's physical address in bytes.
  ///   - kind: why the frame cannot be cleared.
  public init(address: UInt64, kind: Kind) {
    self.address = address
    self.kind = kind
  }
}
