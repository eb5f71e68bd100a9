// The command as a whole: selects the subcommand, and reports usage errors.

internal import ArgumentParser
internal import Glibc
internal import Machine

struct Physmem: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "physmem",
    abstract: "A physical memory server: one virtual machine whose memory it hands out to small guest tasks.",
    version: "0.1.0",
    subcommands: [Run.self, List.self, TestCommand.self, Bench.self, Doctor.self]
  )

  /// Runs the command.
  /// - Returns: the exit status; everything is written.
  static func start(_ arguments: [String]) -> Int32 {
    StandardStream.ensureOpen()
    resetSignals()
    // So that exceeding the limit of file sizes, with the pool or standard output, is an error with a message.
    signal(SIGXFSZ, SIG_IGN)
    do {
      if let request = RunRequest(plain: arguments) { return try request.perform() }
      try checkCommand(arguments)
      let (own, forTask) = RunArguments.split(arguments)
      var command = try parseAsRoot(own)
      if var run = command as? Run {
        run.arguments = forTask
        command = run
      }
      try command.run()
      return 0
    } catch {
      return report(error, arguments)
    }
  }

  /// Resets signals to their defaults, whatever the parent set. With SIGCHLD ignored, ends of this process's children
  /// would go unseen; with blocked signals a time limit could not end it.
  private static func resetSignals() {
    signal(SIGCHLD, SIG_DFL)
    // Ignored until a machine installs its own handler, since other processes may send it.
    signal(SIGUSR1, SIG_IGN)
    var none = sigset_t()
    // SAFETY: one set, which outlives the calls.
    unsafe sigemptyset(&none)
    unsafe sigprocmask(SIG_SETMASK, &none, nil)
  }

  private static func report(_ error: any Error, _ arguments: [String]) -> Int32 {
    let failure: CommandFailure
    switch error {
    case let error as CommandFailure: failure = error
    case let error as MachineError: failure = CommandFailure(error)
    case let code as ExitCode: return code.rawValue
    default:
      let status = exitCode(for: error).rawValue
      if status == 0 {
        // Not an error: help, or the version.
        StandardStream.output.write(fullMessage(for: error) + "\n")
        return 0
      }
      failure = CommandFailure(sentence: oneSentence(message(for: error), arguments), status: status)
    }
    complain(failure.sentence)
    return failure.status
  }

  private static var commandNames: [String] { configuration.subcommands.map { $0._commandName } }

  /// ArgumentParser takes an unknown command's name for an argument, and prints no error for help on it.
  private static func checkCommand(_ arguments: [String]) throws(CommandFailure) {
    let names = arguments.first == "help" ? arguments.dropFirst() : arguments[...]
    guard let name = names.first, !name.hasPrefix("-"), name != "help", !commandNames.contains(name) else { return }
    throw .usage("there is no command \(quoted(name)) (see `physmem help`)")
  }

  /// ArgumentParser's message as one sentence, with a pointer to the help.
  static func oneSentence(_ message: String, _ arguments: [String]) -> String {
    var text = message.split(whereSeparator: \.isNewline).joined(separator: " ")
    text = text.replacing(". Please provide", with: ": give").replacing(". Did you mean", with: ", did you mean")
    if text.last == "." || text.last == "?" { text.removeLast() }
    let command = commandNames.first { $0 == arguments.first }.map { " " + $0 } ?? ""
    return text.prefix(1).lowercased() + text.dropFirst() + " (see `physmem help\(command)`)"
  }
}
