// A program's description of itself, for `physmem list` and `physmem test`: text in two sections of its image.
//
// Records end with a newline or a NUL (the linker concatenates C string literals, each with its NUL). Malformed records
// are skipped: a program with a bad summary still runs.

/// A test in a guest image. `name` selects it, and it should end with one of `expectedStatuses`.
public struct GuestTest: Sendable, Equatable {
  /// The most copies that run at once.
  public static let maximumCopies = 1024

  /// The program's argument that selects the test.
  public let name: String
  /// Exit statuses that count as success: several if processors differ.
  public let expectedStatuses: [Int32]
  /// Number of tasks that run the test at once, in 1...`maximumCopies`.
  public let copies: Int
  /// The entitlement of each task, and the machine's size; nil: no contract and the default machine.
  public let contract: Contract?
  /// The `--disk` options of the machine's disk; nil: it has no disk.
  public let diskOptions: String?
  /// What the test proves, in one line.
  public let summary: String

  /// The entitlement of a test's tasks and the size of their machine.
  public struct Contract: Sendable, Equatable {
    /// Guaranteed frames of each task, which may also use extra frames.
    public let guaranteed: Int
    /// Memory of the machine in MiB.
    public let mebibytes: Int

    /// - Parameters:
    ///   - guaranteed: frames for each task.
    ///   - mebibytes: memory of the machine.
    public init(guaranteed: Int, mebibytes: Int) {
      self.guaranteed = guaranteed
      self.mebibytes = mebibytes
    }
  }

  /// A test with the given properties; see the properties of the same names.
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

/// The contents of an image's sections `.physmem` and `.physmem.tests` (see the end of `physmem/abi.h`). All text is
/// safe for a terminal.
public struct ProgramInfo: Sendable {
  /// One line on what the program does; nil if the image has none.
  public let summary: String?
  /// The tests in the image's order.
  public let tests: [GuestTest]
  /// Number of malformed test records.
  public let malformedTests: Int

  /// Reads the sections of an image. Malformed records are counted and skipped.
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

  /// Parses "name|expected|copies|summary". "expected" is "142" or "134 or 141". "copies" is "2", or "2 900 8" for two
  /// tasks with 900 guaranteed frames each in 8 MiB; "disk" or "disk,readonly" after it adds a disk. The summary may
  /// contain bars.
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

  /// Printable text with surrounding white space removed.
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
