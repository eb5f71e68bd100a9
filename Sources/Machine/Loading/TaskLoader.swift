// From an ELF image and arguments to what the server and the vCPU need to begin a task.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory
import Synchronization

/// A validated program, loaded into a machine: its text is in memory once, whoever runs it.
public final class Program: Sendable {
  /// For messages: fit for a terminal.
  public let name: String
  /// The name as it was given, which the program's tasks see as their argv[0].
  public let argument: [UInt8]
  public let image: ELFImage
  let number: ImageNumber
  private let symbolTable = Mutex<SymbolTable?>(nil)

  init(name: [UInt8], image: ELFImage, number: ImageNumber) {
    self.name = visibleName(name)
    argument = name
    self.image = image
    self.number = number
  }

  /// The same program in the same memory, by another name.
  public func named(_ name: [UInt8]) -> Program { Program(name: name, image: image, number: number) }

  /// "touch+0x14", or nil where no symbol is known.
  func symbol(at address: UInt64) -> String? {
    symbolTable.withLock { table in
      if table == nil { table = SymbolTable(image) }
      guard let (name, offset) = table?.symbol(at: address) else { return nil }
      return offset == 0 ? name : "\(name)+\(hexadecimal(offset))"
    }
  }
}

extension ELFImage {
  /// The segments in pages, each with its bytes.
  var imageSegments: [ImageSegment] {
    segments.map { segment in
      let start = PageNumber(containing: segment.address)
      let end = PageNumber(containing: segment.address + segment.memorySize + 4095)
      return ImageSegment(
        start: start, pageCount: start.distance(to: end), isWritable: segment.isWritable,
        isExecutable: segment.isExecutable, bytes: bytes[segment.fileRange], offset: Int(segment.address & 4095))
    }
  }

  /// Frames for what its file holds, once however many tasks run it.
  var filePageCount: Int { imageSegments.reduce(0) { $0 + $1.filePages } }

  /// Frames that a task of it is charged at its start.
  var frameCount: Int { imageSegments.reduce(Int(PM_STACK_PAGES)) { $0 + $1.pageCount } }
}

/// The top of a new task's stack: argv, closed by a null pointer, and its strings. See abi.h.
struct InitialStack: Sendable {
  let argumentCount: Int
  /// The address of argv, and what RSP is at the start.
  let arguments: UInt64
  let pointer: UInt64
  /// What lies from `pointer` to the stack's top.
  let bytes: [UInt8]

  /// Arguments may take half the stack.
  static let maximumByteCount = Int(PM_STACK_PAGES) * 4096 / 2

  /// nil: they are too long.
  init?(_ strings: [[UInt8]]) {
    let text = strings.reduce(0) { $0 + $1.count + 1 }
    let pointers = (strings.count + 1) * 8
    let total = (pointers + text + 15) & ~15
    guard total <= Self.maximumByteCount else { return nil }
    argumentCount = strings.count
    let start = PM_STACK_TOP - UInt64(total)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(total)
    var address = start + UInt64(pointers)
    for string in strings {
      bytes.append(contentsOf: Self.littleEndian(address))
      address += UInt64(string.count + 1)
    }
    bytes.append(contentsOf: Self.littleEndian(0))
    for string in strings {
      bytes.append(contentsOf: string)
      bytes.append(0)
    }
    bytes.append(contentsOf: repeatElement(0, count: total - bytes.count))
    self.bytes = bytes
    arguments = start
    pointer = start
  }

  private static func littleEndian(_ value: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
  }
}
