// A request to a block device: a header for the device to read, data, and a status byte, in a chain of descriptors that
// may split them anywhere.
//
// Data move between the file and the driver's frames directly. A malformed request ends with a status, or, if it has no
// status byte, breaks the queue. Source: virtio 1.2, 5.2 "block device".

internal import GuestMemory
internal import SystemPackage

/// The outcome of a request.
struct BlockOutcome: Equatable {
  /// Bytes written to the chain, including the status.
  var written: UInt32
  /// Why the request was rejected; nil: it was not.
  var refusal: String?
}

/// The status byte of a request (virtio 1.2, 5.2.6).
enum BlockStatus: UInt8 {
  case done = 0
  case failed = 1
  case unsupported = 2
}

/// Request types, and sizes in bytes.
enum BlockFormat {
  static let read: UInt32 = 0
  static let write: UInt32 = 1
  static let flush: UInt32 = 4
  static let headerSize = 16
  static let sectorSize = 512
  /// The most bytes of one descriptor.
  static let mostSegmentSize: UInt32 = 1 << 18
}

/// A malformed request; the text says why it is rejected.
private struct Refusal: Error {
  let text: String
  init(_ text: String) { self.text = text }
}

/// The status of a request, and why it was rejected.
private struct Result {
  let status: BlockStatus
  var refusal: String?
}

/// The chain's parts, with all lengths checked. The transfer checks the addresses.
private struct Parts {
  var header: [PhysicalRange] = []
  /// Device-readable ranges after the header.
  var output: [PhysicalRange] = []
  /// Device-writable ranges before the status.
  var input: [PhysicalRange] = []
  private(set) var all: [PhysicalRange] = []

  init(_ chain: DescriptorChain) throws(Refusal) {
    var headerLeft = BlockFormat.headerSize
    all.reserveCapacity(chain.segments.count)
    input.reserveCapacity(chain.segments.count)
    for (index, segment) in chain.segments.enumerated() {
      guard segment.count > 0 else { throw Refusal("a descriptor without length") }
      guard segment.count <= BlockFormat.mostSegmentSize else {
        throw Refusal("a descriptor of \(segment.count) bytes, more than \(BlockFormat.mostSegmentSize)")
      }
      guard let range = PhysicalRange(PhysicalAddress(segment.address), count: Int(segment.count)) else {
        throw Refusal("a descriptor that wraps around the address space")
      }
      all.append(range)
      if segment.isWritable {
        let isLast = index == chain.segments.count - 1
        if let part = range.prefix(range.count - (isLast ? 1 : 0)) { input.append(part) }
        continue
      }
      guard input.isEmpty, index == 0 || !chain.segments[index - 1].isWritable else {
        throw Refusal("a device-readable descriptor after a device-writable one")
      }
      let count = min(headerLeft, range.count)
      if let part = range.prefix(count) { header.append(part) }
      if let part = range.dropFirst(count) { output.append(part) }
      headerLeft -= count
    }
    guard headerLeft == 0 else { throw Refusal("a header of \(BlockFormat.headerSize - headerLeft) bytes") }
  }
}

/// Serves requests between a file and device memory.
struct BlockRequests<Memory: DeviceMemory> {
  let memory: Memory
  let file: BackingFile

  /// Serves one request.
  /// - Throws: `QueueFailure` if its status cannot be stored.
  func serve(_ chain: DescriptorChain) throws(QueueFailure) -> BlockOutcome {
    // The status byte is last. Without it the outcome cannot be reported.
    guard let last = chain.segments.last, last.isWritable, last.count > 0, last.count <= BlockFormat.mostSegmentSize,
      let end = PhysicalRange(PhysicalAddress(last.address), count: Int(last.count)),
      let status = PhysicalRange(end.last, count: 1)
    else { throw .noStatus(head: chain.head) }
    var written = 0
    let result: Result
    do throws(Refusal) {
      let parts = try Parts(chain)
      let transfer = try begin(parts.all)
      defer { memory.end(transfer) }
      result = try perform(parts, &written)
      // Stored while the transfer is under way, because the byte is part of it.
      memory.store8(status.start, result.status.rawValue)
    } catch {
      try tellStatus(.failed, status)
      return BlockOutcome(written: 1, refusal: error.text)
    }
    return BlockOutcome(written: UInt32(written) + 1, refusal: result.refusal)
  }

