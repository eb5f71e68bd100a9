// `physmem run`: one task, with its companions and devices.

internal import ArgumentParser
internal import Machine
internal import PhysicalMemory

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a guest task, and exit with its status.",
    usage: "physmem run [<options>] <task> [<argument> ...]",
    discussion: """
      The task's output goes to standard output. A task that dies of a fault or an exception ends with 128 + the \
      exception's number and a report on standard error; one that is stopped by the time limit with 192, and \
      one that does not return frames in time with 194.
      """
  )

  @Option(
    help: ArgumentHelp("The machine's memory, from 1M to 4T (default: 256M).", valueName: "size"),
    transform: { try parseSize($0, in: MachineConfiguration.leastMemory...MachineConfiguration.mostMemory) }
  )
  var memory: Int?

  @Option(
    help: ArgumentHelp("Frames of 4096 bytes that the task always gets.", valueName: "frames"),
    transform: { try parseCount($0, of: "frames", in: 0...(1 << 30)) }
  )
  var guaranteed: Int?

  @Flag(
    help: "Let the task have frames beyond its guarantee. Without this and --guaranteed it may have all free frames."
  )
  var extra = false

  @Option(
    help: ArgumentHelp(
      "Start the bundled policy-server first, which sets guarantees, with this file of quotas (see "
        + "docs/reference/policy.md).", valueName: "file")
  )
  var policy: OutsideName?

  @Option(
    name: .customLong("with"),
    help: ArgumentHelp(
      "Start another task first. May be repeated; its output goes to standard error.",
      valueName: "name=task"
    ),
    transform: Companion.init
  )
  var companions: [Companion] = []

  @Option(
    name: .customLong("disk"),
    help: ArgumentHelp(
      "Give the machine a disk: a file, followed by readonly or address-bits=24, 32 or 64 after commas. May be repeated; "
        + "the disks are the drivers' devices 0, 1, … (see docs/reference/disk.md).", valueName: "image"),
    transform: DiskArgument.init
  )
  var disks: [DiskArgument] = []

  @Option(help: ArgumentHelp("Stop the task after this time.", valueName: "seconds"), transform: parseSeconds)
  var timeout: Double?

  @Option(
    help: ArgumentHelp(
      "How long a task may take to return frames, from 1 to 10000 ms, before it is dropped (default: 100).",
      valueName: "milliseconds"),
    transform: { try parseCount($0, of: "milliseconds", in: 1...10_000) }
  )
  var deadline: Int?

  @Option(
    help: ArgumentHelp(
      "Print statistics of the task and the server on standard error: --stats, or --stats=json.",
      valueName: "text|json"
    )
  )
  var stats: StatisticsFormat?

  @Option(
    help: ArgumentHelp(
      "Pages that one fault fills in, from 1 to \(FaultAround.most), or auto.",
      valueName: "pages|auto"
    ),
    transform: parseFaultAround
  )
  var faultAround: FaultAround = .automatic

  @Option(
    help: ArgumentHelp(
      "Write a timeline of the task's faults and calls to this file, as trace events.", valueName: "file")
  )
  var trace: OutsideName?

  @OptionGroup(title: "Switches for tests")
  var switches: TestSwitches

  @Argument(help: "A bundled program (see `physmem list`) or a program's file.")
  var task: OutsideName

  /// All arguments after the task: `RunArguments.split` keeps them from being parsed.
  @Argument(help: ArgumentHelp("The task's arguments.", valueName: "argument"))
  var arguments: [String] = []

  func validate() throws {
    guard disks.count <= MachineConfiguration.mostDisks else {
      throw ValidationError("give --disk at most \(MachineConfiguration.mostDisks) times")
    }
  }

  func run() throws {
    var request = RunRequest(task: task)
    request.arguments = arguments.map { OutsideName($0) }
    if let memory { request.machine.memory = memory }
    request.parameters.faultAround = faultAround
    if guaranteed != nil || extra {
      request.parameters.hasContract = true
      request.parameters.guaranteed = guaranteed ?? 0
      request.parameters.mayUseExtra = extra
    }
    if let deadline { request.machine.reclaim.timeLimit = UInt64(deadline) * 1_000_000 }
    switches.apply(to: &request.machine)
    switches.apply(to: &request.parameters)
    request.trace = trace
    request.disks = disks
    request.policy = policy
    request.companions = companions
    request.timeout = timeout
    request.statistics = stats
    throw ExitCode(try request.perform())
  }
}

extension StatisticsFormat: ExpressibleByArgument {}

/// A task that runs beside the main one.
struct Companion: Equatable {
  /// The name that other tasks know it by.
  let name: OutsideName
  let task: OutsideName

  init(_ text: String) throws {
    let parts = text.split(separator: "=", maxSplits: 1).map { OutsideName($0) }
    guard parts.count == 2, !text.hasPrefix("=") else {
      throw ValidationError("give a name and a task, such as policy=policy-server")
    }
    name = parts[0]
    task = parts[1]
  }
}

private func parseFaultAround(_ text: String) throws -> FaultAround {
  if text == "auto" { return .automatic }
  guard let pages = Int(text), (1...FaultAround.most).contains(pages) else {
    throw ValidationError("give a number of pages from 1 to \(FaultAround.most), or auto")
  }
  return .fixed(pages)
}
