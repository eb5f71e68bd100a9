// Running a task for `physmem run`: from its name to an exit status.

internal import Machine
internal import PhysicalMemory

struct RunRequest {
  var task: String
  var arguments: [String] = []
  var machine = MachineConfiguration()
  var parameters = TaskParameters()
  var companions: [Companion] = []
  /// In seconds.
  var timeout: Double?
  var statistics: StatisticsFormat?
  /// A file's path.
  var policy: String?
  /// A file's path.
  var trace: String?
  var disks: [DiskArgument] = []

  init(task: String) { self.task = task }

  /// "run TASK [ARG…]", without options: nothing that ArgumentParser must look at, and it takes longer to say so than
  /// a small task takes to run. nil for all else.
  init?(plain arguments: [String]) {
    guard arguments.count >= 2, arguments[0] == "run", !arguments[1].hasPrefix("-") else { return nil }
    task = arguments[1]
    self.arguments = Array(arguments[2...])
  }

  /// Runs the task and says how it ended.
  /// - Returns: what to exit with.
  func perform() throws -> Int32 {
    let file = try TaskFile(task)
    let policyText = try policy.map { try PolicyText(path: $0).text }
    let companionFiles = try companions.map { try TaskFile($0.task) }
    let traceFile = try trace.map { try ReportFile(path: $0) }
    var configuration = self.machine
    configuration.keepsFragmentation = statistics != nil
    configuration.disks = try disks.map { try $0.open() }
    let machine = try Machine(configuration)
    let program = try machine.load(name: file.name, bytes: file.bytes)
    // All of them before one runs: they are loaded into frames that nobody has borrowed yet.
    let companionPrograms = try companionFiles.map { try machine.load(name: $0.name, bytes: $0.bytes) }
    if let policyText, let status = try startPolicyServer(policyText, on: machine) { return status }
    for (companion, program) in zip(companions, companionPrograms) {
      try start(companion, program: program, on: machine)
    }
    let task = try machine.launch(
      program, arguments: arguments, parameters: parameters, isMeasured: traceFile != nil
    ) {
      StandardStream.output.write($0)
    }
    let end = wait(for: task)
    if let sentence = end.account(of: self.task, timeout: timeout) { say(sentence + "\n") }
    if let traceFile, let samples = task.samples { try traceFile.write(traceText(samples, task: self.task)) }
    if let statistics {
      say(
        RunStatistics(task.counters, machine.server.statistics, task.fragmentation ?? machine.server.fragmentation)
          .text(as: statistics))
    }
    return end.exitStatus
  }

  private func wait(for task: GuestTask) -> TaskEnd {
    guard let timeout else { return task.wait() }
    if let end = task.wait(seconds: timeout) { return end }
    task.stop(.timeLimit)
    // It stops at once, unless it was at its end anyway. Then it may wait for others to let go of what it has, ten seconds
    // at most, or for a disk's file, which may take any time.
    return task.wait(seconds: 15) ?? .stopped(.timeLimit)
  }

  /// Writes to standard error, at the end. With a time limit nobody waits for ever for a reader.
  private func say(_ text: String) {
    if timeout == nil {
      StandardStream.error.write(text)
    } else {
      attempt(seconds: 1) { StandardStream.error.write(text) }
    }
  }

  /// Starts the bundled policy server and waits until its policy is in force: the tasks that follow have their quotas
  /// from their beginning.
  /// - Returns: what to exit with, if it ends instead; it has said why.
  private func startPolicyServer(_ text: String, on machine: Machine) throws -> Int32? {
    let companion = try Companion("policy=policy-server")
    let file = try TaskFile(companion.task)
    let task = try start(
      companion, program: machine.load(name: file.name, bytes: file.bytes), arguments: [text], on: machine)
    // Its start is some milliseconds, its end the only thing there is to wait for.
    while machine.server.statistics.policyCommits == 0 {
      if let end = task.wait(seconds: 0.001) { return end.exitStatus }
    }
    return nil
  }

  /// The companion goes on until the command leaves. If it dies before, somebody may be waiting for it in vain: that
  /// is said at once.
  @discardableResult
  private func start(
    _ companion: Companion, program: Program, arguments: [String] = [], on machine: Machine
  ) throws -> GuestTask {
    var shared = TaskParameters(name: companion.name)
    shared.keepsMappings = parameters.keepsMappings
    let task = try machine.launch(program, arguments: arguments, parameters: shared) { StandardStream.error.write($0) }
    do {
      _ = try HostThread {
        let end = task.wait()
        guard let sentence = end.account(of: companion.task, timeout: nil) else { return }
        StandardStream.error.write("\(companion.name): \(sentence)\n")
      }
    } catch {
      throw CommandFailure.failure("no thread can be made for \(companion.name) (\(error)): see `physmem doctor`")
    }
    return task
  }
}

extension TaskEnd {
  /// What there is to say on standard error; nil for a task that exited by itself.
  func account(of task: String, timeout: Double?) -> String? {
    switch self {
    case .exited, .stopped(.machineEnd): nil
    case .died(let report): report.text
    case .stopped(.dropped(let missing)):
      "physmem: \(task) was dropped before it began, because \(missing) frames were asked back"
    case .stopped(.timeLimit):
      "physmem: \(task) did not end within \(secondsText(timeout ?? 0)) and was stopped"
    case .failed(let reason): "physmem: \(task) could not go on, because \(reason)"
    }
  }
}
