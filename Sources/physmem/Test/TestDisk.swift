// The disk of a guest-side test's case, described in guest/tests/test.h.

internal import Glibc
internal import Machine
internal import SystemPackage

struct TestDisk {
  let configuration: DiskConfiguration
  private let goodSectors: MappedSectors?

  private static let sectorCount = 2052
  private static let good = 1024..<1536

  /// - Parameter options: those of `--disk`, each after a comma, or `,bad-sectors`.
  init(_ options: String, _ output: CapturedOutput) throws {
    let hasBadSectors = options == ",bad-sectors"
    let argument = try DiskArgument("disk" + (hasBadSectors ? "" : options))
    let file: BackingFile
    if hasBadSectors {
      goodSectors = try MappedSectors(Self.good, Self.contents(Self.good))
      // Reading and writing /proc/self/mem at an unmapped address fails with EIO.
      file = BackingFile(
        try FileDescriptor.open(FilePath("/proc/self/mem"), .readWrite, options: .closeOnExec),
        sectorCount: UInt64(Self.sectorCount))
    } else {
      goodSectors = nil
      file = try BackingFile(contents: Self.contents(0..<Self.sectorCount), isReadOnly: argument.isReadOnly)
    }
    configuration = DiskConfiguration(file: file, addressBits: argument.addressBits) {
      output.append(Array("\($0)\n".utf8))
    }
  }

  private static func contents(_ sectors: Range<Int>) -> [UInt8] {
    var contents: [UInt8] = []
    for index in UInt64(sectors.lowerBound * 64)..<UInt64(sectors.upperBound * 64) {
      let word = (index + 1) &* 0x9e37_79b9_7f4a_7c15
      for byte in 0..<8 { contents.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * byte))) }
    }
    return contents
  }
}

/// Good sectors of the file /proc/self/mem: memory mapped at their offsets, far below all other mappings.
// SAFETY: this object owns the area, at addresses that were unmapped, as long as it lives.
@safe
private final class MappedSectors {
  private let start: UnsafeMutableRawPointer
  private let byteCount: Int

  init(_ sectors: Range<Int>, _ contents: [UInt8]) throws(Errno) {
    byteCount = contents.count
    let wanted = unsafe UnsafeMutableRawPointer(bitPattern: sectors.lowerBound * 512)
    guard
      let area = unsafe mmap(
        wanted, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
      unsafe area != MAP_FAILED
    else { throw Errno(rawValue: errno) }
    unsafe start = area
    unsafe area.copyMemory(from: contents, byteCount: byteCount)
  }

  deinit { unsafe munmap(start, byteCount) }
}
