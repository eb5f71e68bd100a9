// One test for each rule of ELFImage. Each fails if its rule is removed.

import CGuestABI
import Machine
import Testing

@Suite struct ELFImageTests {
  private let pageSize = UInt64(PM_PAGE_SIZE)

  private func expect(_ error: ELFError, _ builder: ELFBuilder, at location: SourceLocation = #_sourceLocation) {
    expect(error, builder.bytes(), at: location)
  }

  private func expect(_ error: ELFError, _ bytes: [UInt8], at location: SourceLocation = #_sourceLocation) {
    #expect(throws: error, sourceLocation: location) { try ELFImage(bytes: bytes) }
  }

  /// The valid image with one segment changed.
  private func builder(segment index: Int, _ change: (inout ELFBuilder.Segment) -> Void) -> ELFBuilder {
    var builder = ELFBuilder()
    change(&builder.segments[index])
    return builder
  }

  @Test func `A valid image is read as it is`() throws {
    let builder = ELFBuilder()
    let bytes = builder.bytes()
    let image = try ELFImage(bytes: bytes)
    let start = builder.contentOffset
    #expect(image.bytes == bytes)
    #expect(image.entry == 0x400000 + UInt64(start))
    #expect(image.segments.map(\.address) == [0x400000, 0x401004, 0x40200d].map { $0 + UInt64(start) })
    #expect(image.segments.map(\.memorySize) == [4, 9, 0x3003])
    #expect(image.segments.map(\.fileRange) == [start..<start + 4, start + 4..<start + 13, start + 13..<start + 16])
    #expect(image.segments.map(\.isWritable) == [false, false, true])
    #expect(image.segments.map(\.isExecutable) == [true, false, false])
    #expect(image.segments.map(\.pages) == [0x400000..<0x401000, 0x401000..<0x402000, 0x402000..<0x406000])
  }

  @Test func `Segments are sorted by address`() throws {
    var builder = ELFBuilder()
    builder.segments[0].base = 0x900000
    let image = try ELFImage(bytes: builder.bytes())
    #expect(image.segments.map(\.isExecutable) == [false, false, true])
  }

  // ---- the file header -------------------------------------------------------

  @Test(arguments: 0..<4) func `Another magic number is no ELF file`(index: Int) {
    var bytes = ELFBuilder().bytes()
    bytes[index] ^= 1
    expect(.notELF, bytes)
    expect(.notELF, Array(bytes.prefix(3)))
  }

  @Test func `A 32-bit file is named as such, however short`() {
    var bytes = ELFBuilder().bytes()
    bytes[4] = 1
    expect(.thirtyTwoBit, bytes)
    expect(.thirtyTwoBit, Array(bytes.prefix(52)))
    #expect("\(ELFError.thirtyTwoBit)" == "is a 32-bit ELF; compile it with scripts/guest-cc")
  }

  @Test func `A file shorter than its header is truncated`() {
    let bytes = ELFBuilder().bytes()
    for length in 4..<64 { expect(.truncated, Array(bytes.prefix(length))) }
  }

  @Test(arguments: [0, 3, 255] as [UInt8]) func `An unknown class is refused`(value: UInt8) {
    var bytes = ELFBuilder().bytes()
    bytes[4] = value
    expect(.unknownClass(value), bytes)
  }

  @Test func `A big-endian file is refused`() {
    var bytes = ELFBuilder().bytes()
    bytes[5] = 2
    expect(.notLittleEndian, bytes)
  }

  @Test func `Both versions must be 1`() {
    var bytes = ELFBuilder().bytes()
    bytes[6] = 7
    expect(.unknownVersion(7), bytes)
    var builder = ELFBuilder()
    builder.version = 0x1_0001
    expect(.unknownVersion(0x1_0001), builder)
  }

  @Test func `Another processor's program is refused`() {
    var builder = ELFBuilder()
    builder.machine = 183
    expect(.otherMachine(183), builder)
  }

  @Test func `A position-independent program is refused`() {
    var builder = ELFBuilder()
    builder.type = 3
    expect(.dynamic, builder)
  }

  @Test(arguments: [0, 1, 4, 0xff00] as [UInt16]) func `Only ET_EXEC is a program`(type: UInt16) {
    var builder = ELFBuilder()
    builder.type = type
    expect(.notExecutable(type: type), builder)
  }

  // ---- the program headers ---------------------------------------------------

