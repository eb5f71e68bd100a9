// Disk requests: the data they transfer, and the requests that are rejected.

import CKVM
import Glibc
import GuestMemory
import SystemPackage
import Testing

@testable import Machine

private typealias Segment = (address: UInt64, count: Int, isWritable: Bool)

private struct DiskBed {
  static let sectors = 64
  let memory: ModelMemory
  let file: BackingFile

  init(file: BackingFile) throws {
    memory = try ModelMemory()
    self.file = file
  }

  init(isReadOnly: Bool = false) throws {
    try self.init(
      file: BackingFile(
        contents: (0..<Self.sectors * 512 + 100).map { UInt8(truncatingIfNeeded: $0 / 512 + $0) },
        isReadOnly: isReadOnly))
  }

  static func byte(_ sector: Int, _ offset: Int) -> UInt8 {
    let place = sector * 512 + offset
    return UInt8(truncatingIfNeeded: place / 512 + place)
  }

  func header(_ kind: UInt32, _ sector: UInt64, at address: UInt64 = QueueBed.header) {
    let bytes = [UInt64(kind), sector].flatMap { word in
      (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
    }
    for (offset, byte) in bytes.enumerated() {
      memory.pool.store8(PhysicalAddress(address + UInt64(offset)), byte)
    }
  }

  func status(_ address: UInt64 = QueueBed.status) -> UInt8 { memory.pool.load8(PhysicalAddress(address)) }

  func serve(_ segments: [Segment], status: UInt64 = QueueBed.status) throws -> BlockOutcome {
    memory.pool.store8(PhysicalAddress(status), 0xff)
    let all = segments + [(status, 1, true)]
    let chain = DescriptorChain(
      head: 0,
      segments: all.map { ChainSegment(address: $0.address, count: UInt32($0.count), isWritable: $0.isWritable) })
    defer {
      #expect(memory.violations == [])
      #expect(memory.held == [:])
    }
    return try BlockRequests(memory: memory, file: file).serve(chain)
  }

  /// Serves a read of whole sectors.
  func read(_ sector: UInt64, _ segments: [Segment]) throws -> BlockOutcome {
    header(0, sector)
    return try serve([(QueueBed.header, 16, false)] + segments)
  }

  func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { memory.pool.load8(PhysicalAddress(address + UInt64($0))) }
  }
}

@Suite struct BlockRequestTests {
  @Test("R22: a read fills its frames, scattered and across frame borders") func read() throws {
    let bed = try DiskBed()
    let outcome = try bed.read(3, [(0x5000 - 100, 200, true), (0x9000, 412, true), (0x7001, 412, true)])
    #expect(outcome == BlockOutcome(written: 1025, refusal: nil))
    #expect(bed.status() == 0)
    let found = bed.bytes(0x5000 - 100, 200) + bed.bytes(0x9000, 412) + bed.bytes(0x7001, 412)
    #expect(found == (0..<1024).map { DiskBed.byte(3, $0) })
    #expect(bed.bytes(0x5000 + 100, 8) == Array(repeating: 0, count: 8))
  }

  @Test("R22: a write takes its data from frames and can be read back") func write() throws {
    let bed = try DiskBed()
    for offset in 0..<UInt64(1024) {
      bed.memory.pool.store8(PhysicalAddress(0x4f00 + offset), UInt8(truncatingIfNeeded: offset * 7))
    }
    bed.header(1, 62)
    // Header and data may share a descriptor.
    bed.header(1, 62, at: 0x4f00 - 16)
    let outcome = try bed.serve([(0x4f00 - 16, 300, false), (0x4f00 + 284, 740, false)])
    #expect(outcome == BlockOutcome(written: 1, refusal: nil))
    #expect(try bed.read(62, [(0x9000, 1024, true)]).refusal == nil)
    #expect(bed.bytes(0x9000, 1024) == bed.bytes(0x4f00, 1024))
    bed.header(4, 0)
    #expect(try bed.serve([(QueueBed.header, 16, false)]) == BlockOutcome(written: 1, refusal: nil))
    #expect(bed.status() == 0)
  }

