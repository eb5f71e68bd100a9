// `physmem bench`: measures the machine's operations on this host.

internal import ArgumentParser

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the cost of faults, calls, upcalls, launches and allocations.",
    discussion: "The benchmarks are \(BenchmarkGroup.names). Without a name all run."
  )

  @Argument(help: ArgumentHelp("The benchmarks to run.", valueName: "name"))
  var names: [String] = []

  @Flag(
    help:
      "Print one JSON object: {\"host\":{…},\"benchmarks\":[{\"name\",\"unit\",\"per\",\"count\",\"min\",…},…]}."
  )
  var json = false

  @Flag(help: "Measure briefly, to check that every benchmark works.")
  var quick = false

  func run() throws {
    for name in names where BenchmarkGroup(rawValue: name) == nil {
      throw CommandFailure.usage("there is no benchmark \(quoted(name)): name some of \(BenchmarkGroup.names)")
    }
    let run = BenchmarkRun(isQuick: quick)
    var measurements: [Measurement] = []
    for group in BenchmarkGroup.allCases where names.isEmpty || names.contains(group.rawValue) {
      measurements += try group.measure(run)
    }
    run.progress.clear()
    let host = BenchmarkHost(.live)
    StandardStream.output.write(
      json
        ? benchmarksJSON(host, measurements).description + "\n"
        : host.text + "\n\n" + benchmarksTable(measurements)
    )
  }
}

enum BenchmarkGroup: String, CaseIterable {
  case fault, hypercall, upcall, launch, alloc, cow, move, superpage, reclaim, ipc, disk

  static var names: String { allCases.map(\.rawValue).joined(separator: " ") }

  func measure(_ run: BenchmarkRun) throws -> [Measurement] {
    switch self {
    case .fault: try measureFaults(run)
    case .hypercall: try measureCalls(run)
    case .upcall: try measureUpcalls(run)
    case .launch: try measureLaunches(run)
    case .alloc: try measureAllocation(run) + measureStarts(run)
    case .cow: try measureCopies(run)
    case .move: try measureMoves(run)
    case .superpage: try measureSuperpages(run)
    case .reclaim: try measureReclaim(run)
    case .ipc: try measureMessages(run)
    case .disk: try measureDisk(run)
    }
  }
}

/// How thoroughly to measure, and where to show progress.
struct BenchmarkRun {
  let isQuick: Bool
  let progress = Progress()

  /// Runs `body` that many times, or fewer in a quick run.
  func times(_ count: Int, quick: Int, _ name: String, _ body: () throws -> Void) rethrows {
    let count = isQuick ? quick : count
    for done in 0..<count {
      progress.show("\(name)  \(done)/\(count)")
      try body()
    }
  }
}
