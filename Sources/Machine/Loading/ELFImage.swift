// A guest program as a file: a static x86-64 ELF64 executable. All of it is checked before any of it is used.
//
// The file is hostile. Holders of an ELFImage may rely on the rules of `init(bytes:)` without checks of their own:
// every file range is inside the file, every address is inside the task's memory, and no page has two sets of rights.

import CGuestABI

/// A validated static ELF64 executable for a guest task.
///
/// Source: System V ABI, "Program Loading", and `physmem/abi.h` for the address layout.
public struct ELFImage: Sendable {
  /// The most program headers (e_phnum).
  public static let maximumProgramHeaders = 64
  /// The largest size of all segments together, in bytes of whole pages.
  public static let maximumMemorySize: UInt64 = 1 << 30
  /// The lowest address a segment may start at: PM_USER_START.
  public static let addressStart = PM_USER_START
  /// Every segment ends at or below this address: the lower of PM_HEAP_START and the guard pages under the stack.
  public static let addressLimit = min(
    PM_HEAP_START,
    PM_STACK_TOP - UInt64(PM_STACK_PAGES + PM_STACK_GUARD_PAGES) * pageSize
  )

  static let pageSize = UInt64(PM_PAGE_SIZE)

  /// A PT_LOAD segment. Every segment is readable: x86-64 has no pages without read access.
  public struct Segment: Sendable, Equatable {
    /// The first byte's virtual address (p_vaddr); not page aligned in general.
    public let address: UInt64
    /// Bytes in memory (p_memsz), more than 0; those beyond `fileRange` are zero.
    public let memorySize: UInt64
    /// The segment's bytes in the file: at most `memorySize`, and empty for zeroes only. If not empty, its lower bound
    /// and `address` have the same page offset.
    public let fileRange: Range<Int>
    /// PF_W; never together with `isExecutable`.
    public let isWritable: Bool
    /// PF_X.
    public let isExecutable: Bool

    /// The whole pages that the segment covers, in bytes. No two segments of an image share a page.
    public var pages: Range<UInt64> {
      let mask = ELFImage.pageSize - 1
      return address & ~mask..<(address + memorySize + mask) & ~mask
    }

    /// Whether `address` is one of the segment's bytes.
    public func contains(_ address: UInt64) -> Bool {
      address >= self.address && address - self.address < memorySize
    }
  }

  /// The whole file.
  public let bytes: [UInt8]
  /// The start address (e_entry), in an executable segment.
  public let entry: UInt64
  /// The segments by ascending address; at least one.
  public let segments: [Segment]

  /// Checks a file and keeps its bytes. Copies and loads nothing.
  /// - Parameter bytes: the whole file.
  /// - Throws: `ELFError`, which has a case for each rule.
  public init(bytes: [UInt8]) throws(ELFError) {
    let reader = ByteReader(bytes: bytes)
    let header = try Self.fileHeader(reader)
    let table = try Self.programHeaderTable(header, reader)
    var segments: [Segment] = []
    for start in stride(from: table.lowerBound, to: table.upperBound, by: ELFProgramHeader.size) {
      guard let programHeader = ELFProgramHeader(reader, at: start) else { throw .truncated }
      switch programHeader.type {
      case ELFProgramHeader.typeDynamic, ELFProgramHeader.typeInterpreter: throw .dynamic
      case ELFProgramHeader.typeLoad:
        if let segment = try Segment(programHeader, reader) { segments.append(segment) }
      default: break  // PT_GNU_STACK, PT_NOTE …: not loaded
      }
    }
    segments.sort { $0.address < $1.address }
    try Self.checkTogether(segments)
    guard segments.contains(where: { $0.isExecutable && $0.contains(header.entry) }) else {
      throw .entryNotExecutable(entry: header.entry)
    }
    self.bytes = bytes
    self.entry = header.entry
    self.segments = segments
  }

