// Builds ELF64 files byte by byte, valid or with any field wrong.

/// A file under construction. It starts as a small valid image; a test then breaks one field.
struct ELFBuilder {
  struct Segment {
    var type: UInt32 = 1  // PT_LOAD
    var flags: UInt32 = 4  // PF_R
    /// Added to the content's file offset to give the first byte's address.
    var base: UInt64 = 0
    var content: [UInt8] = []
    /// Zero bytes after the content.
    var zeroes: UInt64 = 0
    // Header fields that override the true values.
    var offset: UInt64?
    var address: UInt64?
    var fileSize: UInt64?
    var memorySize: UInt64?
  }

  struct Section {
    var name: String
    var type: UInt32 = 1  // SHT_PROGBITS
    var flags: UInt64 = 0
    var address: UInt64 = 0
    var content: [UInt8] = []
    var link: UInt32 = 0
    var entrySize: UInt64 = 0
    var offset: UInt64?
    var size: UInt64?
  }

  static let read: UInt32 = 4
  static let readExecute: UInt32 = 5
  static let readWrite: UInt32 = 6

  var segments = [
    Segment(flags: readExecute, base: 0x400000, content: [0xeb, 0xfe, 0x90, 0x90]),
    Segment(flags: read, base: 0x401000, content: Array("read-only".utf8)),
    Segment(flags: readWrite, base: 0x402000, content: [1, 2, 3], zeroes: 0x3000),
  ]
  var sections: [Section] = []
  var type: UInt16 = 2
  var machine: UInt16 = 62
  var version: UInt32 = 1
  var entry: UInt64?
  var programHeaderOffset: UInt64 = 64
  var programHeaderSize: UInt16 = 56
  var programHeaderCount: UInt16?
  var sectionHeaderSize: UInt16 = 64
  var sectionHeaderCount: UInt16?
  var sectionNameIndex: UInt16?

  /// File offset of the first segment's content.
  var contentOffset: Int { 64 + 56 * segments.count }

  /// The file: header, program headers, contents, section contents, section headers.
  func bytes() -> [UInt8] {
    var contents: [UInt8] = []
    var headers: [UInt8] = []
    for segment in segments {
      let offset = UInt64(contentOffset + contents.count)
      headers += little(segment.type) + little(segment.flags) + little(segment.offset ?? offset)
      let address = segment.address ?? segment.base + offset
      headers += little(address) + little(address)
      headers += little(segment.fileSize ?? UInt64(segment.content.count))
      headers += little(segment.memorySize ?? UInt64(segment.content.count) + segment.zeroes) + little(UInt64(4096))
      contents += segment.content
    }
    let (sectionContents, sectionHeaders) = sectionBytes(from: contentOffset + contents.count)
    contents += sectionContents
    let entry = entry ?? (segments.first.map { $0.base + UInt64(contentOffset) } ?? 0)
    var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + Array(repeating: 0, count: 9)
    file += little(type) + little(machine) + little(version) + little(entry)
    file += little(programHeaderOffset)
    file += little(sectionHeaders.isEmpty ? 0 : UInt64(contentOffset + contents.count))
    file += little(UInt32(0)) + little(UInt16(64)) + little(programHeaderSize)
    file += little(programHeaderCount ?? UInt16(segments.count)) + little(sectionHeaderSize)
    let count = UInt16(sectionHeaders.count / 64)
    file += little(sectionHeaderCount ?? count) + little(sectionNameIndex ?? (count == 0 ? 0 : count - 1))
    return file + headers + contents + sectionHeaders
  }

  /// The contents and headers of the null section, of `sections`, and of the section name table.
  private func sectionBytes(from start: Int) -> (contents: [UInt8], headers: [UInt8]) {
    guard !sections.isEmpty else { return ([], []) }
    var contents: [UInt8] = []
    var headers = [UInt8](repeating: 0, count: 64)
    var names: [UInt8] = [0]
    func add(_ section: Section, _ content: [UInt8], name: Int) {
      headers += little(UInt32(name)) + little(section.type) + little(section.flags) + little(section.address)
      headers += little(section.offset ?? UInt64(start + contents.count))
      headers += little(section.size ?? UInt64(content.count)) + little(section.link) + little(UInt32(0))
      headers += little(UInt64(1)) + little(section.entrySize)
      contents += content
    }
    for section in sections {
      add(section, section.content, name: names.count)
      names += Array(section.name.utf8) + [0]
    }
    let name = names.count
    names += Array(".shstrtab".utf8) + [0]
    add(Section(name: ".shstrtab", type: 3), names, name: name)
    return (contents, headers)
  }
}

/// The integer's bytes, little-endian.
func little<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) -> [UInt8] {
  (0..<MemoryLayout<Value>.size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// SplitMix64: the same seed gives the same numbers on every machine.
struct ELFGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
