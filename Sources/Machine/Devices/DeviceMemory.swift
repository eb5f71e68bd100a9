// Memory as a device accesses it. The host acts as the device's IOMMU: a device accesses only ranges of a transfer, and
// a transfer can only begin with frames that the device's driver has pinned.

internal import GuestMemory
internal import PhysicalMemory
internal import SystemPackage

/// Why a device may not access a range.
enum TransferFailure: Error, Equatable {
  /// The range is beyond the device's address width.
  case beyondDevice(PhysicalRange)
  /// Part of the range is not memory.
  case noMemory(PhysicalRange)
  /// The driver has not pinned this frame of the range.
  case notPinned(PhysicalRange, FrameNumber)

  var text: String {
    switch self {
    case .beyondDevice(let range): "\(range.text) are beyond what the device can address"
    case .noMemory(let range): "\(range.text) are not memory"
    case .notPinned(let range, let frame): "\(range.text) are not pinned by it at \(hexadecimal(frame.address))"
    }
  }
}

extension PhysicalRange {
  fileprivate var text: String { "\(count) bytes at \(hexadecimal(start.rawValue))" }
}

private func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

/// A transfer under way; `end` must be called once.
struct DeviceTransfer {
  let runs: [FrameRun]
}

/// Memory as the code that walks a queue needs it. Loads and stores may only be in ranges of transfers under way.
protocol DeviceMemory {
  /// Begins a transfer with all of the ranges, or throws.
  func begin(_ ranges: [PhysicalRange]) throws(TransferFailure) -> DeviceTransfer
  func end(_ transfer: DeviceTransfer)
  func load8(_ address: PhysicalAddress) -> UInt8
  func load16(_ address: PhysicalAddress) -> UInt16
  func load64(_ address: PhysicalAddress) -> UInt64
  func store8(_ address: PhysicalAddress, _ value: UInt8)
  func store16(_ address: PhysicalAddress, _ value: UInt16)
  func store32(_ address: PhysicalAddress, _ value: UInt32)
  /// Reads from the file directly into memory, in order. Returns fewer bytes at the file's end.
  func read(_ file: FileDescriptor, at offset: Int64, into ranges: [PhysicalRange]) throws(Errno) -> Int
  func write(_ ranges: [PhysicalRange], to file: FileDescriptor, at offset: Int64) throws(Errno) -> Int
}

/// The frames of the pool that one task has pinned.
struct PinnedMemory: DeviceMemory {
  let pool: PoolMemory
  let server: PhysicalMemoryServer
  let driver: TaskReference
  /// The highest address that the device can use.
  let limit: PhysicalAddress

  func begin(_ ranges: [PhysicalRange]) throws(TransferFailure) -> DeviceTransfer {
    var runs: [FrameRun] = []
    runs.reserveCapacity(ranges.count)
    for range in ranges {
      guard range.last <= limit else { throw .beyondDevice(range) }
      guard let frames = range.frames, frames.end.rawValue <= UInt32(pool.frameCount) else { throw .noMemory(range) }
      runs.append(frames)
    }
    do throws(TransferRefusal) {
      try server.beginTransfer(driver, runs)
    } catch {
      let index = runs.firstIndex { $0.start <= error.frame && error.frame < $0.end } ?? 0
      throw .notPinned(ranges[index], error.frame)
    }
    return DeviceTransfer(runs: runs)
  }

  func end(_ transfer: DeviceTransfer) { server.endTransfer(transfer.runs) }

  func load8(_ address: PhysicalAddress) -> UInt8 { pool.load8(address) }
  func load16(_ address: PhysicalAddress) -> UInt16 { pool.load16(address) }
  func load64(_ address: PhysicalAddress) -> UInt64 { pool.load64(address) }
  func store8(_ address: PhysicalAddress, _ value: UInt8) { pool.store8(address, value) }
  func store16(_ address: PhysicalAddress, _ value: UInt16) { pool.store16(address, value) }
  func store32(_ address: PhysicalAddress, _ value: UInt32) { pool.store32(address, value) }

  func read(_ file: FileDescriptor, at offset: Int64, into ranges: [PhysicalRange]) throws(Errno) -> Int {
    try pool.read(file, at: offset, into: ranges)
  }

  func write(_ ranges: [PhysicalRange], to file: FileDescriptor, at offset: Int64) throws(Errno) -> Int {
    try pool.write(ranges, to: file, at: offset)
  }
}
