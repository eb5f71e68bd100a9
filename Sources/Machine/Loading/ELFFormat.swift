// The ELF64 file format, as far as this module reads it. Names in comments are those of the System V ABI, chapters 4
// and 5 ("Object Files", "Program Loading"), and its x86-64 supplement.
//
// A file is hostile: no offset or count is trusted, and no load can trap.

/// Little-endian integers and ranges of a file.
struct ByteReader {
  let bytes: [UInt8]

  /// The integer at `offset` bytes; nil if it extends past the file's end.
  func load<Value: FixedWidthInteger & UnsignedInteger>(_ type: Value.Type = Value.self, at offset: Int) -> Value? {
    guard offset >= 0, offset <= bytes.count - MemoryLayout<Value>.size else { return nil }
    var value: Value = 0
    for index in (offset..<offset + MemoryLayout<Value>.size).reversed() {
      value = value << 8 | Value(bytes[index])
    }
    return value
  }

  /// The `count` bytes from `offset`; nil if they extend past the file's end.
  func range(offset: UInt64, count: UInt64) -> Range<Int>? {
    let total = UInt64(bytes.count)
    guard offset <= total, count <= total - offset else { return nil }
    return Int(offset)..<Int(offset + count)
  }

  /// The bytes from `start` to the next NUL, to `end`, or at most `limit` bytes.
  func string(from start: Int, to end: Int, limit: Int) -> ArraySlice<UInt8> {
    guard start >= 0, start < end, end <= bytes.count else { return [] }
    let slice = bytes[start..<min(end, start + min(limit, end - start))]
    return slice.prefix { $0 != 0 }
  }
}

/// Elf64_Ehdr. Reading one only checks that it is complete.
struct ELFFileHeader {
  static let size = 64
  static let magic: [UInt8] = [0x7f, 0x45, 0x4c, 0x46]
  static let class32: UInt8 = 1
  static let class64: UInt8 = 2
  static let littleEndian: UInt8 = 1
  static let currentVersion: UInt32 = 1
  static let typeExecutable: UInt16 = 2
  static let typeShared: UInt16 = 3
  static let machineX86_64: UInt16 = 62

  let type: UInt16  // e_type
  let machine: UInt16  // e_machine
  let version: UInt32  // e_version
  let entry: UInt64  // e_entry
  let programHeaderOffset: UInt64  // e_phoff
  let sectionHeaderOffset: UInt64  // e_shoff
  let programHeaderSize: UInt16  // e_phentsize
  let programHeaderCount: UInt16  // e_phnum
  let sectionHeaderSize: UInt16  // e_shentsize
  let sectionHeaderCount: UInt16  // e_shnum
  let sectionNameIndex: UInt16  // e_shstrndx

  init?(_ reader: ByteReader) {
    guard
      let type = reader.load(UInt16.self, at: 16), let machine = reader.load(UInt16.self, at: 18),
      let version = reader.load(UInt32.self, at: 20), let entry = reader.load(UInt64.self, at: 24),
      let programHeaderOffset = reader.load(UInt64.self, at: 32),
      let sectionHeaderOffset = reader.load(UInt64.self, at: 40),
      let programHeaderSize = reader.load(UInt16.self, at: 54),
      let programHeaderCount = reader.load(UInt16.self, at: 56),
      let sectionHeaderSize = reader.load(UInt16.self, at: 58),
      let sectionHeaderCount = reader.load(UInt16.self, at: 60),
      let sectionNameIndex = reader.load(UInt16.self, at: 62)
    else { return nil }
    self.type = type
    self.machine = machine
    self.version = version
    self.entry = entry
    self.programHeaderOffset = programHeaderOffset
    self.sectionHeaderOffset = sectionHeaderOffset
    self.programHeaderSize = programHeaderSize
    self.programHeaderCount = programHeaderCount
    self.sectionHeaderSize = sectionHeaderSize
    self.sectionHeaderCount = sectionHeaderCount
    self.sectionNameIndex = sectionNameIndex
  }
}

/// Elf64_Phdr. Reading one only checks that it is complete.
struct ELFProgramHeader {
  static let size = 56
  static let typeLoad: UInt32 = 1
  static let typeDynamic: UInt32 = 2
  static let typeInterpreter: UInt32 = 3
  static let flagExecute: UInt32 = 1
  static let flagWrite: UInt32 = 2

  let type: UInt32  // p_type
  let flags: UInt32  // p_flags
  let offset: UInt64  // p_offset
  let address: UInt64  // p_vaddr
  let fileSize: UInt64  // p_filesz
  let memorySize: UInt64  // p_memsz

  init?(_ reader: ByteReader, at start: Int) {
    guard
      let type = reader.load(UInt32.self, at: start), let flags = reader.load(UInt32.self, at: start + 4),
      let offset = reader.load(UInt64.self, at: start + 8), let address = reader.load(UInt64.self, at: start + 16),
      let fileSize = reader.load(UInt64.self, at: start + 32),
      let memorySize = reader.load(UInt64.self, at: start + 40)
    else { return nil }
    self.type = type
    self.flags = flags
    self.offset = offset
    self.address = address
    self.fileSize = fileSize
    self.memorySize = memorySize
  }
}

/// Elf64_Shdr. Reading one only checks that it is complete.
struct ELFSectionHeader {
  static let size = 64
  static let typeSymbolTable: UInt32 = 2
  static let typeStringTable: UInt32 = 3
  static let typeNoBits: UInt32 = 8
  static let flagExecute: UInt64 = 4
  static let flagCompressed: UInt64 = 0x800

  let nameOffset: UInt32  // sh_name
  let type: UInt32  // sh_type
  let flags: UInt64  // sh_flags
  let address: UInt64  // sh_addr
  let offset: UInt64  // sh_offset
  let byteCount: UInt64  // sh_size
  let link: UInt32  // sh_link
  let entrySize: UInt64  // sh_entsize

  init?(_ reader: ByteReader, at start: Int) {
    guard
      let nameOffset = reader.load(UInt32.self, at: start), let type = reader.load(UInt32.self, at: start + 4),
      let flags = reader.load(UInt64.self, at: start + 8), let address = reader.load(UInt64.self, at: start + 16),
      let offset = reader.load(UInt64.self, at: start + 24), let byteCount = reader.load(UInt64.self, at: start + 32),
      let link = reader.load(UInt32.self, at: start + 40), let entrySize = reader.load(UInt64.self, at: start + 56)
    else { return nil }
    self.nameOffset = nameOffset
    self.type = type
    self.flags = flags
    self.address = address
    self.offset = offset
    self.byteCount = byteCount
    self.link = link
    self.entrySize = entrySize
  }
}
