// The zones of physical memory: frames that devices with few address lines can reach are used last.

public import GuestMemory

/// A range of physical addresses. Ordinary requests are served from the highest zone with a free frame.
public enum FrameZone: Int, CaseIterable, Sendable {
  /// Reachable by devices with 24 address lines.
  case below16MiB
  /// Reachable by devices with 32 address lines.
  case below4GiB
  case above4GiB

  static let count = 3

  init(of frame: FrameNumber) {
    self = frame.rawValue < 1 << 12 ? .below16MiB : frame.rawValue < 1 << 20 ? .below4GiB : .above4GiB
  }

  /// The zone that ordinary requests try first (rank 0), second and third: the scarce ones last.
  init(rank: Int) { self = rank == 0 ? .above4GiB : rank == 1 ? .below4GiB : .below16MiB }

  /// The zone's first frame.
  public var start: FrameNumber {
    switch self {
    case .below16MiB: FrameNumber(0)
    case .below4GiB: FrameNumber(1 << 12)
    case .above4GiB: FrameNumber(1 << 20)
    }
  }

  /// The end of the zone in a pool of `frameCount` frames.
  func end(frameCount: Int) -> Int {
    switch self {
    case .below16MiB: min(frameCount, 1 << 12)
    case .below4GiB: min(frameCount, 1 << 20)
    case .above4GiB: frameCount
    }
  }
}
