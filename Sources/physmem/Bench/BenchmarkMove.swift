// move: contents moved between frames in runs, and for comparison a bare copy and a bare zap; adjacent frames
// from a pool full of scattered contents; and the effect on a task whose own frames stay.

internal import GuestMemory
internal import Machine
internal import PhysicalMemory

private let movedPages = 1 << 14

func measureMoves(_ run: BenchmarkRun) throws -> [Measurement] {
  let pages = run.isQuick ? movedPages / 8 : movedPages
  return try [
    measureRuns(pages, run), measureCopying(pages, run), measureMappedZap(pages, named: "move.zap", run),
    measureContiguous(pages, run),
  ] + measureBystander(run)
}

/// Moves the contents of a task that has all of them mapped and written.
private func measureRuns(_ pages: Int, _ run: BenchmarkRun) throws -> Measurement {
  var move = Measurement("move.run", per: .frame)
  try run.times(9, quick: 1, "move.run") {
    // Populated: the host's own page faults are the same for a copy.
    let machine = try quietMachine(pages * 3, isPopulated: true)
    defer { machine.shutDown() }
    let task = try BenchmarkTask("lender", on: machine)
    move.record(
      nanoseconds: try written(pages, task) {
        let (moved, nanoseconds) = machine.moveEverything()
        return Double(nanoseconds) / Double(moved)
      })
  }
  return move
}

private func quietMachine(_ frames: Int, isPopulated: Bool) throws -> Machine {
  var configuration = MachineConfiguration(memory: frames << 12 + 64 << 20, isPopulated: isPopulated)
  configuration.defragmentation = .never
  // Only single pages are to be moved.
  configuration.blocks = 0
  return try Machine(configuration)
}

/// Runs `body` while a task has that many pages mapped and written.
func written<Result>(_ pages: Int, _ lender: BenchmarkTask, _ body: () -> Result) throws -> Result {
  let hasWritten = WaitFlag()
  let task = try lender.start(["\(pages)"], console: { _ in hasWritten.set() })
  while !hasWritten.isSet, task.wait(seconds: 0.01) == nil {}
  defer {
    task.stop(.machineEnd)
    _ = task.wait()
  }
  return body()
}

/// The same amount copied, 4 KiB at a time.
private func measureCopying(_ pages: Int, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("move.memcpy", per: .frame)
  do {
    let memory = try PoolMemory(frameCount: pages * 2)
    try memory.populate(FrameRun(start: FrameNumber(0), count: memory.frameCount))
    run.times(9, quick: 1, "move.memcpy") {
      let start = monotonicNanoseconds()
      for page in 0..<UInt32(pages) { memory.copy(from: FrameNumber(page), to: FrameNumber(page + UInt32(pages))) }
      measurement.record(nanoseconds: Double(monotonicNanoseconds() - start) / Double(pages))
    }
  } catch {
    throw CommandFailure.failure("a pool of \(pages >> 7) MiB cannot be created (\(error)): free some memory")
  }
  return measurement
}

/// 64 MiB of adjacent frames from a pool in which nine of ten frames hold contents, in random order.
private func measureContiguous(_ wanted: Int, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("move.contiguous", per: .frame)
  try run.times(3, quick: 1, "move.contiguous") {
    let machine = try quietMachine(wanted * 11, isPopulated: false)
    defer { machine.shutDown() }
    let task = try BenchmarkTask("scatter", on: machine)
    let statistics = machine.server.statistics
    let pages = statistics.allocatableFrames - statistics.claimedFrames - 256
    let parameters = TaskParameters(faultAround: .fixed(1))
    let samples = try task.run(["\(pages)", "10", "\(wanted)"], parameters)
    // The calls are: marker, allocation, marker, exit.
    let calls = samples.samples.filter { $0.kind == .call }
    measurement.record(nanoseconds: Double(calls[calls.count - 3].nanoseconds) / Double(wanted))
  }
  return measurement
}

/// A task that goes over its own memory, alone and while another task's contents are moved all the time.
private func measureBystander(_ run: BenchmarkRun) throws -> [Measurement] {
  var measurements: [Measurement] = []
  for (name, isMoving) in [("move.bystander.alone", false), ("move.bystander.moving", true)] {
    var measurement = Measurement(name, per: .operation)
    run.progress.show(name)
    var configuration = MachineConfiguration(memory: 256 << 20, isPopulated: true)
    configuration.defragmentation = .never
    let machine = try Machine(configuration)
    defer { machine.shutDown() }
    let rounds = CapturedOutput()
    let lender = try BenchmarkTask("lender", on: machine)
    _ = try written(8192, lender) {
      let task = try? BenchmarkTask("bystander", on: machine).start(
        ["256", run.isQuick ? "5" : "200"], console: { rounds.append($0) })
      while isMoving, task?.wait(seconds: 0.004) == nil { machine.moveSome() }
      _ = task?.wait()
      return 0
    }
    for microseconds in rounds.text.split(separator: "\n").compactMap({ Double($0) }) {
      measurement.record(nanoseconds: microseconds * 1000)
    }
    measurements.append(measurement)
  }
  return measurements
}