  private func tellStatus(_ value: BlockStatus, _ place: PhysicalRange) throws(QueueFailure) {
    do throws(TransferFailure) {
      let transfer = try memory.begin([place])
      memory.store8(place.start, value.rawValue)
      memory.end(transfer)
    } catch {
      throw .transfer(error)
    }
  }

  private func begin(_ ranges: [PhysicalRange]) throws(Refusal) -> DeviceTransfer {
    do throws(TransferFailure) { return try memory.begin(ranges) } catch { throw Refusal(error.text) }
  }

  private func loadHeader(_ parts: Parts) -> (kind: UInt32, sector: UInt64) {
    var words: (UInt64, UInt64) = (0, 0)
    var place = 0
    for range in parts.header {
      for offset in 0..<range.count {
        let byte = UInt64(memory.load8(PhysicalAddress(range.start.rawValue + UInt64(offset))))
        if place < 8 { words.0 |= byte << UInt64(8 * place) } else { words.1 |= byte << UInt64(8 * (place - 8)) }
        place += 1
      }
    }
    return (UInt32(truncatingIfNeeded: words.0), words.1)
  }

  private func perform(_ parts: Parts, _ written: inout Int) throws(Refusal) -> Result {
    let header = loadHeader(parts)
    switch header.kind {
    case BlockFormat.read:
      guard parts.output.isEmpty else { throw Refusal("a read with data to write") }
      return try transfer("a read of", parts.input, header.sector) { (offset, length) throws(Errno) in
        let count = try memory.read(file.descriptor, at: offset, into: parts.input)
        written = count
        return count == length
      }
    case BlockFormat.write:
      guard !file.isReadOnly else { throw Refusal("a write to \(file.name), which is open for reading only") }
      guard parts.input.isEmpty else { throw Refusal("a write with room for data to read") }
      return try transfer("a write to", parts.output, header.sector) { (offset, length) throws(Errno) in
        try memory.write(parts.output, to: file.descriptor, at: offset) == length
      }
    case BlockFormat.flush:
      do throws(Errno) { try file.flush() } catch {
        return Result(status: .failed, refusal: "a flush of \(file.name) failed: \(error)")
      }
      return Result(status: .done)
    default: return Result(status: .unsupported)
    }
  }

  /// - Parameter body: transfers this many bytes from or to an offset of the file; false: the file ended first.
  private func transfer(
    _ what: String, _ ranges: [PhysicalRange], _ sector: UInt64,
    _ body: (_ offset: Int64, _ length: Int) throws(Errno) -> Bool
  ) throws(Refusal) -> Result {
    let length = ranges.reduce(0) { $0 + $1.count }
    guard length > 0, length % BlockFormat.sectorSize == 0 else {
      throw Refusal("data of \(length) bytes, not a multiple of the sector size")
    }
    let sectors = UInt64(length / BlockFormat.sectorSize)
    guard sector <= file.sectorCount, sectors <= file.sectorCount - sector else {
      throw Refusal("sector \(sector) and \(sectors - 1) more, of a disk that has \(file.sectorCount)")
    }
    do throws(Errno) {
      if try body(Int64(sector) * Int64(BlockFormat.sectorSize), length) { return Result(status: .done) }
      return Result(status: .failed, refusal: "\(file.name) has become shorter")
    } catch {
      let place = sectors == 1 ? "sector \(sector)" : "sectors \(sector) to \(sector + sectors - 1)"
      return Result(status: .failed, refusal: "\(what) \(file.name), \(place), failed: \(error)")
    }
  }
}

extension PhysicalRange {
  fileprivate func prefix(_ count: Int) -> PhysicalRange? { PhysicalRange(start, count: count) }

  fileprivate func dropFirst(_ count: Int) -> PhysicalRange? {
    guard count < self.count else { return nil }
    return PhysicalRange(PhysicalAddress(start.rawValue + UInt64(count)), count: self.count - count)
  }
}
