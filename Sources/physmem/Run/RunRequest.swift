// Running a task for `physmem run`: from its name to an exit status.

internal import ArgumentParser
internal import Machine
internal import PhysicalMemory

struct RunRequest {
  var task: OutsideName
  var arguments: [OutsideName] = []
  var machine = MachineConfiguration()
  var parameters = TaskParameters()
  var companions: [Companion] = []
  /// In seconds.
  var timeout: Double?
  var statistics: StatisticsFormat?
  var policy: OutsideName?
  var trace: OutsideName?
  var disks: [DiskArgument] = []

  init(task: OutsideName) { self.task = task }

  /// "run TASK [ARG…]" without options, so that ArgumentParser, which takes longer than a small task, is not needed.
  /// nil for all else.
  init?(plain arguments: [String]) {
    guard arguments.count >= 2, arguments[0] == "run", !arguments[1].hasPrefix("-") else { return nil }
    task = OutsideName(arguments[1])
    self.arguments = arguments[2...].map { OutsideName($0) }
  }

  /// Runs the task and reports its end.
  /// - Returns: the exit status.
  func perform() throws -> Int32 {
    var programs = Programs()
    try programs.read(task)
    let policyText = try policy.map { try PolicyText(path: $0).text }
    for companion in companions { try programs.read(companion.task) }
    let traceFile = try trace.map { try ReportFile(path: $0, inputs: inputs) }
    var configuration = self.machine
    configuration.keepsFragmentation = statistics != nil
    configuration.measuresHolds = statistics != nil
    configuration.disks = try disks.map { try $0.open() }
    let machine = try Machine(configuration)
    let program = try programs.load(task, on: machine)
    // Loads all before one runs, into frames that no task has borrowed yet.
    let companionPrograms = try companions.map { try programs.load($0.task, on: machine) }
    var running: [RunningCompanion] = []
    if let policyText { running.append(try startPolicyServer(policyText, on: machine)) }
    for (companion, program) in zip(companions, companionPrograms) {
      running.append(try RunningCompanion(companion, program, keepsMappings: parameters.keepsMappings, on: machine))
    }
    let task = try machine.launch(
      program, byteArguments: arguments.map(\.bytes), parameters: parameters, isMeasured: traceFile != nil
    ) {
      StandardStream.output.write($0)
    }
    let end = wait(for: task)
    if let sentence = end.account(of: self.task, timeout: timeout) { say(sentence + "\n") }
    let deaths = running.compactMap { $0.death(hasTimeLimit: timeout != nil) }
    if let traceFile, let samples = task.samples { try traceFile.write(traceText(samples, task: self.task)) }
    if let statistics {
      say(
        RunStatistics(task.counters, machine.server.statistics, task.fragmentation ?? machine.server.fragmentation)
          .text(as: statistics))
    }
    // A task that exits with 0 does not hide the death of a companion.
    return end.exitStatus != 0 ? end.exitStatus : deaths.first ?? 0
  }

  /// Files that are read, and so must not be overwritten.
  private var inputs: [OutsideName] {
    [task] + companions.map(\.task) + disks.map(\.path) + [policy].compactMap(\.self)
  }

  private func wait(for task: GuestTask) -> TaskEnd {
    guard let timeout else { return task.wait() }
    if let end = task.wait(seconds: timeout) { return end }
    task.stop(.timeLimit)
    // A task stops at once, unless it is ending. Then it may wait for other tasks to release its resources, at most ten
    // seconds, or for a disk's file, which may take any time.
    return task.wait(seconds: 15) ?? .stopped(.timeLimit)
  }

  /// Writes to standard error at the end. With a time limit it does not wait forever for a slow reader.
  private func say(_ text: String) {
    if timeout == nil {
      StandardStream.error.write(text)
    } else {
      attempt(seconds: 1) { StandardStream.error.write(text) }
    }
  }

  /// Starts the bundled policy server and waits until its policy is in force, so that later tasks have their quotas
  /// from the start.
  /// - Throws: the exit status, if it ends instead; it has printed why.
  private func startPolicyServer(_ text: String, on machine: Machine) throws -> RunningCompanion {
    let companion = try Companion("policy=policy-server")
    var programs = Programs()
    try programs.read(companion.task)
    let running = try RunningCompanion(
      companion, programs.load(companion.task, on: machine), arguments: [text], keepsMappings: parameters.keepsMappings,
      on: machine)
    // Its start takes some milliseconds; it can only be polled.
    while machine.server.statistics.policyCommits == 0 {
      if let end = running.task.wait(seconds: 0.001) { throw ExitCode(end.exitStatus) }
    }
    return running
  }
}

extension TaskEnd {
  /// The message for standard error; nil for a task that exited by itself.
  func account(of task: OutsideName, timeout: Double?) -> String? {
    switch self {
    case .exited, .stopped(.machineEnd): nil
    case .died(let report): report.text
    case .stopped(.dropped(let missing)):
      "physmem: \(task) was dropped before it started, because \(missing) frames were demanded from it"
    case .stopped(.timeLimit):
      "physmem: \(task) did not end within \(secondsText(timeout ?? 0)) and was stopped"
    case .failed(let reason): "physmem: \(task) could not continue, because \(reason)"
    }
  }
}
