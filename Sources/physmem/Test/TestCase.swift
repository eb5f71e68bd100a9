// One case of a guest-side test program: a fresh machine, its tasks, and the checks after their end.

internal import Machine
internal import PhysicalMemory
internal import Synchronization

struct TestCase {
  let program: BundledProgram
  let test: GuestTest

  /// "program/case".
  var name: String { "\(program.name)/\(test.name)" }

  /// - Parameter filters: parts of names; none: all cases.
  static func matching(_ filters: [String], in programs: [BundledProgram]) -> [TestCase] {
    programs.filter { $0.group == "tests" }
      .flatMap { program in program.info.tests.map { TestCase(program: program, test: $0) } }
      .filter { testCase in filters.isEmpty || filters.contains { testCase.name.contains($0) } }
  }
}

/// The result of a case.
struct TestResult {
  let program: String
  let name: String
  let summary: String
  /// The failures, a line each; nil if it passed.
  let failure: String?
  /// The output of its tasks, as far as it was kept.
  let output: String
  let seconds: Double
}

extension TestResult {
  /// Runs the case.
  /// - Parameters:
  ///   - pace: records how fast the machine is.
  ///   - timeLimit: seconds after which tasks that have not ended are stopped.
  init(
    _ testCase: TestCase, configuration: MachineConfiguration, parameters: TaskParameters, pace: inout TestPace,
    timeLimit: (TestPace) -> Int
  ) {
    let output = CapturedOutput()
    let start = monotonicNanoseconds()
    var failures: [String] = []
    var configuration = configuration
    var parameters = parameters
    if let contract = testCase.test.contract {
      configuration.memory = contract.mebibytes << 20
      parameters.hasContract = true
      parameters.guaranteed = contract.guaranteed
      parameters.mayUseExtra = true
    }
    do {
      let disk = try testCase.test.diskOptions.map { try TestDisk($0, output) }
      if let disk { configuration.disks = [disk.configuration] }
      failures = try testCase.failures(on: try Machine(configuration), parameters, output) {
        pace.record(monotonicNanoseconds() - start)
        return timeLimit(pace)
      }
      withExtendedLifetime(disk) {}
    } catch {
      failures.append("the machine failed: \(error)")
    }
    program = testCase.program.name
    name = testCase.test.name
    summary = testCase.test.summary
    failure = failures.isEmpty ? nil : failures.joined(separator: "\n")
    self.output = output.text
    seconds = Double(monotonicNanoseconds() - start) / 1e9
  }
}

extension TestCase {
  /// Runs the case's tasks.
  /// - Parameter launched: called when they run; returns the time limit in seconds.
  /// - Returns: a sentence for each failure.
  fileprivate func failures(
    on machine: Machine, _ parameters: TaskParameters, _ output: CapturedOutput, launched: () -> Int
  ) throws(MachineError) -> [String] {
    var failures: [String] = []
    let before: ServerStatistics
    do throws(MachineError) {
      let image = try machine.load(name: program.name, bytes: program.bytes)
      before = machine.server.statistics
      let tasks = try launch(image, on: machine, parameters, output)
      guard wait(for: tasks, launched(), &failures) else {
        // The machine cannot be inspected or shut down with the task in it, so it is leaked.
        return failures + ["a task cannot be stopped"]
      }
    } catch {
      machine.shutDown()
      throw error
    }
    failures += machine.server.checkInvariants().map { "invariant: \($0)" }
    let after = machine.server.statistics
    failures += Self.leaks(before, after)
    if after.strayWrites > 0 { failures.append("\(after.strayWrites) frames were written after they were revoked") }
    machine.shutDown()
    // All copies usually fail alike.
    return failures.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
  }

  private func launch(
    _ image: Program,
    on machine: Machine,
    _ parameters: TaskParameters,
    _ output: CapturedOutput
  ) throws(MachineError) -> [GuestTask] {
    var tasks: [GuestTask] = []
    for _ in 0..<test.copies {
      tasks.append(try machine.launch(image, arguments: [test.name], parameters: parameters) { output.append($0) })
    }
    return tasks
  }

  /// Waits for all tasks, and stops those that exceed the limit: once one has failed, the others may wait for it
  /// in vain, and get a twelfth of the time.
  /// - Returns: false if one of them cannot be stopped.
  private func wait(for tasks: [GuestTask], _ timeLimit: Int, _ failures: inout [String]) -> Bool {
    var deadline = monotonicNanoseconds() + UInt64(timeLimit) * 1_000_000_000
    var running = tasks
    while !running.isEmpty {
      let now = monotonicNanoseconds()
      guard now < deadline else { return stop(running, timeLimit, &failures) }
      GuestTask.waitForAny(of: running, seconds: Double(deadline - now) / 1e9)
      running.removeAll { task in
        guard let end = task.wait(seconds: 0) else { return false }
        if let failure = failure(end) {
          failures.append(failure)
          deadline = min(deadline, monotonicNanoseconds() + UInt64(timeLimit) * 1_000_000_000 / 12)
        }
        return true
      }
    }
    return true
  }

  private func stop(_ tasks: [GuestTask], _ timeLimit: Int, _ failures: inout [String]) -> Bool {
    failures.append(failures.isEmpty ? "did not end within \(timeLimit) s" : "another task did not end after that")
    for task in tasks { task.stop(.timeLimit) }
    return tasks.allSatisfy { $0.wait(seconds: 5) != nil }
  }

  private func failure(_ end: TaskEnd) -> String? {
    if case .failed(let reason) = end { return "could not continue, because \(reason)" }
    if test.expectedStatuses.contains(end.exitStatus) { return nil }
    let expected = test.expectedStatuses.map { "\($0)" }.joined(separator: " or ")
    let report = if case .died(let report) = end { "\n" + report.text } else { "" }
    return "status \(end.exitStatus) instead of \(expected)\(report)"
  }

  /// Checks that all the tasks' resources are back: the statistics must equal those after loading the program.
  private static func leaks(_ before: ServerStatistics, _ after: ServerStatistics) -> [String] {
    let counts = [
      ("tasks", before.tasks, after.tasks), ("claimed frames", before.claimedFrames, after.claimedFrames),
      ("contents", before.contents, after.contents), ("containers", before.containers, after.containers),
    ]
    return counts.filter { $0.1 != $0.2 }.map { "leak: \($0.0): \($0.1) before the tasks, \($0.2) after their end" }
  }
}

/// The output of a case's tasks, all together.
final class CapturedOutput: Sendable {
  /// The rest is not kept: the output is for people.
  private static let mostBytes = 64 << 10
  private let bytes = Mutex<[UInt8]>([])

  func append(_ more: [UInt8]) {
    bytes.withLock { $0 += more.prefix(Self.mostBytes - $0.count) }
  }

  var text: String { String(decoding: bytes.withLock { $0 }, as: UTF8.self) }
}
