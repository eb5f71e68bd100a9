import Machine
import Testing

@Suite struct ELFProgramInfoTests {
  private func info(_ text: String?, tests: String? = nil, type: UInt32 = 1, flags: UInt64 = 0) throws -> ProgramInfo {
    var builder = ELFBuilder()
    // Comes first, and its name has the wanted section's as a prefix.
    if let tests {
      builder.sections.append(.init(name: ".physmem.tests", type: type, flags: flags, content: Array(tests.utf8)))
    }
    if let text {
      builder.sections.append(.init(name: ".physmem", type: type, flags: flags, content: Array(text.utf8)))
    }
    return ProgramInfo(try ELFImage(bytes: builder.bytes()))
  }

  @Test(arguments: [
    ("summary: prints a line\n", "prints a line"),
    ("summary:prints a line", "prints a line"),
    ("author: me\nsummary: \t prints: two lines \r\nsummary: no\n", "prints: two lines"),
    ("author: me\0\0summary: by NUL\0", "by NUL"),
    ("summary\nsummary:\nsummary: third\n", "third"),
    ("summary: a\u{1b}]0;title\u{7}b\n", "a?]0;title?b"),
    ("summary: 4 µs → 2\n", "4 µs → 2"),
  ])
  func `The summary is the first that says something`(text: String, summary: String) throws {
    #expect(try info(text).summary == summary)
  }

  @Test(arguments: [nil, "", "\0\0\n\n", "Summary: no\n", "summary", "summary: \n", ": x\n"])
  func `No summary`(text: String?) throws {
    #expect(try info(text).summary == nil)
    #expect(try info(text).tests.isEmpty)
  }

  @Test func `A long summary is cut`() throws {
    #expect(try info("summary: " + String(repeating: "é", count: 1000)).summary?.count == 256)
  }

  @Test func `Tests are read in order, whatever ends a record`() throws {
    let tests = try info(nil, tests: "one|0|1|first\ntwo|-3|16|second\0three | 139 | 2 | a|b\n\0").tests
    #expect(
      tests == [
        GuestTest(name: "one", expectedStatuses: [0], copies: 1, summary: "first"),
        GuestTest(name: "two", expectedStatuses: [-3], copies: 16, summary: "second"),
        GuestTest(name: "three", expectedStatuses: [139], copies: 2, summary: "a|b"),
      ]
    )
  }

  @Test func `Malformed tests are skipped`() throws {
    let tests = try info(
      nil,
      tests: "one|0|1\n|0|1|no name\ntwo|x|1|status\nthree|0|many|copies\nfour|2147483648|1|too large\nno\n"
        + "five|0|99999999999999999999|too many\nright|0|1|kept\n"
    ).tests
    #expect(tests.map(\.name) == ["right"])
  }

  @Test func `Copies are 1 to 1024`() throws {
    let tests = try info(nil, tests: "a|0|0|\nb|0|-5|\nc|0|1024|\nd|0|1025|\n").tests
    #expect(tests.map(\.copies) == [1, 1, 1024, 1024])
  }

  @Test func `A section is found by its whole name`() throws {
    let info = try info("summary: right\n", tests: "summary: wrong\n")
    #expect(info.summary == "right")
  }

  @Test func `A section that is compressed or not in the file says nothing`() throws {
    #expect(try info("summary: x", flags: 0x800).summary == nil)
    #expect(try info("summary: x", type: 8).summary == nil)
  }
}
