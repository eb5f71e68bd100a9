// `physmem test`: the guest-side tests.

internal import ArgumentParser
internal import Machine
internal import PhysicalMemory

struct TestCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "test",
    abstract: "Run the bundled guest-side tests, each case in its own machine.",
    discussion: "Exits with 1 if a case failed. The last line is \"N passed, N failed\"."
  )

  @Argument(help: ArgumentHelp("Run the cases whose \"program/case\" contains one of these.", valueName: "filter"))
  var filters: [String] = []

  @Option(
    help: ArgumentHelp(
      "Leave out the cases whose \"program/case\" contains this. May be repeated.", valueName: "filter")
  )
  var except: [String] = []

  @Option(help: ArgumentHelp("Write a JUnit report to this file.", valueName: "file"))
  var junit: OutsideName?

  @Flag(help: "Print one JSON object, and the last line on standard error.")
  var json = false

  @Flag(name: .shortAndLong, help: "List each case with its time.")
  var verbose = false

  @Option(
    help: ArgumentHelp("The memory of each case's machine, from 1M to 4T (default: 256M).", valueName: "size"),
    transform: { try parseSize($0, in: MachineConfiguration.leastMemory...MachineConfiguration.mostMemory) }
  )
  var memory: Int?

  @Option(
    help: ArgumentHelp(
      "Stop a case's tasks after that time, and fail it (default: by the machine's speed, at least 120).",
      valueName: "seconds"),
    transform: { try parseCount($0, of: "seconds", in: 1...86_400) }
  )
  var timeout: Int?

  @Option(
    help: ArgumentHelp(
      "How long a task may take to return frames, 1 to 10000 (default: by the machine's speed, at least 100).",
      valueName: "ms"),
    transform: { try parseCount($0, of: "milliseconds", in: 1...10_000) }
  )
  var deadline: Int?

  /// In milliseconds: a handler whose pages the server takes has a fault for each of them.
  private var usualDeadline: Int { switches.revokeEvery == nil ? 100 : 300 }

  @OptionGroup(title: "Switches for tests")
  var switches: TestSwitches

  func run() throws {
    let programs = try BundledProgram.all()
    if let broken = programs.first(where: { $0.info.malformedTests > 0 }) {
      // A test that never runs must not look like one that passes.
      throw CommandFailure.failure("a test of \(broken.name) is malformed: correct its PM_TEST in guest/tests")
    }
    let cases = TestCase.matching(filters, in: programs)
      .filter { testCase in !except.contains { testCase.name.contains($0) } }
    if cases.isEmpty {
      let names = filters.map(quoted).joined(separator: " or ")
      throw CommandFailure.usage(
        "no test case's name contains \(names): see `physmem list` for the programs with tests"
      )
    }
    // Checked before the tests run: a report that cannot be written is useless.
    let report = try junit.map { try ReportFile(path: $0) }
    let results = run(cases)
    try report?.write(junitText(results))
    let failed = results.count { $0.failure != nil }
    let count = "\(results.count - failed) passed, \(failed) failed\n"
    if json {
      StandardStream.output.write(testsJSON(results).description + "\n")
      StandardStream.error.write(count)
    } else {
      StandardStream.output.write(count)
    }
    if failed > 0 { throw ExitCode.failure }
  }

  /// Runs the cases one after the other, and prints their results.
  private func run(_ cases: [TestCase]) -> [TestResult] {
    let progress = Progress()
    var configuration = MachineConfiguration()
    if let memory { configuration.memory = memory }
    switches.apply(to: &configuration)
    var parameters = TaskParameters()
    switches.apply(to: &parameters)
    // A server that unmaps pages all the time is slow.
    let leastLimit = configuration.revocationInterval == nil ? 120 : 300
    var pace = TestPace()
    let width = cases.map(\.name.count).max() ?? 0
    var results: [TestResult] = []
    for testCase in cases {
      progress.show("\(results.count)/\(cases.count)  \(testCase.name)")
      configuration.reclaim.timeLimit = UInt64(deadline ?? usualDeadline * min(pace.slowness, 20)) * 1_000_000
      let result = TestResult(testCase, configuration: configuration, parameters: parameters, pace: &pace) {
        timeout ?? leastLimit * $0.slowness
      }
      results.append(result)
      if json { continue }
      if verbose || result.failure != nil {
        progress.clear()
        StandardStream.output.write(result.line(nameWidth: width))
      }
    }
    progress.clear()
    return results
  }
}
