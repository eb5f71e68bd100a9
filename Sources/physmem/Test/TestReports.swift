// The reports of `physmem test`: lines for people, JSON, and JUnit's XML for CI.

extension TestResult {
  /// The case's line, and its failures below.
  func line(nameWidth: Int) -> String {
    let name = "\(program)/\(name)"
    let padding = String(repeating: " ", count: max(0, nameWidth - name.count))
    let verdict = failure == nil ? "passed" : "failed"
    var text = "\(name)\(padding)  \(verdict)  \(milliseconds)  \(summary)\n"
    guard let failure else { return text }
    text += Self.indented(failure)
    if !output.isEmpty { text += Self.indented("output:") + Self.indented(output, by: 4) }
    return text
  }

  private var milliseconds: String {
    let number = "\(Int((seconds * 1000).rounded()))"
    return String(repeating: " ", count: max(0, 5 - number.count)) + number + " ms"
  }

  private static func indented(_ text: String, by count: Int = 2) -> String {
    text.split(whereSeparator: \.isNewline)
      .map { String(repeating: " ", count: count) + printable($0) + "\n" }.joined()
  }

  /// Replaces characters that control a terminal.
  private static func printable(_ line: Substring) -> String {
    var text = ""
    for scalar in line.unicodeScalars {
      text.unicodeScalars.append(scalar.properties.generalCategory == .control ? "?" : scalar)
    }
    return text
  }
}

/// `{"passed":…,"failed":…,"tests":[{"program","name","summary","passed","seconds","failure","output"},…]}`
func testsJSON(_ results: [TestResult]) -> JSONValue {
  let failed = results.count { $0.failure != nil }
  let tests = results.map { result -> JSONValue in
    [
      "program": .string(result.program), "name": .string(result.name), "summary": .string(result.summary),
      "passed": .bool(result.failure == nil), "seconds": .double(rounded(result.seconds)),
      "failure": result.failure.map { .string($0) } ?? .null, "output": .string(result.output),
    ]
  }
  return ["passed": .integer(results.count - failed), "failed": .integer(failed), "tests": .array(tests)]
}

private func rounded(_ seconds: Double) -> Double { (seconds * 1e6).rounded() / 1e6 }

// MARK: JUnit

/// One test suite per program, in the dialect that CI servers read (the Ant task's, with `classname`).
func junitText(_ results: [TestResult]) -> String {
  var text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
  text += "<testsuites name=\"physmem\"\(junitCounts(results))>\n"
  var rest = results[...]
  while let first = rest.first {
    let suite = rest.prefix { $0.program == first.program }
    rest = rest.dropFirst(suite.count)
    text += "  <testsuite name=\"\(xmlEscaped(first.program))\"\(junitCounts(suite))>\n"
    for result in suite { text += junitCase(result) }
    text += "  </testsuite>\n"
  }
  return text + "</testsuites>\n"
}

private func junitCounts(_ results: some Collection<TestResult>) -> String {
  let failed = results.count { $0.failure != nil }
  let seconds = results.reduce(0) { $0 + $1.seconds }
  return " tests=\"\(results.count)\" failures=\"\(failed)\" errors=\"0\" time=\"\(rounded(seconds))\""
}

private func junitCase(_ result: TestResult) -> String {
  let attributes = [
    ("classname", xmlEscaped(result.program)), ("name", xmlEscaped(result.name)),
    ("time", "\(rounded(result.seconds))"),
  ].map { "\($0)=\"\($1)\"" }.joined(separator: " ")
  var content = ""
  if let failure = result.failure {
    let message = failure.prefix { !$0.isNewline }
    content += "      <failure message=\"\(xmlEscaped(message))\">\(xmlEscaped(failure))</failure>\n"
  }
  if !result.output.isEmpty { content += "      <system-out>\(xmlEscaped(result.output))</system-out>\n" }
  return content.isEmpty
    ? "    <testcase \(attributes)/>\n" : "    <testcase \(attributes)>\n\(content)    </testcase>\n"
}

/// Text for content and attributes. XML 1.0 cannot represent most control characters: they become U+FFFD.
func xmlEscaped(_ string: some StringProtocol) -> String {
  var text = ""
  for scalar in string.unicodeScalars {
    switch scalar {
    case "&": text += "&amp;"
    case "<": text += "&lt;"
    case ">": text += "&gt;"
    case "\"": text += "&quot;"
    case "\t", "\n": text.unicodeScalars.append(scalar)
    // A bare one would be read as a newline.
    case "\r": text += "&#13;"
    case "\0"..."\u{1f}", "\u{7f}"..."\u{9f}", "\u{fffe}", "\u{ffff}": text += "\u{fffd}"
    default: text.unicodeScalars.append(scalar)
    }
  }
  return text
}
