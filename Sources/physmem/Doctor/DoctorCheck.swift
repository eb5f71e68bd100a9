// One finding of the doctor, and the report of all.

/// A finding about the machine.
struct DoctorCheck: Equatable {
  enum Verdict: String {
    case ok
    /// physmem runs, but slower, with fewer tasks, or with some of the host's state visible to tasks.
    case warning
    /// physmem cannot run.
    case missing
  }

  let name: String
  let verdict: Verdict
  /// The finding.
  let detail: String
  /// The remedy; empty if none is needed.
  let advice: String

  static func ok(_ name: String, _ detail: String) -> DoctorCheck {
    DoctorCheck(name: name, verdict: .ok, detail: detail, advice: "")
  }

  static func warning(_ name: String, _ detail: String, advice: String) -> DoctorCheck {
    DoctorCheck(name: name, verdict: .warning, detail: detail, advice: advice)
  }

  static func missing(_ name: String, _ detail: String, advice: String) -> DoctorCheck {
    DoctorCheck(name: name, verdict: .missing, detail: detail, advice: advice)
  }
}

/// All findings, for people and for programs.
struct DoctorReport {
  let checks: [DoctorCheck]

  init(_ facts: DoctorFacts) { checks = kvmChecks(facts) + hostChecks(facts) }

  /// Whether physmem can run.
  var isOK: Bool { !checks.contains { $0.verdict == .missing } }

  /// `{"ok":…,"checks":[{"name":…,"verdict":"ok|warning|missing","detail":…,"advice":…},…]}`
  var json: JSONValue {
    let checks = checks.map { check -> JSONValue in
      [
        "name": .string(check.name), "verdict": .string(check.verdict.rawValue), "detail": .string(check.detail),
        "advice": .string(check.advice),
      ]
    }
    return ["ok": .bool(isOK), "checks": .array(checks)]
  }

  /// A table, the remedies, and the conclusion as the last line.
  var text: String {
    var text = alignedTable(
      [["check", "verdict", "detail"]] + checks.map { [$0.name, $0.verdict.rawValue, $0.detail] }
    )
    let open = checks.filter { $0.verdict != .ok }
    if !open.isEmpty { text += "\nwhat to do:\n" }
    for check in open { text += "  \(check.name): \(check.advice)\n" }
    return text + "\n" + conclusion
  }

  private var conclusion: String {
    let missing = checks.filter { $0.verdict == .missing }.map(\.name)
    if !missing.isEmpty { return "this machine cannot run physmem, because of: " + missing.joined(separator: ", ") }
    switch checks.count(where: { $0.verdict == .warning }) {
    case 0: return "this machine can run physmem"
    case 1: return "this machine can run physmem, with 1 warning"
    case let count: return "this machine can run physmem, with \(count) warnings"
    }
  }
}
