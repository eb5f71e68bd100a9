// Sizes, times, and splitting the command's arguments from the task's.

import ArgumentParser
import Testing

@testable import physmem

@Suite struct ArgumentTests {
  @Test(arguments: [
    ("0", 0), ("4096", 4096), ("1K", 1024), ("64k", 65536), ("256M", 256 << 20), ("3g", 3 << 30), ("4T", 4 << 40),
    ("0T", 0), ("8388607T", 8_388_607 << 40),
  ])
  func `Sizes`(text: String, bytes: Int) {
    #expect(byteCount(text) == bytes)
  }

  @Test(arguments: [
    "", "M", "1.5G", "-1", "+1", "1 M", "M1", "1MB", "1P", "x", "0x10", "9223372036854775808", "8388608T", "１M",
    "1_000",
  ])
  func `Invalid sizes`(text: String) {
    #expect(byteCount(text) == nil)
  }

  @Test(arguments: [0, 1, 1023, 1024, 1025, 1 << 20, 3 << 30, 1 << 40, (1 << 40) + 4096, 8_388_607 << 40])
  func `The text of a size reads back as the same size`(bytes: Int) {
    #expect(byteCount(sizeText(bytes)) == bytes)
  }

  @Test func `Times are printed briefly`() {
    #expect([1, 2, 0.5, 1e300].map(secondsText) == ["1 second", "2 seconds", "0.5 seconds", "1e+300 seconds"])
    #expect(
      [0, 7.4, 9.99, 9.996, 99.94, 99.96].map(timeText) == [
        "0.00 ns", "7.40 ns", "9.99 ns", "10.0 ns", "99.9 ns", "100 ns",
      ]
    )
    #expect([999.4, 999.6, 1234, 999_499].map(timeText) == ["999 ns", "1.00 µs", "1.23 µs", "999 µs"])
    #expect([999_500, 12_345_678, 3.2e9, 1.2e13].map(timeText) == ["1.00 ms", "12.3 ms", "3.20 s", "12000 s"])
  }

  @Test(
    arguments: [
      (["run", "a"], ["run", "a"], []),
      (["run", "a", "b", "--help"], ["run", "a"], ["b", "--help"]),
      (["run", "--stats", "a", "--stats"], ["run", "--stats=text", "a"], ["--stats"]),
      (["run", "--stats=json", "a", "--"], ["run", "--stats=json", "a"], ["--"]),
      (["run", "--memory", "1M", "--extra", "a", "x"], ["run", "--memory", "1M", "--extra", "a"], ["x"]),
      (["run", "--memory=1M", "a", "x"], ["run", "--memory=1M", "a"], ["x"]),
      (["run", "--with", "p=q", "a", "x"], ["run", "--with", "p=q", "a"], ["x"]),
      (["run", "--", "--memory", "x"], ["run", "--", "--memory"], ["x"]),
      (["run", "-", "x"], ["run", "-"], ["x"]),
      (["run", "--help", "a"], ["run", "--help", "a"], []),
      (["run", "--memory"], ["run", "--memory"], []),
      (["run"], ["run"], []), ([], [], []),
      (["list", "--stats", "a"], ["list", "--stats", "a"], []),
    ] as [([String], [String], [String])]
  )
  func `No argument after the task is the command's`(arguments: [String], own: [String], forTask: [String]) {
    let split = RunArguments.split(arguments)
    #expect(split.own == own && split.forTask == forTask)
  }

  @Test func `The options with values are known`() {
    // The help's format: "  --memory <size>".
    let help = Run.helpMessage(columns: 200)
    let options = help.matches(of: /(?m)^  (--[a-z-]+) </).map { String($0.1) }
    #expect(Set(options) == RunArguments.optionsWithValue.union(["--stats"]))
  }

  @Test func `The usual case skips the parser`() {
    #expect(RunRequest(plain: ["run", "noop", "--help"])?.arguments == [OutsideName("--help")])
    #expect(RunRequest(plain: ["run", "--extra", "noop"]) == nil)
    #expect(RunRequest(plain: ["run", "--", "noop"]) == nil)
    #expect(RunRequest(plain: ["run"]) == nil && RunRequest(plain: ["list", "run"]) == nil)
  }
}
