// The frames of one fault.

internal import GuestMemory

/// Scratch space for the frames of one fault, allocated once.
struct FrameBatch: ~Copyable {
  private(set) var frames = [FrameNumber](repeating: .none, count: FaultAround.most)
  private(set) var count = 0

  mutating func removeAll() { count = 0 }

  @inline(__always)
  mutating func append(_ frame: FrameNumber) {
    frames[count] = frame
    count += 1
  }
}