  @Test(arguments: [2, 3] as [UInt32]) func `PT_DYNAMIC and PT_INTERP are refused`(type: UInt32) {
    var builder = ELFBuilder()
    builder.segments.append(ELFBuilder.Segment(type: type))
    expect(.dynamic, builder)
  }

  @Test func `Program headers have 56 bytes`() {
    var builder = ELFBuilder()
    builder.programHeaderSize = 64
    expect(.programHeaderSize(64), builder)
  }

  @Test func `There is at least one program header`() {
    var builder = ELFBuilder()
    builder.programHeaderCount = 0
    builder.programHeaderSize = 0
    expect(.nothingToLoad, builder)
  }

  @Test func `At most 64 program headers are read`() throws {
    var builder = ELFBuilder()
    let note = ELFBuilder.Segment(type: 4)
    builder.segments += Array(repeating: note, count: 61)
    _ = try ELFImage(bytes: builder.bytes())
    builder.segments.append(note)
    expect(.tooManyProgramHeaders(65), builder)
  }

  @Test(arguments: [1 << 20, .max, .max - 167, 1 << 63] as [UInt64])
  func `The program headers are inside the file`(offset: UInt64) {
    var builder = ELFBuilder()
    builder.programHeaderOffset = offset
    expect(.truncated, builder)
  }

  @Test func `The last byte of the program headers may be the file's, not one more`() {
    var builder = ELFBuilder()
    builder.segments = [ELFBuilder.Segment(flags: ELFBuilder.readExecute, base: 0x400000, zeroes: 8)]
    let bytes = builder.bytes()
    #expect(throws: Never.self) { try ELFImage(bytes: bytes) }
    expect(.truncated, Array(bytes.dropLast()))
  }

  @Test func `Other program headers are left alone, whatever they say`() throws {
    var builder = ELFBuilder()
    builder.segments.append(ELFBuilder.Segment(type: 0x6474_e551, flags: 7, offset: .max, fileSize: .max))
    #expect(try ELFImage(bytes: builder.bytes()).segments.count == 3)
  }

  // ---- one segment -----------------------------------------------------------

  @Test func `A segment's file range is inside the file`() {
    let size = UInt64(ELFBuilder().bytes().count)
    expect(.truncated, builder(segment: 2) { $0.fileSize = 4 })
    expect(.truncated, builder(segment: 0) { $0.offset = (size / 4096 + 1) * 4096 + 232 })
    expect(.truncated, builder(segment: 2) { $0.offset = .max - 4095 + 245 })
    #expect("\(ELFError.truncated)".contains("is truncated"))
  }

  @Test func `A file range that wraps round is refused`() {
    expect(
      .truncated,
      builder(segment: 0) {
        $0.offset = 0xffff_ffff_ffff_f000 + 232
        $0.fileSize = 0x1000
        $0.memorySize = 0x1000
      }
    )
  }

  @Test func `A segment is not larger in the file than in memory`() {
    let address = 0x402000 + 245 as UInt64
    expect(.fileSizeExceedsMemorySize(address: address), builder(segment: 2) { $0.memorySize = 2 })
    expect(.fileSizeExceedsMemorySize(address: address), builder(segment: 2) { $0.memorySize = 0 })
  }

  @Test func `A segment without memory is skipped, wherever it lies`() throws {
    let empty = builder(segment: 1) {
      $0.content = []
      $0.address = .max
      $0.offset = .max
    }
    #expect(try ELFImage(bytes: empty.bytes()).segments.count == 2)
  }

  @Test func `A segment of zeroes needs no place in the file`() throws {
    let zeroes = builder(segment: 2) {
      $0.content = []
      $0.offset = .max
    }
    let image = try ELFImage(bytes: zeroes.bytes())
    #expect(image.segments[2].fileRange.isEmpty)
    #expect(image.segments[2].memorySize == 0x3000)
  }

  @Test func `A segment does not start below the user's memory`() {
    let low = { (address: UInt64) in
      self.builder(segment: 1) {
        $0.address = address
        $0.content = []
        $0.memorySize = 0x1000
      }
    }
    expect(.belowUserMemory(address: 0xfff), low(0xfff))
    expect(.belowUserMemory(address: 0), low(0))
    #expect(throws: Never.self) { try ELFImage(bytes: low(0x1000).bytes()) }
  }

