// Turns an ELF image and arguments into what the server and the vCPU need to start a task.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory
import Synchronization

/// A validated program, loaded into a machine. All its tasks share one copy of its text.
public final class Program: Sendable {
  /// For messages; safe for a terminal.
  public let name: String
  /// The name as given, which is argv[0] of the program's tasks.
  public let argument: [UInt8]
  /// The validated file.
  public let image: ELFImage
  let number: ImageNumber
  private let symbolTable = Mutex<SymbolTable?>(nil)

  init(name: [UInt8], image: ELFImage, number: ImageNumber) {
    self.name = visibleName(name)
    argument = name
    self.image = image
    self.number = number
  }

  /// The same loaded program under another name.
  public func named(_ name: [UInt8]) -> Program { Program(name: name, image: image, number: number) }

  /// For example "touch+0x14"; nil if no symbol is known.
  func symbol(at address: UInt64) -> String? {
    symbolTable.withLock { table in
      if table == nil { table = SymbolTable(image) }
      guard let (name, offset) = table?.symbol(at: address) else { return nil }
      return offset == 0 ? name : "\(name)+\(hexadecimal(offset))"
    }
  }
}

extension ELFImage {
  /// The segments in whole pages, each with its bytes.
  var imageSegments: [ImageSegment] {
    segments.map { segment in
      let start = PageNumber(containing: segment.address)
      let end = PageNumber(containing: segment.address + segment.memorySize + 4095)
      return ImageSegment(
        start: start, pageCount: start.distance(to: end), isWritable: segment.isWritable,
        isExecutable: segment.isExecutable, bytes: bytes[segment.fileRange], offset: Int(segment.address & 4095))
    }
  }

  /// Frames for the file's contents, charged once for all tasks that run it.
  var filePageCount: Int { imageSegments.reduce(0) { $0 + $1.filePages } }

  /// Frames charged to a task at its start.
  var frameCount: Int { imageSegments.reduce(Int(PM_STACK_PAGES)) { $0 + $1.pageCount } }
}

/// The top of a new task's stack: argv with a final null pointer, and its strings. See abi.h.
struct InitialStack: Sendable {
  let argumentCount: Int
  /// The address of argv, and the initial RSP.
  let arguments: UInt64
  let pointer: UInt64
  /// The bytes from `pointer` to the stack's top.
  let bytes: [UInt8]

  /// The arguments may take half the stack.
  static let maximumByteCount = Int(PM_STACK_PAGES) * 4096 / 2

  /// Nil if the arguments are too long.
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
