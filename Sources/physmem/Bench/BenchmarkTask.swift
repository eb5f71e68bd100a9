// Runs one of the bundled benchmark programs and returns its exits.

internal import Machine
internal import PhysicalMemory

/// A benchmark program, loaded into a machine.
struct BenchmarkTask {
  let machine: Machine
  private let program: Program

  /// - Parameter name: the name of a bundled program.
  init(_ name: String, on machine: Machine) throws {
    let file = try TaskFile(OutsideName(name))
    self.machine = machine
    program = try machine.load(name: name, bytes: file.bytes)
  }

  /// Starts the program as a partner of another one.
  func start(
    _ arguments: [String] = [], _ parameters: TaskParameters = TaskParameters(), isMeasured: Bool = false,
    console: @escaping Console = { _ in }
  ) throws -> GuestTask {
    try machine.launch(
      program, arguments: arguments, parameters: parameters, isMeasured: isMeasured, console: console)
  }

  /// The cost of checking an entitlement and charging a frame with that many tasks; nil if there is no memory.
  func entitlementCosts(tasks: Int, rows: Int) -> [Double]? {
    machine.entitlementCosts(program, tasks: tasks, rows: rows)
  }

  /// Runs the program once, to its end.
  func run(_ arguments: [String] = [], _ parameters: TaskParameters = TaskParameters()) throws -> ExitSamples {
    let task = try machine.launch(program, arguments: arguments, parameters: parameters, isMeasured: true) { _ in }
    let end = task.wait()
    guard case .exited(status: 0) = end, let samples = task.samples else {
      throw CommandFailure.failure(
        "the benchmark program \(program.name) ended with \(end.exitStatus) instead of 0: see `physmem test`"
      )
    }
    return samples
  }
}

extension ExitSamples {
  /// The last row of exits of one kind that is longer than `length`.
  func lastRow(of kind: ExitSample.Kind, longerThan length: Int) -> ArraySlice<ExitSample> {
    samples.split { $0.kind != kind }.last { $0.count > length } ?? []
  }

  /// The longest row of exits of one kind: the part that the program measures, without its start and end.
  func longestRow(of kind: ExitSample.Kind) -> ArraySlice<ExitSample> {
    var longest = samples[0..<0]
    var start = 0
    for index in 0...samples.count where index == samples.count || samples[index].kind != kind {
      if index - start > longest.count { longest = samples[start..<index] }
      start = index + 1
    }
    return longest
  }
}