  /// Reads the file header and checks that this machine can run such a file.
  private static func fileHeader(_ reader: ByteReader) throws(ELFError) -> ELFFileHeader {
    let bytes = reader.bytes
    guard bytes.starts(with: ELFFileHeader.magic) else { throw .notELF }
    // A 32-bit header is shorter than a 64-bit one, so its class is checked before its length.
    guard bytes.count > 6 else { throw .truncated }
    guard bytes[4] != ELFFileHeader.class32 else { throw .thirtyTwoBit }
    guard bytes[4] == ELFFileHeader.class64 else { throw .unknownClass(bytes[4]) }
    guard bytes[5] == ELFFileHeader.littleEndian else { throw .notLittleEndian }
    guard bytes[6] == ELFFileHeader.currentVersion else { throw .unknownVersion(UInt32(bytes[6])) }
    guard let header = ELFFileHeader(reader) else { throw .truncated }
    guard header.version == ELFFileHeader.currentVersion else { throw .unknownVersion(header.version) }
    guard header.machine == ELFFileHeader.machineX86_64 else { throw .otherMachine(header.machine) }
    guard header.type != ELFFileHeader.typeShared else { throw .dynamic }
    guard header.type == ELFFileHeader.typeExecutable else { throw .notExecutable(type: header.type) }
    return header
  }

  /// The program headers' range in the file: a multiple of their size.
  private static func programHeaderTable(
    _ header: ELFFileHeader,
    _ reader: ByteReader
  ) throws(ELFError) -> Range<Int> {
    guard header.programHeaderCount > 0 else { throw .nothingToLoad }
    guard header.programHeaderCount <= maximumProgramHeaders else {
      throw .tooManyProgramHeaders(header.programHeaderCount)
    }
    guard header.programHeaderSize == ELFProgramHeader.size else {
      throw .programHeaderSize(header.programHeaderSize)
    }
    let size = UInt64(header.programHeaderCount) * UInt64(ELFProgramHeader.size)
    guard let table = reader.range(offset: header.programHeaderOffset, count: size) else { throw .truncated }
    return table
  }

  /// Checks the rules between segments. `segments` are by ascending address, and each is valid by itself.
  private static func checkTogether(_ segments: [Segment]) throws(ELFError) {
    guard !segments.isEmpty else { throw .nothingToLoad }
    for (below, above) in zip(segments, segments.dropFirst()) {
      guard below.pages.upperBound <= above.pages.lowerBound else {
        throw .sharedPage(address: above.pages.lowerBound)
      }
    }
    // At most 64 segments of less than 2^47 bytes: no overflow.
    let size = segments.reduce(0) { $0 + ($1.pages.upperBound - $1.pages.lowerBound) }
    guard size <= maximumMemorySize else { throw .tooLarge(bytes: size) }
  }
}

extension ELFImage.Segment {
  /// A valid PT_LOAD segment; nil for one that takes no memory.
  fileprivate init?(_ header: ELFProgramHeader, _ reader: ByteReader) throws(ELFError) {
    let address = header.address
    guard header.fileSize <= header.memorySize else { throw .fileSizeExceedsMemorySize(address: address) }
    guard header.memorySize > 0 else { return nil }
    guard address >= ELFImage.addressStart else { throw .belowUserMemory(address: address) }
    guard address < ELFImage.addressLimit, header.memorySize <= ELFImage.addressLimit - address else {
      throw .aboveLimit(address: address)
    }
    let isWritable = header.flags & ELFProgramHeader.flagWrite != 0
    let isExecutable = header.flags & ELFProgramHeader.flagExecute != 0
    guard !(isWritable && isExecutable) else { throw .writableAndExecutable(address: address) }
    // A segment of zeroes only has no bytes in the file, and strip leaves any offset in it.
    var fileRange = 0..<0
    if header.fileSize > 0 {
      guard header.offset % ELFImage.pageSize == address % ELFImage.pageSize else {
        throw .misaligned(address: address)
      }
      guard let range = reader.range(offset: header.offset, count: header.fileSize) else { throw .truncated }
      fileRange = range
    }
    self.init(
      address: address,
      memorySize: header.memorySize,
      fileRange: fileRange,
      isWritable: isWritable,
      isExecutable: isExecutable
    )
  }
}
