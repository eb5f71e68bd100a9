// Bytes from outside: they are preserved, and never control a terminal.

import Machine
import Testing

@testable import physmem

@Suite struct OutsideNameTests {
  @Test(
    arguments: [
      [], [0xe9], [0xc3, 0xa9], [0xc3], [0xa9, 0x41], [0xed, 0xa0, 0x80], [0xf4, 0x8f, 0xbf, 0xbf],
      [0xf4, 0x8f, 0xbc, 0x80],
      [0xff, 0xfe], [0xef, 0xbf, 0xbd], [0x1b, 0x5b, 0x33, 0x31, 0x6d], [0xf0, 0x9f, 0x91, 0xa9, 0xe2, 0x80, 0x8d],
    ] as [[UInt8]])
  func `Bytes are preserved`(bytes: [UInt8]) {
    #expect(ArgumentText.bytes(ArgumentText.text(bytes)) == bytes)
  }

  @Test func `Random bytes are preserved`() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      let bytes = (0..<Int.random(in: 0..<40)).map { _ in
        Bool.random() ? UInt8.random(in: 1 ... .max, using: &random) : UInt8.random(in: 0xe0 ... .max, using: &random)
      }
      #expect(ArgumentText.bytes(ArgumentText.text(bytes)) == bytes, "\(bytes)")
    }
  }

  @Test(
    arguments: [
      ("hello", "hello"), ("", "''"), ("a b", "'a b'"), ("é", "é"), ("it's", "it's"),
      ("\u{1b}[31mx", #"$'\x1b[31mx'"#), ("a\nphysmem: well", #"$'a\nphysmem: well'"#),
      ("it's\n", #"$'it\'s\n'"#), ("a\u{202e}b", #"$'a\xe2\x80\xaeb'"#), ("\u{85}", #"$'\xc2\x85'"#),
    ] as [(String, String)]
  )
  func `Names are printed safely`(name: String, text: String) {
    #expect(OutsideName(name).description == text)
  }

  @Test func `A name that is not text is printed as a shell reads it`() {
    #expect(OutsideName(bytes: [0x61, 0xe9]).description == #"$'a\xe9'"#)
    #expect(OutsideName(bytes: [0x61, 0xe9]).text == nil)
  }

  @Test(arguments: [
    #"run "$(printf '\033[31mx')""#, #"run "$(printf './\033[31mx')""#, #""$(printf 'x\nphysmem: well')""#,
    #"run "$(printf -- '--\nphysmem: well')" hello"#, #"run --trace "$(printf '/\033/x')" hello"#,
    #"run --disk "$(printf '/\033/x')" hello"#, #"run --policy "$(printf '/\033/x')" hello"#,
    #"run --memory "$(printf '\0331M')" hello"#, #"test "$(printf '\033')""#, #"test --junit "$(printf '/\033/x')""#,
  ])
  func `Errors are one line, for all names`(arguments: String) throws {
    let result = try CommandResult(shell: "exec \"$0\" \(arguments)")
    #expect(result.status == 64 && result.output == "")
    #expect(result.error.hasPrefix("physmem: ") && result.error.count { $0.isNewline } == 1)
    #expect(!result.error.unicodeScalars.contains("\u{1b}"))
  }
}
