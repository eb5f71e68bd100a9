// The output of `physmem list`, `test` and `bench`, without a machine.

import Testing

@testable import physmem

@Suite struct ReportTests {
  @Test func `The list has all groups`() throws {
    let result = try CommandResult("list")
    #expect(result.status == 0 && result.error == "")
    let lines = result.output.split(separator: "\n")
    #expect(lines.first?.hasPrefix("group ") == true)
    #expect(
      ["tests", "examples", "servers", "bench"].allSatisfy { group in lines.contains { $0.hasPrefix(group + " ") } })
    #expect(lines.contains { $0.contains(/^bench +noop +Does nothing/) })
    #expect(lines.contains { $0.contains(/^tests +\w+ +\d+ cases?/) })
    #expect(try CommandResult("list", "--json").output.hasPrefix(#"{"programs":[{"group":"tests","name":""#))
  }

  private func result(_ program: String, _ name: String, failure: String? = nil, output: String = "") -> TestResult {
    TestResult(program: program, name: name, summary: "R1: x", failure: failure, output: output, seconds: 0.0125)
  }

  @Test func `A line for each case, with its failures below`() {
    #expect(result("a", "b").line(nameWidth: 5) == "a/b    passed     13 ms  R1: x\n")
    #expect(
      result("a", "b", failure: "first\n\nsecond", output: "x\u{1b}[1m\r\ny\t\u{9b}\n").line(nameWidth: 3) == """
        a/b  failed     13 ms  R1: x
          first
          second
          output:
            x?[1m
            y??

        """
    )
  }

  @Test func `JUnit has one suite for each program`() {
    let text = junitText([
      result("p", "a"), result("p", "b", failure: "1 < 2\nmore", output: "\0\u{1b}&"),
      result("q", "\"c\"", output: "x"),
    ])
    #expect(
      text == """
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="physmem" tests="3" failures="1" errors="0" time="0.0375">
          <testsuite name="p" tests="2" failures="1" errors="0" time="0.025">
            <testcase classname="p" name="a" time="0.0125"/>
            <testcase classname="p" name="b" time="0.0125">
              <failure message="1 &lt; 2">1 &lt; 2
        more</failure>
              <system-out>\u{fffd}\u{fffd}&amp;</system-out>
            </testcase>
          </testsuite>
          <testsuite name="q" tests="1" failures="0" errors="0" time="0.0125">
            <testcase classname="q" name="&quot;c&quot;" time="0.0125">
              <system-out>x</system-out>
            </testcase>
          </testsuite>
        </testsuites>

        """
    )
  }

  @Test(arguments: [
    ("plain µ 😀", "plain µ 😀"), ("<a href=\"&\">", "&lt;a href=&quot;&amp;&quot;&gt;"), ("]]>", "]]&gt;"),
    ("a\tb\nc\r\nd", "a\tb\nc&#13;\nd"),
    ("\0\u{1}\u{8}\u{b}\u{1f}\u{7f}\u{85}", String(repeating: "\u{fffd}", count: 7)),
    ("\u{fffe}\u{ffff}", "\u{fffd}\u{fffd}"), ("", ""),
  ])
  func `Characters that XML cannot represent are replaced`(text: String, escaped: String) {
    #expect(xmlEscaped(text) == escaped)
  }

  @Test func `JSON of tests`() {
    #expect(
      testsJSON([result("p", "a"), result("p", "b", failure: "x", output: "y")]).description
        == #"{"passed":1,"failed":1,"tests":["#
        + #"{"program":"p","name":"a","summary":"R1: x","passed":true,"seconds":0.0125,"failure":null,"output":""},"#
        + #"{"program":"p","name":"b","summary":"R1: x","passed":false,"seconds":0.0125,"failure":"x","output":"y"}]}"#
    )
  }

  @Test func `Cases are found by parts of their names`() throws {
    let programs = try BundledProgram.all()
    let all = TestCase.matching([], in: programs)
    #expect(all.count > 100 && Set(all.map(\.name)).count == all.count)
    #expect(TestCase.matching(["stack/over"], in: programs).map(\.name) == ["stack/overflow"])
    #expect(TestCase.matching(["stack/", "heap/"], in: programs).map(\.program.name).contains("heap"))
    #expect(TestCase.matching(["noop"], in: programs).isEmpty)
  }

  @Test func `Percentiles are ordered, and exact enough`() {
    var measurement = Measurement("x", per: .page)
    #expect(measurement.values.isEmpty)
    for value in 1...1000 { measurement.record(nanoseconds: Double(value)) }
    measurement.record(nanoseconds: 7.5, count: 10)
    #expect(measurement.count == 1010)
    let values = measurement.values.map(\.nanoseconds)
    #expect(measurement.values.map(\.name) == ["min", "p50", "p90", "p99", "max"] && values == values.sorted())
    for (value, exact) in zip(values, [1, 495, 899, 990, 1000] as [Double]) { #expect(abs(value / exact - 1) < 0.002) }
    measurement.record(nanoseconds: -5)
    #expect(measurement.values.first?.nanoseconds == 0)
  }

  @Test func `The table of benchmarks right-aligns its numbers`() {
    var first = Measurement("a", per: .page)
    first.record(nanoseconds: 7.5)
    var second = Measurement("longer", per: .operation)
    second.record(nanoseconds: 123_456, count: 100)
    second.residentBytes = 4096
    let lines = benchmarksTable([first, second, Measurement("none", per: .frame)]).split(separator: "\n")
    #expect(
      lines[1].hasPrefix("a          page           1  7.50 ns ")
        && lines[2].hasPrefix("longer     operation    100   123 µs ")
    )
    #expect(
      lines[2].hasSuffix("4 KiB resident") && lines[3].hasSuffix(" 0        -        -        -        -        -")
    )
    #expect(
      first.json.description
        == #"{"name":"a","unit":"ns","per":"page","count":1,"min":7.5,"p50":7.5,"p90":7.5,"p99":7.5,"max":7.5}"#
    )
  }
}
