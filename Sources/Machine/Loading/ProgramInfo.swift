// What a program says of itself, for `physmem list` and `physmem test`: text in two sections of its image.
//
// Records end with a newline or a NUL (the linker joins C string literals, each with its NUL). A record that
// makes no sense is skipped: a program with a bad summary still runs.

/// A test that a guest image offers: started by `name`, it should end with one of `expectedStatuses`.
public struct GuestTest: Sendable, Equatable {
  /// At most this many copies run at once.
  public static let maximumCopies = 1024

  public let name: String
  /// Statuses the task may end with: several where processors differ.
  public let expectedStatuses: [Int32]
  /// How many tasks run it at once, in 1...`maximumCopies`.
  public let copies: Int
  /// What each of them has, and the machine; nil: no contract, and a machine as any other.
  public let contract: Contract?
  /// Its machine has a disk, used as these options of `--disk` say; nil: it has none.
  public let diskOptions: String?
  /// One line on what it proves.
  public let summary: String

  public struct Contract: Sendable, Equatable {
    /// Frames for each task, which may use extra ones.
    public let guaranteed: Int
    /// Of the machine.
    public let mebibytes: Int

    public init(guaranteed: Int, mebibytes: Int) {
      self.guaranteed = guaranteed
      self.mebibytes = mebibytes
    }
  }

  public init(
    name: String, expectedStatuses: [Int32], copies: Int, contract: Contract? = nil, diskOptions: String? = nil,
    summary: String
  ) {
    self.contract = contract
    self.diskOptions = diskOptions
    self.name = name
    self.expectedStatuses = expectedStatuses
    self.copies = copies
    self.summary = summary
  }
}

/// The sections `.physmem` and `.physmem.tests` of an image; see the end of `physmem/abi.h`.
/// All text is fit for a terminal.
public struct ProgramInfo: Sendable {
  /// One line on what the program does; nil where it does not say.
  public let summary: String?
  /// In the image's order.
  public let tests: [GuestTest]
  /// Test records that made no sense.
  public let malformedTests: Int

  public init(_ image: ELFImage) {
    let sections = ELFSections(image)
    summary = Self.records(sections.contents(named: ".physmem"))
      .firstNonNil { record in
        let fields = record.split(separator: UInt8(ascii: ":"), maxSplits: 1, omittingEmptySubsequences: false)
        guard fields.count == 2, Self.text(fields[0]) == "summary" else { return nil }
        let summary = Self.text(fields[1])
        return summary.isEmpty ? nil : summary
      }
    let records = Self.records(sections.contents(named: ".physmem.tests"))
    tests = records.compactMap(Self.test)
    malformedTests = records.count - tests.count
  }

  /// "name|expected|copies|summary", where expected is "142" or "134 or 141", and copies is "2", or "2 900 8" for two
  /// tasks with 900 guaranteed frames each in 8 MiB; "disk" or "disk,readonly" behind them is a disk; the summary may hold further bars.
  private static func test(_ record: ArraySlice<UInt8>) -> GuestTest? {
    let fields = record.split(separator: UInt8(ascii: "|"), maxSplits: 3, omittingEmptySubsequences: false).map(text)
    guard fields.count == 4, !fields[0].isEmpty else { return nil }
    var words = fields[2].split(separator: " ")
    var diskOptions: String?
    if let last = words.last, last == "disk" || last.hasPrefix("disk,") {
      diskOptions = String(last.dropFirst("disk".count))
      words.removeLast()
    }
    let numbers = words.compactMap { Int($0) }
    guard numbers.count == words.count, numbers.count == 1 || numbers.count == 3 else { return nil }
    let statuses = fields[1].split(separator: " ").filter { $0 != "or" }
    let expected = statuses.compactMap { Int32($0) }
    guard !expected.isEmpty, expected.count == statuses.count else { return nil }
    return GuestTest(
      name: fields[0],
      expectedStatuses: expected,
      copies: max(1, min(GuestTest.maximumCopies, numbers[0])),
      contract: numbers.count == 3 ? .init(guaranteed: max(0, numbers[1]), mebibytes: max(1, numbers[2])) : nil,
      diskOptions: diskOptions,
      summary: fields[3]
    )
  }

  private static func records(_ section: ArraySlice<UInt8>?) -> [ArraySlice<UInt8>] {
    section?.split { $0 == 0 || $0 == UInt8(ascii: "\n") } ?? []
  }

  /// Printable text without the white space around it.
  private static func text(_ bytes: ArraySlice<UInt8>) -> String {
    let isSpace = { (byte: UInt8) in byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == 13 }
    let trimmed = bytes.drop(while: isSpace)
    guard let last = trimmed.lastIndex(where: { !isSpace($0) }) else { return "" }
    return printableText(trimmed[...last])
  }
}

extension Sequence {
  fileprivate func firstNonNil<Result>(_ transform: (Element) -> Result?) -> Result? {
    for element in self { if let result = transform(element) { return result } }
    return nil
  }
}
