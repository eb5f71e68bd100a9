// The bytes of the model machine's frames.

internal import Glibc
internal import GuestMemory

// SAFETY: one allocation of `frameCount` frames that lives as long as the value. Every frame and offset is checked
// against it before use.
@safe
struct FrameMemory: ~Copyable {
  let frameCount: Int
  private let bytes: UnsafeMutablePointer<UInt8>

  private static let size = 4096

  /// Starts zeroed; the host allocates memory on first touch.
  init(frameCount: Int) {
    self.frameCount = frameCount
    guard let memory = unsafe calloc(frameCount, Self.size) else { preconditionFailure("no memory for frames") }
    unsafe bytes = memory.bindMemory(to: UInt8.self, capacity: frameCount * Self.size)
  }

  deinit { unsafe free(bytes) }

  private func pointer(_ frame: FrameNumber, _ offset: Int, _ count: Int) -> UnsafeMutablePointer<UInt8> {
    precondition(Int(frame.rawValue) < frameCount, "a frame that the machine does not have")
    precondition(offset >= 0 && count >= 0 && offset + count <= Self.size, "bytes outside of a frame")
    return unsafe bytes + Int(frame.rawValue) * Self.size + offset
  }

  func read(_ frame: FrameNumber, at offset: Int, into buffer: inout MutableSpan<UInt8>) {
    let source = unsafe pointer(frame, offset, buffer.count)
    unsafe buffer.withUnsafeMutableBufferPointer { target in
      guard let base = target.baseAddress else { return }
      unsafe memcpy(base, source, target.count)
    }
  }

  func write(_ frame: FrameNumber, at offset: Int, _ bytes: Span<UInt8>) {
    let target = unsafe pointer(frame, offset, bytes.count)
    unsafe bytes.withUnsafeBufferPointer { source in
      guard let base = source.baseAddress else { return }
      unsafe memcpy(target, base, source.count)
    }
  }

  func fill(_ frame: FrameNumber, _ byte: UInt8) {
    unsafe memset(pointer(frame, 0, Self.size), Int32(byte), Self.size)
  }

  func copy(from source: FrameNumber, to destination: FrameNumber) {
    unsafe memcpy(pointer(destination, 0, Self.size), pointer(source, 0, Self.size), Self.size)
  }

  func isZero(_ frame: FrameNumber) -> Bool {
    let first = unsafe pointer(frame, 0, Self.size)
    // The first byte is zero, and each byte equals the next.
    return unsafe first[0] == 0 && memcmp(first, first + 1, Self.size - 1) == 0
  }

  /// Whether a frame holds exactly these bytes.
  func holds(_ frame: FrameNumber, _ bytes: Span<UInt8>) -> Bool {
    let first = unsafe pointer(frame, 0, Self.size)
    return unsafe bytes.withUnsafeBufferPointer { bytes in
      guard bytes.count == Self.size, let base = bytes.baseAddress else { return false }
      return unsafe memcmp(first, base, Self.size) == 0
    }
  }

  func bytes(_ frame: FrameNumber) -> [UInt8] {
    let first = unsafe pointer(frame, 0, Self.size)
    return unsafe Array(UnsafeBufferPointer(start: first, count: Self.size))
  }
}
