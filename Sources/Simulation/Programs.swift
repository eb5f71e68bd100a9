// The programs of simulated tasks: small, with different bytes on each page.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// A program that simulated tasks run.
struct Program {
  struct Segment {
    let start: PageNumber
    let pages: Int
    let isWritable: Bool
    let isExecutable: Bool
    /// Number of bytes in the file, and their offset in the first page.
    let bytes: Int
    let offset: Int

    var filePages: Int { bytes == 0 ? 0 : (offset + bytes + 4095) / 4096 }

    var flags: MappingFlags {
      var flags: MappingFlags = [.read, .lazy]
      if isWritable { flags.formUnion([.write, .forceWrite]) }
      if isExecutable { flags.insert(.execute) }
      return flags
    }

    /// Byte `index` of the segment in the file.
    func byte(_ index: Int) -> UInt8 { UInt8(truncatingIfNeeded: index / 5 + Int(start.rawValue)) | 1 }

    /// The contents of one of its first pages.
    func page(_ page: Int) -> [UInt8] {
      (page * 4096..<(page + 1) * 4096).map { position in
        (offset..<offset + bytes).contains(position) ? byte(position - offset) : 0
      }
    }

    var imageSegment: ImageSegment {
      let content = (0..<bytes).map(byte)
      return ImageSegment(
        start: start, pageCount: pages, isWritable: isWritable, isExecutable: isExecutable, bytes: content[...],
        offset: offset)
    }
  }

  /// By ascending address.
  let segments: [Segment]
  /// False: loading it fails with PM_EINVAL.
  var isGood = true

  var pages: Int { segments.reduce(0) { $0 + $1.pages } }
  var filePages: Int { segments.reduce(0) { $0 + $1.filePages } }

  static let stackPages = Int(PM_STACK_PAGES)
  static let stack = PageNumber(containing: PM_STACK_TOP).advanced(by: -stackPages)
  /// More tables than any task starts with.
  static let mostTables = 16
}

/// All programs of the simulation.
enum Programs {
  private static func text(_ start: UInt64, _ pages: Int) -> Program.Segment {
    Program.Segment(
      start: PageNumber(start), pages: pages, isWritable: false, isExecutable: true, bytes: pages * 4096 - 96, offset: 0
    )
  }

  private static func data(_ start: UInt64, _ pages: Int, bytes: Int) -> Program.Segment {
    Program.Segment(
      start: PageNumber(start), pages: pages, isWritable: true, isExecutable: false, bytes: bytes, offset: 256)
  }

  static let all: [Program] = [
    Program(segments: [text(0x400, 2), data(0x410, 3, bytes: 3000)]),
    Program(segments: [text(0x400, 1)]),
    Program(segments: [data(0x400, 2, bytes: 6000), data(0x410, 4, bytes: 0)]),
    Program(segments: [text(0x400, 2), data(0x401, 3, bytes: 100)], isGood: false),
    Program(segments: [data(Program.stack.rawValue - 2, 3, bytes: 9)], isGood: false),
  ]
}