  /// The defect, the sector, and the segments.
  private static let wrong: [(String, UInt64, [Segment])] = [
    ("no data", 0, []), ("half a sector", 0, [(0x4000, 256, true)]), ("more than sectors", 0, [(0x4000, 513, true)]),
    ("no length", 0, [(0x4000, 512, true), (0x5000, 0, true)]),
    ("past the end", 64, [(0x4000, 512, true)]), ("across the end", 63, [(0x4000, 1024, true)]),
    ("far past the end", .max, [(0x4000, 512, true)]), ("where bytes overflow", 1 << 55, [(0x4000, 512, true)]),
    ("too long a descriptor", 0, [(0x4000, Int(UInt32.max), true)]),
    ("not pinned", 0, [(0x8000, 512, true)]), ("partly pinned", 0, [(0x7000, 4608, true)]),
    ("frame 0", 0, [(0, 512, true)]), ("past the pool", 0, [(32 << 12, 512, true)]),
    ("across the pool's end", 0, [(32 << 12 - 256, 512, true)]),
    ("past all frames", 0, [(1 << 60, 512, true)]), ("the last addresses", 0, [(.max - 511, 512, true)]),
    ("past all addresses", 0, [(.max - 510, 512, true)]), ("the very last", 0, [(.max, 512, true)]),
    ("readable after writable", 0, [(0x4000, 512, true), (0x5000, 512, false)]),
    ("data both ways", 0, [(0x4000, 512, false), (0x5000, 512, true)]),
  ]

  @Test("R22: a malformed request fails with a status and transfers nothing") func refused() throws {
    for (what, sector, segments) in Self.wrong {
      let bed = try DiskBed()
      bed.memory.pinned.remove(8)
      let outcome = try bed.read(sector, segments)
      #expect(outcome.written == 1 && outcome.refusal != nil, "\(what)")
      #expect(bed.status() == 1, "\(what)")
      #expect(bed.bytes(0x4000, 4096) + bed.bytes(0x7000, 4096) == Array(repeating: 0, count: 8192), "\(what)")
    }
  }

  @Test("short, split and unpinned headers") func headers() throws {
    let bed = try DiskBed()
    bed.header(0, 5)
    #expect(try bed.serve([(QueueBed.header, 15, false), (0x4000, 512, true)]).refusal != nil)
    #expect(try bed.serve([(0x4000, 512, true)]).refusal != nil)
    #expect(try bed.serve([]).refusal != nil)
    let split = (0..<16).map { Segment(QueueBed.header + UInt64($0), 1, false) }
    #expect(try bed.serve(split + [(0x4000, 512, true)]).refusal == nil)
    #expect(bed.bytes(0x4000, 512) == (0..<512).map { DiskBed.byte(5, $0) })
    bed.header(0, 5, at: 0xa000 - 8)
    bed.memory.pinned.remove(10)
    #expect(try bed.serve([(0xa000 - 8, 16, false), (0x4000, 512, true)]).refusal != nil)
    #expect(bed.status() == 1)
  }

  @Test("an unknown operation, and one that this disk does not support") func unknownKinds() throws {
    let bed = try DiskBed()
    for kind: UInt32 in [2, 3, 5, 8, 11, 13, .max] {
      bed.header(kind, 0)
      #expect(try bed.serve([(QueueBed.header, 16, false), (0x4000, 512, true)]).refusal == nil)
      #expect(bed.status() == 2)
    }
    let readOnly = try DiskBed(isReadOnly: true)
    readOnly.header(1, 0)
    #expect(try readOnly.serve([(QueueBed.header, 16, false), (0x4000, 512, false)]).refusal != nil)
    #expect(readOnly.status() == 1)
    #expect(try readOnly.read(0, [(0x4000, 512, true)]).refusal == nil)
  }

