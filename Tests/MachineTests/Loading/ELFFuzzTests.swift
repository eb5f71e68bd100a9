// Malformed files: truncated at every length, and randomly changed. Reading them must not trap, and accepted files must
// obey the rules.

import Machine
import Testing

@Suite struct ELFFuzzTests {
  /// An image with every part that the reader reads.
  private let valid: [UInt8] = {
    var builder = ELFBuilder()
    builder.segments.append(ELFBuilder.Segment(type: 0x6474_e551))
    builder.addSymbols([
      .init(name: "_start", address: 0, size: 2), .init(name: "label", type: 0, address: 2, size: 0),
      .init(name: "other", address: 3, size: 1),
    ])
    builder.sections.append(.init(name: ".physmem", content: Array("summary: fuzzed\n".utf8)))
    builder.sections.append(.init(name: ".physmem.tests", content: Array("a|0|1|first\0b|-1|2|second\n".utf8)))
    return builder.bytes()
  }()

  /// Reads everything from a file.
  /// - Returns: nil if it is not an image; otherwise whether the results obey the rules.
  private func obeys(_ bytes: [UInt8]) -> Bool? {
    guard let image = try? ELFImage(bytes: bytes) else { return nil }
    let symbols = SymbolTable(image)
    for address in [image.entry, image.entry + 2, 0, .max] {
      guard let symbol = symbols.symbol(at: address) else { continue }
      guard symbol.offset <= address, symbol.name.unicodeScalars.count <= 256 else { return false }
    }
    return obeysRules(image)
      && ProgramInfo(image).tests.allSatisfy { (1...1024).contains($0.copies) && !$0.name.isEmpty }
  }

  private func obeysRules(_ image: ELFImage) -> Bool {
    var end = ELFImage.addressStart
    var size: UInt64 = 0
    for segment in image.segments {
      let pages = segment.pages
      guard pages.lowerBound >= end, pages.upperBound <= ELFImage.addressLimit, pages.contains(segment.address),
        segment.memorySize > 0, segment.fileRange.lowerBound >= 0,
        segment.fileRange.upperBound <= image.bytes.count, UInt64(segment.fileRange.count) <= segment.memorySize,
        segment.fileRange.isEmpty || segment.fileRange.lowerBound % 4096 == Int(segment.address % 4096),
        !(segment.isWritable && segment.isExecutable)
      else { return false }
      end = pages.upperBound
      size += pages.upperBound - pages.lowerBound
    }
    return size <= ELFImage.maximumMemorySize
      && image.segments.contains { $0.isExecutable && $0.contains(image.entry) }
  }

  @Test func `No length of a valid file traps`() throws {
    var accepted = 0
    for length in 0...valid.count {
      guard let obeys = obeys(Array(valid.prefix(length))) else { continue }
      #expect(obeys, "\(length) bytes")
      accepted += 1
    }
    // Everything needed to run precedes the sections.
    #expect(accepted > 64 && accepted < valid.count - 64)
    #expect(SymbolTable(try ELFImage(bytes: valid)).count == 3)
  }

  @Test func `No mutant traps, and accepted ones obey the rules`() {
    var generator = ELFGenerator(state: 0x5eed)
    let interesting: [UInt8] = [0, 1, 2, 3, 4, 7, 0x10, 0x3f, 0x40, 0x7f, 0x80, 0xf0, 0xff]
    // Mostly the program headers, which the rules are about, and the section headers at the end.
    let places = [0..<64, 64..<288, valid.count - 7 * 64..<valid.count, 0..<valid.count]
    var accepted = 0
    let mutants = 6_000
    for number in 0..<mutants {
      var mutant = valid
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let place = Int.random(in: places.randomElement(using: &generator)!, using: &generator)
        mutant[place] =
          Bool.random(using: &generator)
          ? interesting.randomElement(using: &generator)! : UInt8.random(in: .min ... .max, using: &generator)
      }
      guard let obeys = obeys(mutant) else { continue }
      #expect(obeys, "mutant \(number)")
      accepted += 1
    }
    #expect(accepted > mutants / 10 && accepted < mutants * 9 / 10)
  }
}
