// A device without a machine: a pool of a few frames, a set as IOMMU, and a disk in memory.

import GuestMemory
import SystemPackage
import Testing

@testable import Machine

/// Pool memory in which only the frames in `pinned` may be accessed. Records accesses to other frames and accesses
/// without a transfer.
final class ModelMemory: DeviceMemory {
  static let frameCount = 32
  let pool: PoolMemory
  var pinned = Set(1..<frameCount)
  /// Called after each load with its address, so that a test can change the memory concurrently.
  var afterLoad: (PhysicalAddress) -> Void = { _ in }
  /// Number of transfers under way for each frame.
  private(set) var held: [Int: Int] = [:]
  private(set) var violations: [String] = []

  init() throws { pool = try PoolMemory(frameCount: Self.frameCount) }

  func begin(_ ranges: [PhysicalRange]) throws(TransferFailure) -> DeviceTransfer {
    var runs: [FrameRun] = []
    for range in ranges {
      guard let frames = range.frames, frames.end.rawValue <= UInt32(Self.frameCount) else { throw .noMemory(range) }
      for frame in frames.start.rawValue..<frames.end.rawValue where !pinned.contains(Int(frame)) {
        throw .notPinned(range, FrameNumber(frame))
      }
      runs.append(frames)
    }
    for run in runs { for frame in run.start.rawValue..<run.end.rawValue { held[Int(frame), default: 0] += 1 } }
    return DeviceTransfer(runs: runs)
  }

  func end(_ transfer: DeviceTransfer) {
    for run in transfer.runs {
      for frame in run.start.rawValue..<run.end.rawValue {
        held[Int(frame), default: 0] -= 1
        if held[Int(frame)] == 0 { held[Int(frame)] = nil }
      }
    }
  }

  private func check(_ address: PhysicalAddress) {
    if held[Int(address.rawValue >> 12)] == nil { violations.append("\(address.rawValue) is not in a transfer") }
  }

  func load8(_ address: PhysicalAddress) -> UInt8 { loaded(address, pool.load8(address)) }
  func load16(_ address: PhysicalAddress) -> UInt16 { loaded(address, pool.load16(address)) }
  func load64(_ address: PhysicalAddress) -> UInt64 { loaded(address, pool.load64(address)) }

  private func loaded<Value>(_ address: PhysicalAddress, _ value: Value) -> Value {
    check(address)
    afterLoad(address)
    return value
  }

  func store8(_ address: PhysicalAddress, _ value: UInt8) {
    check(address)
    pool.store8(address, value)
  }
  func store16(_ address: PhysicalAddress, _ value: UInt16) {
    check(address)
    pool.store16(address, value)
  }
  func store32(_ address: PhysicalAddress, _ value: UInt32) {
    check(address)
    pool.store32(address, value)
  }

  func read(_ file: FileDescriptor, at offset: Int64, into ranges: [PhysicalRange]) throws(Errno) -> Int {
    for range in ranges { check(range.start) }
    return try pool.read(file, at: offset, into: ranges)
  }

  func write(_ ranges: [PhysicalRange], to file: FileDescriptor, at offset: Int64) throws(Errno) -> Int {
    for range in ranges { check(range.start) }
    return try pool.write(ranges, to: file, at: offset)
  }
}

/// A queue in that memory and its driver: rings in frame 1, headers and statuses in frame 2, data after that.
struct QueueBed {
  static let size: UInt16 = 16
  static let descriptors: UInt64 = 0x1000
  static let available: UInt64 = 0x1200
  static let used: UInt64 = 0x1400
  static let header: UInt64 = 0x2000
  static let status: UInt64 = 0x2800
  static let data: UInt64 = 0x4000

  let memory: ModelMemory
  var queue: Virtqueue
  let layout: QueueLayout
  private var offered: UInt16 = 0

  init(usesEventIndex: Bool = false) throws {
    memory = try ModelMemory()
    layout = try #require(
      QueueLayout(size: UInt32(Self.size), descriptors: Self.descriptors, available: Self.available, used: Self.used))
    queue = Virtqueue(layout, usesEventIndex: usesEventIndex)
  }

  var pool: PoolMemory { memory.pool }

  func store64(_ address: UInt64, _ value: UInt64) {
    pool.store32(PhysicalAddress(address), UInt32(truncatingIfNeeded: value))
    pool.store32(PhysicalAddress(address + 4), UInt32(truncatingIfNeeded: value >> 32))
  }

  func describe(_ index: Int, _ address: UInt64, _ count: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
    store64(Self.descriptors + UInt64(16 * index), address)
    store64(Self.descriptors + UInt64(16 * index) + 8, UInt64(count) | UInt64(flags) << 32 | UInt64(next) << 48)
  }

  /// Offers the chain that starts at `head`.
  mutating func offer(_ head: UInt16) {
    pool.store16(PhysicalAddress(Self.available + 4 + 2 * UInt64(offered % Self.size)), head)
    offered &+= 1
    pool.store16(PhysicalAddress(Self.available + 2), offered)
  }

  /// Takes the next chain, as the device.
  mutating func take() throws -> DescriptorChain? {
    let rings = try memory.begin(layout.ranges)
    defer { memory.end(rings) }
    return try queue.take(memory)
  }

  mutating func giveBack(_ head: UInt16, written: UInt32 = 0) throws -> Bool {
    let rings = try memory.begin(layout.ranges)
    defer { memory.end(rings) }
    return queue.giveBack(head, written: written, memory)
  }

  /// Checks that every access was within a transfer, and that no transfer is left.
  func check(_ sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(memory.violations == [], sourceLocation: sourceLocation)
    #expect(memory.held == [:], sourceLocation: sourceLocation)
  }
}