  @Test("a request without a status byte breaks the queue") func noStatus() throws {
    let bed = try DiskBed()
    bed.memory.pinned.remove(8)
    bed.header(0, 0)
    let requests = BlockRequests(memory: bed.memory, file: bed.file)
    func chain(_ last: ChainSegment?) -> DescriptorChain {
      DescriptorChain(
        head: 3,
        segments: [ChainSegment(address: QueueBed.header, count: 16, isWritable: false)] + (last.map { [$0] } ?? []))
    }
    let failures: [ChainSegment?] = [
      nil, ChainSegment(address: 0x4000, count: 0, isWritable: true),
      ChainSegment(address: 0x4000, count: 1, isWritable: false),
      ChainSegment(address: .max, count: 2, isWritable: true),
      ChainSegment(address: 0x4000, count: .max, isWritable: true),
    ]
    for last in failures {
      #expect(throws: QueueFailure.noStatus(head: 3)) { _ = try requests.serve(chain(last)) }
    }
    let status = try #require(PhysicalRange(PhysicalAddress(0x8000), count: 1))
    #expect(throws: QueueFailure.transfer(.notPinned(status, FrameNumber(8)))) {
      _ = try requests.serve(chain(ChainSegment(address: 0x8000, count: 1, isWritable: true)))
    }
    #expect(throws: QueueFailure.self) {
      _ = try requests.serve(chain(ChainSegment(address: .max, count: 1, isWritable: true)))
    }
    #expect(memoryIsQuiet(bed.memory))
  }

  private func memoryIsQuiet(_ memory: ModelMemory) -> Bool { memory.held == [:] && memory.violations == [] }

  @Test("the header is read once: later writes of the driver have no effect") func readOnce() throws {
    let bed = try DiskBed()
    var loads: [UInt64: Int] = [:]
    bed.memory.afterLoad = { [memory = bed.memory] address in
      loads[address.rawValue, default: 0] += 1
      memory.pool.store8(address, 0xff)
    }
    #expect(try bed.read(9, [(0x4000, 512, true)]).refusal == nil)
    #expect(loads.count == 16 && loads.values.allSatisfy { $0 == 1 })
    #expect(bed.bytes(0x4000, 512) == (0..<512).map { DiskBed.byte(9, $0) })
  }

  @Test("data may overlap header and status, and only the stated bytes are written")
  func overlapping() throws {
    let bed = try DiskBed()
    let outcome = try bed.read(1, [(QueueBed.header - 256, 512, true), (QueueBed.status - 256, 512, true)])
    #expect(outcome == BlockOutcome(written: 1025, refusal: nil))
    #expect(bed.status() == 0)
    #expect(bed.bytes(QueueBed.header - 256, 512) == (0..<512).map { DiskBed.byte(1, $0) })
  }

  @Test("a truncated file fails the request but not the device") func shrunk() throws {
    let bed = try DiskBed()
    try bed.file.shorten(to: 10 * 512 + 100)
    let outcome = try bed.read(8, [(0x4000, 4096, true)])
    #expect(outcome.refusal?.contains("shorter") == true)
    #expect(bed.status() == 1)
    #expect(try bed.read(8, [(0x5000, 1024, true)]).refusal == nil)
    #expect(try bed.read(20, [(0x5000, 512, true)]).refusal != nil)
  }

  @Test("I/O errors of the kernel are reported in a sentence and change nothing") func kernelRefuses() throws {
    let sealed = FileDescriptor(rawValue: unsafe memfd_create("sealed", 2))
    try sealed.writeAll(Array(repeating: 7, count: 8 * 512))
    // F_ADD_SEALS, F_SEAL_WRITE.
    #expect(fcntl(sealed.rawValue, 1033, 8) == 0)
    let bed = try DiskBed(file: BackingFile(sealed, sectorCount: 8))
    bed.header(1, 5)
    var sentence = "a write to the disk, sectors 5 to 6, failed: Operation not permitted"
    #expect(
      try bed.serve([(QueueBed.header, 16, false), (0x4000, 1024, false)])
        == BlockOutcome(written: 1, refusal: sentence))
    #expect(bed.status() == 1)
    #expect(try bed.read(0, [(0x9000, 4096, true)]).refusal == nil)
    #expect(bed.bytes(0x9000, 4096) == Array(repeating: 7, count: 4096))

    let (pipe, other) = try FileDescriptor.pipe()
    defer { try? other.close() }
    let noDisk = try DiskBed(file: BackingFile(pipe, sectorCount: 8))
    sentence = "a read of the disk, sector 7, failed: Illegal seek"
    #expect(try noDisk.read(7, [(0x4000, 512, true)]) == BlockOutcome(written: 1, refusal: sentence))
    #expect(noDisk.status() == 1)
    noDisk.header(4, 0)
    sentence = "a flush of the disk failed: Invalid argument"
    #expect(try noDisk.serve([(QueueBed.header, 16, false)]) == BlockOutcome(written: 1, refusal: sentence))
    #expect(noDisk.status() == 1)
  }
}
