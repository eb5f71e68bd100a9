// The names of a program's functions, for reports on dead tasks. Read on demand from .symtab and .strtab; if these are
// missing or malformed, the table is empty.

/// The functions of an image by address.
///
/// Names are as the compiler emitted them, Swift's mangled. They are safe for a terminal.
public struct SymbolTable: Sendable {
  /// The most symbols that are read, so that a hostile file cannot exhaust memory.
  static let maximumSymbols = 1 << 20
  static let maximumNameLength = 256

  /// A function's range, in 24 bytes. Its name stays in the file until it is needed.
  private struct Entry {
    var start: UInt64
    var end: UInt64
    var nameStart: Int
  }

  private let bytes: [UInt8]
  private let names: Range<Int>
  private let entries: [Entry]  // by ascending start; starts are unique

  /// Reads the symbols of `image`: STT_FUNC, and STT_NOTYPE (labels of assembly), in executable sections.
  public init(_ image: ELFImage) {
    bytes = image.bytes
    let sections = ELFSections(image)
    guard let table = sections.headers.first(where: { $0.type == ELFSectionHeader.typeSymbolTable }),
      table.entrySize == ELFSymbol.size, let range = sections.fileRange(of: table),
      sections.headers.indices.contains(Int(table.link)),
      sections.headers[Int(table.link)].type == ELFSectionHeader.typeStringTable,
      let names = sections.fileRange(of: sections.headers[Int(table.link)])
    else {
      names = 0..<0
      entries = []
      return
    }
    self.names = names
    entries = Self.entries(Self.functions(range, names, sections, ByteReader(bytes: image.bytes)))
  }

  /// Number of known functions.
  public var count: Int { entries.count }

  /// Finds the function that contains an address.
  ///
  /// A return address is one past its call, and may be one past its function: look up the byte before.
  /// - Parameter address: a guest address.
  /// - Returns: its name, and the address's offset in bytes from its start; nil if no function is known there.
  public func symbol(at address: UInt64) -> (name: String, offset: UInt64)? {
    var low = 0
    var high = entries.count  // entries[..<low] start at or below address, entries[high...] above
    while low < high {
      let middle = low + (high - low) / 2
      if entries[middle].start <= address { low = middle + 1 } else { high = middle }
    }
    guard low > 0, address < entries[low - 1].end else { return nil }
    let entry = entries[low - 1]
    let name = ByteReader(bytes: bytes)
      .string(from: entry.nameStart, to: names.upperBound, limit: Self.maximumNameLength * 4)
    return (printableText(name, limit: Self.maximumNameLength), address - entry.start)
  }
}

/// Elf64_Sym, of a function.
private struct ELFSymbol {
  static let size = 24
  static let typeNone: UInt8 = 0
  static let typeFunction: UInt8 = 2
  static let bindLocal: UInt8 = 0

  let nameStart: Int  // in the file
  let isFunction: Bool  // STT_FUNC; else STT_NOTYPE
  let isLocal: Bool
  let address: UInt64  // st_value
  let size: UInt64  // st_size; 0: not known
  let sectionEnd: UInt64

  /// The function's end, given the next symbol's address.
  func end(before next: UInt64?) -> UInt64 {
    if size > 0 { return size < sectionEnd - address ? address + size : sectionEnd }
    return min(next ?? sectionEnd, sectionEnd)
  }
}

extension SymbolTable {
  /// The symbols that name code, in file order.
  private static func functions(
    _ table: Range<Int>,
    _ names: Range<Int>,
    _ sections: ELFSections,
    _ reader: ByteReader
  ) -> [ELFSymbol] {
    let count = min(table.count / ELFSymbol.size, maximumSymbols)
    var symbols: [ELFSymbol] = []
    for start in stride(from: table.lowerBound, to: table.lowerBound + count * ELFSymbol.size, by: ELFSymbol.size) {
      guard let name = reader.load(UInt32.self, at: start), let info = reader.load(UInt8.self, at: start + 4),
        let section = reader.load(UInt16.self, at: start + 6), let address = reader.load(UInt64.self, at: start + 8),
        let size = reader.load(UInt64.self, at: start + 16)
      else { break }
      let type = info & 0xf
      guard type == ELFSymbol.typeFunction || type == ELFSymbol.typeNone else { continue }
      // SHN_UNDEF is section 0, which is not executable. SHN_ABS and similar values are not indices.
      guard sections.headers.indices.contains(Int(section)) else { continue }
      let header = sections.headers[Int(section)]
      guard header.flags & ELFSectionHeader.flagExecute != 0, address >= header.address,
        address - header.address < header.byteCount
      else { continue }
      let nameStart = names.lowerBound + Int(name)
      guard !reader.string(from: nameStart, to: names.upperBound, limit: 1).isEmpty else { continue }
      let (sectionEnd, overflow) = header.address.addingReportingOverflow(header.byteCount)
      symbols.append(
        ELFSymbol(
          nameStart: nameStart,
          isFunction: type == ELFSymbol.typeFunction,
          isLocal: info >> 4 == ELFSymbol.bindLocal,
          address: address,
          size: size,
          sectionEnd: overflow ? .max : sectionEnd
        )
      )
    }
    return symbols
  }

  /// One entry for each address. Of several names it takes the best: a function before a label, one with a size, a
  /// global one, the first in the file. A label inside a function that has a size is not an entry.
  private static func entries(_ unsorted: [ELFSymbol]) -> [Entry] {
    func isBetter(_ left: ELFSymbol, _ right: ELFSymbol) -> Bool {
      if left.address != right.address { return left.address < right.address }
      if left.isFunction != right.isFunction { return left.isFunction }
      if (left.size > 0) != (right.size > 0) { return left.size > 0 }
      if left.isLocal != right.isLocal { return right.isLocal }
      return left.nameStart < right.nameStart
    }
    var kept: [ELFSymbol] = []
    for symbol in unsorted.sorted(by: isBetter) {
      if let last = kept.last {
        if symbol.address == last.address { continue }
        let isInside = last.isFunction && last.size > 0 && symbol.address < last.end(before: nil)
        if isInside && !symbol.isFunction { continue }
      }
      kept.append(symbol)
    }
    return kept.indices.map { index in
      let next = index + 1 < kept.count ? kept[index + 1].address : nil
      return Entry(
        start: kept[index].address,
        end: kept[index].end(before: next),
        nameStart: kept[index].nameStart
      )
    }
  }
}