  @Test func `A segment ends below the heap and the stack's guard pages`() throws {
    let limit = ELFImage.addressLimit
    #expect(limit <= PM_HEAP_START)
    #expect(limit <= PM_STACK_TOP - UInt64(PM_STACK_PAGES + PM_STACK_GUARD_PAGES) * pageSize)
    let high = { (address: UInt64, size: UInt64) in
      self.builder(segment: 1) {
        $0.address = address
        $0.content = []
        $0.memorySize = size
      }
    }
    #expect(throws: Never.self) { try ELFImage(bytes: high(limit - 0x1000, 0x1000).bytes()) }
    expect(.aboveLimit(address: limit - 0x1000), high(limit - 0x1000, 0x1001))
    expect(.aboveLimit(address: limit), high(limit, 1))
    expect(.aboveLimit(address: limit + 1), high(limit + 1, 1))
    expect(.aboveLimit(address: 0x500000), high(0x500000, .max))
    expect(.aboveLimit(address: .max), high(.max, .max))
    expect(.aboveLimit(address: 0xffff_8000_0000_0000), high(0xffff_8000_0000_0000, 0x1000))
  }

  @Test func `Offset and address agree modulo the page size`() {
    expect(.misaligned(address: 0x401001), builder(segment: 1) { $0.address = 0x401001 })
  }

  @Test func `No segment is writable and executable`() {
    expect(.writableAndExecutable(address: 0x400000 + 232), builder(segment: 0) { $0.flags = 7 })
    expect(.writableAndExecutable(address: 0x400000 + 232), builder(segment: 0) { $0.flags = 3 })
  }

  // ---- all segments ----------------------------------------------------------

  @Test func `No two segments share a page`() {
    expect(.sharedPage(address: 0x400000), builder(segment: 1) { $0.base = 0x400000 })
    expect(.sharedPage(address: 0x401000), builder(segment: 0) { $0.zeroes = 0x1000 })
    expect(.sharedPage(address: 0x401000), builder(segment: 0) { $0.zeroes = 0x100000 })
    #expect(throws: Never.self) {
      try ELFImage(bytes: self.builder(segment: 0) { $0.zeroes = 0x1000 - 232 - 4 }.bytes())
    }
  }

  @Test func `There is something to load`() {
    var builder = ELFBuilder()
    builder.segments = [ELFBuilder.Segment(type: 4)]
    expect(.nothingToLoad, builder)
  }

  @Test func `The image's memory is bounded`() {
    let limit = ELFImage.maximumMemorySize
    let large = { (pages: UInt64) in
      self.builder(segment: 2) {
        $0.content = []
        $0.address = 0x500000
        $0.memorySize = pages * pageSize
      }
    }
    // Two more pages for the other segments.
    #expect(throws: Never.self) { try ELFImage(bytes: large(limit / pageSize - 2).bytes()) }
    expect(.tooLarge(bytes: limit + pageSize), large(limit / pageSize - 1))
    #expect("\(ELFError.tooLarge(bytes: limit + pageSize))".hasPrefix("is larger than 1024 MiB in memory"))
  }

  @Test func `The entry point is in an executable segment`() throws {
    let start = 0x400000 + 232 as UInt64
    for entry in [0, start - 1, start + 4, 0x401000 + 236, 0x402000 + 245, .max] {
      var builder = ELFBuilder()
      builder.entry = entry
      expect(.entryNotExecutable(entry: entry), builder)
    }
    var builder = ELFBuilder()
    builder.entry = start + 3
    #expect(try ELFImage(bytes: builder.bytes()).entry == start + 3)
  }

  @Test func `Every description goes on from a file's name`() {
    let errors: [ELFError] = [
      .notELF, .truncated, .thirtyTwoBit, .unknownClass(9), .notLittleEndian, .unknownVersion(2), .otherMachine(3),
      .dynamic, .notExecutable(type: 1), .programHeaderSize(1), .tooManyProgramHeaders(99), .nothingToLoad,
      .fileSizeExceedsMemorySize(address: 16), .misaligned(address: 16), .writableAndExecutable(address: 16),
      .belowUserMemory(address: 16), .aboveLimit(address: 16), .sharedPage(address: 16), .entryNotExecutable(entry: 16),
      .tooLarge(bytes: .max),
    ]
    for error in errors {
      let text = "\(error)"
      #expect(text.hasPrefix("is ") || text.hasPrefix("has "))
      #expect(!text.hasSuffix(".") && !text.contains("\n"))
    }
  }
}
