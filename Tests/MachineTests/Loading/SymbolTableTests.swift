import Machine
import Testing

extension ELFBuilder {
  /// A symbol. Its address is relative to `.text`, the first segment.
  struct Symbol {
    var name: String
    var bytes: [UInt8]?
    var type: UInt8 = 2  // STT_FUNC
    var bind: UInt8 = 1  // STB_GLOBAL
    var section: UInt16 = 1  // .text
    var address: UInt64
    var size: UInt64
  }

  /// The start address of `.text`.
  var textAddress: UInt64 { segments[0].base + UInt64(contentOffset) }

  /// Adds .text (section 1), .data (2), .symtab (3) and .strtab (4).
  mutating func addSymbols(_ symbols: [Symbol]) {
    var names: [UInt8] = [0]
    var table = [UInt8](repeating: 0, count: 24)
    for symbol in symbols {
      table += little(UInt32(names.count)) + [symbol.bind << 4 | symbol.type, 0] + little(symbol.section)
      table += little(textAddress &+ symbol.address) + little(symbol.size)
      names += (symbol.bytes ?? Array(symbol.name.utf8)) + [0]
    }
    let size = UInt64(segments[0].content.count) + segments[0].zeroes
    sections += [
      Section(name: ".text", type: 8, flags: 6, address: textAddress, size: size),
      Section(name: ".data", type: 8, flags: 3, address: textAddress, size: size),
      Section(name: ".symtab", type: 2, content: table, link: 4, entrySize: 24),
      Section(name: ".strtab", type: 3, content: names),
    ]
  }
}

@Suite struct ELFSymbolTableTests {
  /// The names found at offsets into a `.text` of 256 bytes, as "name+offset".
  private func lookUp(
    _ symbols: [ELFBuilder.Symbol],
    _ offsets: [UInt64],
    change: (inout ELFBuilder) -> Void = { _ in }
  ) throws -> [String?] {
    var builder = ELFBuilder()
    builder.segments[0].zeroes = 252
    builder.addSymbols(symbols)
    change(&builder)
    let table = SymbolTable(try ELFImage(bytes: builder.bytes()))
    return offsets.map { offset in
      table.symbol(at: builder.textAddress &+ offset).map { "\($0.name)+\($0.offset)" }
    }
  }

  @Test func `A function has its bytes and no more`() throws {
    let names = try lookUp(
      [.init(name: "second", address: 32, size: 8), .init(name: "first", address: 16, size: 4)],
      [15, 16, 19, 20, 31, 32, 39, 40, 255, 256]
    )
    #expect(names == [nil, "first+0", "first+3", nil, nil, "second+0", "second+7", nil, nil, nil])
  }

  @Test func `A symbol without a size goes on to the next, the last to its section's end`() throws {
    let names = try lookUp(
      [.init(name: "_start", type: 0, address: 0, size: 0), .init(name: "main", address: 64, size: 0)],
      [0, 63, 64, 255, 256]
    )
    #expect(names == ["_start+0", "_start+63", "main+0", "main+191", nil])
  }

  @Test func `A size beyond the section is cut`() throws {
    let names = try lookUp([.init(name: "f", address: 16, size: .max)], [16, 255, 256, .max - 1])
    #expect(names == ["f+0", "f+239", nil, nil])
  }

  @Test func `Data, other sections and symbols of no section are not functions`() throws {
    let names = try lookUp(
      [
        .init(name: "object", type: 1, address: 0, size: 8), .init(name: "data", section: 2, address: 8, size: 8),
        .init(name: "undefined", section: 0, address: 16, size: 8),
        .init(name: "absolute", type: 0, section: 0xfff1, address: 24, size: 8),
        .init(name: "", address: 32, size: 8), .init(name: "outside", address: 256, size: 8),
        .init(name: "below", address: 0 &- 16, size: 64),
      ],
      [0, 8, 16, 24, 32, 256, 0 &- 16]
    )
    #expect(names == Array(repeating: nil, count: 7))
  }

  @Test func `Of several names for one address the best is taken`() throws {
    let names = try lookUp(
      [
        .init(name: "label", type: 0, address: 0, size: 0), .init(name: "local", bind: 0, address: 0, size: 8),
        .init(name: "global", address: 0, size: 8), .init(name: "alias", address: 0, size: 8),
        .init(name: "unsized", address: 0, size: 0),
      ],
      [0]
    )
    #expect(names == ["global+0"])
  }

  @Test func `A label inside a function is not a function`() throws {
    let names = try lookUp(
      [
        .init(name: "f", address: 0, size: 16), .init(name: "loop", type: 0, address: 8, size: 0),
        .init(name: "after", type: 0, address: 16, size: 0),
      ],
      [7, 8, 15, 16]
    )
    #expect(names == ["f+7", "f+8", "f+15", "after+0"])
  }

  @Test func `Names are fit for a terminal`() throws {
    let names = try lookUp(
      [
        .init(name: "", bytes: Array("a\u{1b}[31mb\n".utf8), address: 0, size: 1),
        .init(name: "", bytes: [0x61, 0xff, 0x7f, 0x62], address: 1, size: 1),
        .init(name: "größe", address: 2, size: 1), .init(name: "a\u{202e}b\u{9b}c", address: 3, size: 1),
        .init(name: String(repeating: "n", count: 300), address: 4, size: 1),
        .init(name: "$s4main3runyyF", address: 5, size: 1),
      ],
      [0, 1, 2, 3, 4, 5]
    )
    #expect(
      names == [
        "a?[31mb?+0", "a??b+0", "größe+0", "a?b?c+0", String(repeating: "n", count: 256) + "+0", "$s4main3runyyF+0",
      ]
    )
  }

  @Test func `What is missing or malformed is an empty table`() throws {
    let symbols = [ELFBuilder.Symbol(name: "f", address: 0, size: 8)]
    #expect(try lookUp(symbols, [0]) == ["f+0"])
    let changes: [(inout ELFBuilder) -> Void] = [
      { $0.sections = [] },
      { $0.sectionHeaderSize = 63 },
      { $0.sectionHeaderCount = 0xffff },
      { $0.sections[2].type = 1 },
      { $0.sections[2].entrySize = 0 },
      { $0.sections[2].offset = .max },
      { $0.sections[2].size = .max },
      { $0.sections[2].size = 47 },
      { $0.sections[2].link = .max },
      { $0.sections[2].link = 1 },
      { $0.sections[3].type = 1 },
      { $0.sections[3].offset = .max },
      { $0.sections[3].size = 1 },
      { $0.sections[3].flags = 0x800 },
      { $0.sections[0].flags = 2 },
      { $0.sections[0].address = 0 },
    ]
    for (index, change) in changes.enumerated() {
      #expect(try lookUp(symbols, [0], change: change) == [nil], "change \(index)")
    }
  }

  @Test func `Every function of a large table is found`() throws {
    let symbols = (0..<64).shuffled().map {
      ELFBuilder.Symbol(name: "f\($0)", address: UInt64($0 * 4), size: UInt64($0 % 4 + 1))
    }
    let names = try lookUp(symbols, Array(0..<256))
    for (offset, name) in names.enumerated() {
      let (function, inside) = offset.quotientAndRemainder(dividingBy: 4)
      #expect(name == (inside < function % 4 + 1 ? "f\(function)+\(inside)" : nil))
    }
  }
}
