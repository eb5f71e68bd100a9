// Why a file cannot run as a guest task. Each case is a rule of ELFImage. Its description continues a sentence that
// starts with the file's name.

/// A file that is not a static x86-64 ELF64 executable within a task's address layout.
///
/// `description` is the rest of a sentence: the caller prints `"\(name): \(error)"`.
public enum ELFError: Error, Equatable, Sendable, CustomStringConvertible {
  /// EI_MAG0…3 are not those of an ELF file.
  case notELF
  /// A header or a segment extends past the file's end.
  case truncated
  /// EI_CLASS is ELFCLASS32.
  case thirtyTwoBit
  /// EI_CLASS is neither ELFCLASS32 nor ELFCLASS64.
  case unknownClass(UInt8)
  /// EI_DATA is not ELFDATA2LSB.
  case notLittleEndian
  /// EI_VERSION or e_version is not EV_CURRENT.
  case unknownVersion(UInt32)
  /// e_machine is not EM_X86_64.
  case otherMachine(UInt16)
  /// The file is ET_DYN or has PT_INTERP or PT_DYNAMIC.
  case dynamic
  /// e_type is neither ET_EXEC nor ET_DYN.
  case notExecutable(type: UInt16)
  /// e_phentsize is not 56.
  case programHeaderSize(UInt16)
  /// e_phnum is more than `ELFImage.maximumProgramHeaders`.
  case tooManyProgramHeaders(UInt16)
  /// The file has no PT_LOAD segment of at least one byte.
  case nothingToLoad
  /// p_filesz is more than p_memsz.
  case fileSizeExceedsMemorySize(address: UInt64)
  /// p_offset and p_vaddr differ modulo the page size.
  case misaligned(address: UInt64)
  /// A segment has PF_W and PF_X.
  case writableAndExecutable(address: UInt64)
  /// A segment starts below PM_USER_START.
  case belowUserMemory(address: UInt64)
  /// A segment reaches `ELFImage.addressLimit` or beyond.
  case aboveLimit(address: UInt64)
  /// Two segments share a page.
  case sharedPage(address: UInt64)
  /// e_entry is in no executable segment.
  case entryNotExecutable(entry: UInt64)
  /// The segments take more than `ELFImage.maximumMemorySize` bytes.
  case tooLarge(bytes: UInt64)

  /// The rest of a sentence that starts with the file's name.
  public var description: String {
    switch self {
    case .notELF: "is not an ELF file; compile a program with scripts/guest-cc"
    case .truncated: "is truncated: its headers name bytes past its end; build it or copy it again"
    case .thirtyTwoBit: "is a 32-bit ELF; compile it with scripts/guest-cc"
    case .unknownClass(let value): "has an unknown ELF class (EI_CLASS \(value)); compile it with scripts/guest-cc"
    case .notLittleEndian: "is not a little-endian ELF; compile it with scripts/guest-cc"
    case .unknownVersion(let version): "has ELF version \(version); only version 1 is supported"
    case .otherMachine(let machine):
      "is for another processor (e_machine \(machine)), not x86-64; compile it with scripts/guest-cc"
    case .dynamic: "is dynamically linked or position independent: link it with scripts/guest-cc"
    case .notExecutable(let type):
      "is an ELF file but not an executable (e_type \(type)): link it with scripts/guest-cc"
    case .programHeaderSize(let size): "has program headers of \(size) bytes where ELF64 has \(ELFProgramHeader.size)"
    case .tooManyProgramHeaders(let count):
      "has \(count) program headers, more than the \(ELFImage.maximumProgramHeaders) allowed"
    case .nothingToLoad: "has nothing to load: link it with scripts/guest-cc"
    case .fileSizeExceedsMemorySize(let address): "has a segment at \(hex(address)) larger in the file than in memory"
    case .misaligned(let address):
      "has a segment at \(hex(address)) with different page offsets in file and memory: "
        + "link it with scripts/guest-cc"
    case .writableAndExecutable(let address):
      "has a segment at \(hex(address)) that is both writable and executable: link it with scripts/guest-cc"
    case .belowUserMemory(let address):
      "has a segment at \(hex(address)), below the first address a task may use, \(hex(ELFImage.addressStart))"
    case .aboveLimit(let address):
      "has a segment at \(hex(address)) that does not end below \(hex(ELFImage.addressLimit)), where the heap starts"
    case .sharedPage(let address):
      "has two segments in the page at \(hex(address)), and rights are per page: link it with scripts/guest-cc"
    case .entryNotExecutable(let entry): "has its entry point at \(hex(entry)), in no executable segment"
    case .tooLarge(let bytes):
      "is larger than \(ELFImage.maximumMemorySize >> 20) MiB in memory: its segments take "
        + "\(bytes >> 10) KiB"
    }
  }
}

private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
