// Random walks from a seed for a number of steps, or one list of operations from a file. Shrinks a walk that fails.

internal import ArgumentParser
internal import Dispatch
internal import Glibc
internal import Simulation

enum ProcessorCount {
  static var online: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
}

struct Simulate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "simulate",
    abstract: "Drive the server without KVM by random operations, and compare it with a naive model.")

  @Option(help: "The random seed; a seed determines the walks. (default: a fresh one)")
  var seed: UInt64?

  @Option(help: "The least number of operations.")
  var steps = 200_000

  @Option(help: "A file of operations to run instead, as printed for a failure.")
  var operations: String?

  func validate() throws {
    guard steps > 0 else { throw ValidationError("give --steps a number above 0.") }
    guard operations == nil || seed == nil else { throw ValidationError("--operations and --seed exclude each other.") }
  }

  func run() throws {
    if let operations { return try replay(operations) }
    let seed = seed ?? UInt64.random(in: 0...UInt64(UInt32.max))
    print("seed \(seed)")
    fflush(nil)
    let clock = ContinuousClock()
    let start = clock.now
    let campaign = Campaign(seed: seed, steps: steps)
    DispatchQueue.concurrentPerform(iterations: ProcessorCount.online) { worker in
      campaign.work { done in if worker == 0 { showProgress("\(done) of \(steps) steps") } }
    }
    clearProgress()
    let outcome = campaign.outcome
    if let (number, disagreement) = outcome.failure {
      let walk = try Episode(seed: seed, number: number).walk()
      try? walk.run()
      report(walk, disagreement, "seed \(seed), walk \(number), step \(disagreement.step)")
      throw ExitCode.failure
    }
    if let error = outcome.error { throw error }
    let rate = Int(Double(outcome.steps) / ((clock.now - start) / .seconds(1)))
    print("\(outcome.steps) steps in \(outcome.walks) walks, no disagreement: \(rate) steps a second")
    print(outcome.figures)
  }

  /// Prints the shortest list that shows the same failure, to be saved to a file.
  private func report(_ walk: Walk, _ disagreement: Disagreement, _ place: String) {
    print("# \(place): \(disagreement.text)")
    var shrinker = Shrinker(walk, disagreement)
    let list = shrinker.shrink()
    print("# \(walk.operations.count) operations, shrunk to \(list.count):")
    print(OperationFile(world: walk.world, operations: list).text, terminator: "")
    if let last = Walk.disagreement(walk.world, list) { print("# \(last.text)") }
  }

  private func replay(_ path: String) throws {
    guard let text = read(path) else { throw ValidationError("\(path) cannot be read.") }
    let file: OperationFile
    do { file = try OperationFile(text: text) } catch { throw ValidationError("\(path): \(error).") }
    guard file.world.isGood else { throw ValidationError("\(path): such a world cannot be.") }
    if let disagreement = Walk.disagreement(file.world, file.operations) {
      print("operation \(disagreement.step + 1) of \(file.operations.count): \(disagreement.text)")
      throw ExitCode.failure
    }
    print("\(file.operations.count) operations, no disagreement")
  }

  /// A whole file as text; nil if it cannot be read.
  private func read(_ path: String) -> String? {
    // SAFETY: both strings are C strings for the call; the stream is closed once, and not used after that.
    guard let file = unsafe fopen(path, "r") else { return nil }
    defer { unsafe _ = fclose(file) }
    var bytes: [UInt8] = []
    while true {
      let byte = unsafe getc(file)
      if byte == EOF { return String(decoding: bytes, as: UTF8.self) }
      bytes.append(UInt8(truncatingIfNeeded: byte))
    }
  }

  // MARK: Progress: one line on a terminal

  private func showProgress(_ text: String) { write("\r\(text)\u{1b}[K") }
  private func clearProgress() { write("\r\u{1b}[K") }

  private func write(_ text: String) {
    guard isatty(2) == 1 else { return }
    let bytes = Array(text.utf8)
    // SAFETY: passes the array's own length.
    unsafe bytes.withUnsafeBytes { unsafe _ = Glibc.write(2, $0.baseAddress, $0.count) }
  }
}
