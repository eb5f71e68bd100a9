// The programs of a run, each read and loaded once; and the tasks that run beside the main one.

internal import Machine
internal import PhysicalMemory

/// Reads and loads each program once, even if a file is given under several names.
struct Programs {
  private var files: [TaskFile] = []
  private var loaded: [TaskFile.Origin: Program] = [:]

  /// Reads a program, unless it was read before under that name.
  mutating func read(_ name: OutsideName) throws(CommandFailure) {
    if !files.contains(where: { $0.name == name }) { files.append(try TaskFile(name)) }
  }

  mutating func load(_ name: OutsideName, on machine: Machine) throws(MachineError) -> Program {
    guard let file = files.first(where: { $0.name == name }) else { preconditionFailure("a program that was not read") }
    if let program = loaded[file.origin] { return program.named(name.bytes) }
    let program = try machine.load(name: name.bytes, bytes: file.bytes)
    loaded[file.origin] = program
    return program
  }
}

/// It runs until the command exits. Its earlier death is reported at once, since other tasks may be waiting for it.
struct RunningCompanion {
  let task: GuestTask
  private let observer: HostThread

  init(
    _ companion: Companion, _ program: Program, arguments: [String] = [], keepsMappings: Bool, on machine: Machine
  ) throws {
    var parameters = TaskParameters(name: String(decoding: companion.name.bytes, as: UTF8.self))
    parameters.keepsMappings = keepsMappings
    let task = try machine.launch(program, arguments: arguments, parameters: parameters) {
      StandardStream.error.write($0)
    }
    self.task = task
    do {
      observer = try HostThread {
        guard let sentence = task.wait().account(of: companion.task, timeout: nil) else { return }
        StandardStream.error.write("\(companion.name): \(sentence)\n")
      }
    } catch {
      throw CommandFailure.failure("no thread can be created for \(companion.name) (\(error)): see `physmem doctor`")
    }
  }

  /// Its status if it has died by now, with the report written; nil if it runs or ended by itself.
  /// - Parameter hasTimeLimit: do not wait for a slow reader of the report.
  func death(hasTimeLimit: Bool) -> Int32? {
    guard let end = task.waitIfEnding() else { return nil }
    let observer = observer
    if hasTimeLimit { attempt(seconds: 1) { observer.join() } } else { observer.join() }
    if case .exited = end { return nil }
    return end.exitStatus
  }
}
