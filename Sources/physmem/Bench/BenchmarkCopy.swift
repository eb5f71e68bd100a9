// cow: write faults on logical copies, the copies themselves, and for comparison a bare copy and a bare zap.

internal import GuestMemory
internal import Machine
internal import PhysicalMemory

private let copiedPages = 4096
private let largePages = 1 << 18

func measureCopies(_ run: BenchmarkRun) throws -> [Measurement] {
  try [measureWriteFaults(run)] + measureParts(run) + measureLogicalCopies(run)
}

/// Write faults on a lazy PM_MAP_FORCE_WRITE mapping whose contents are shared and whose leaves are absent.
private func measureWriteFaults(_ run: BenchmarkRun) throws -> Measurement {
  var configuration = MachineConfiguration(memory: 512 << 20, isPopulated: true, stock: 4 * copiedPages)
  configuration.blocks = 0
  let machine = try Machine(configuration)
  defer { machine.shutDown() }
  let program = try BenchmarkTask("cow", on: machine)
  var measurement = Measurement("cow", per: .page)
  try run.times(9, quick: 3, "cow") {
    machine.prepareFrames()
    let parameters = TaskParameters(faultAround: .fixed(1))
    let samples = try program.run(["\(copiedPages)", "write", "resident"], parameters)
    for sample in samples.lastRow(of: .fault, longerThan: copiedPages - 8) {
      measurement.record(nanoseconds: Double(sample.nanoseconds))
    }
  }
  return measurement
}

/// One 4 KiB copy between frames of a pool, and one zap of a frame that is in the host's page table.
private func measureParts(_ run: BenchmarkRun) throws -> [Measurement] {
  let memory: PoolMemory
  do {
    memory = try PoolMemory(frameCount: 1 << 15)
    try memory.populate(FrameRun(start: FrameNumber(0), count: memory.frameCount))
  } catch {
    throw CommandFailure.failure("a pool of 128 MiB cannot be created (\(error)): free some memory")
  }
  var copy = Measurement("cow.copy", per: .frame)
  var zap = Measurement("cow.zap", per: .frame)
  run.progress.show("cow.copy")
  for index in 0..<UInt32(1 << 13) {
    // A stride that no prefetcher follows, as with frames from a pool.
    let from = FrameNumber(index * 17 & 0x3fff)
    let to = FrameNumber(0x4000 + (index * 29 & 0x3fff))
    let start = monotonicNanoseconds()
    memory.copy(from: from, to: to)
    let middle = monotonicNanoseconds()
    memory.zap(FrameRun(start: from, count: 1))
    let end = monotonicNanoseconds()
    copy.record(nanoseconds: Double(middle - start))
    zap.record(nanoseconds: Double(end - middle))
  }
  return [copy, zap]
}

/// One call that copies 1 GiB, per frame; and the bare zap of as many adjacent frames.
private func measureLogicalCopies(_ run: BenchmarkRun) throws -> [Measurement] {
  let pages = run.isQuick ? largePages / 16 : largePages
  var measurements: [Measurement] = []
  for state in ["untouched", "resident", "mapped"] {
    var measurement = Measurement("copy.\(state)", per: .frame)
    try run.times(3, quick: 1, "copy.\(state)") {
      let machine = try Machine(MachineConfiguration(memory: (pages << 12) * 2 + 512 << 20))
      defer { machine.shutDown() }
      let samples = try BenchmarkTask("cow", on: machine).run(["\(pages)", "copy", state])
      // The calls are: marker, copy, marker, exit.
      let calls = samples.samples.filter { $0.kind == .call }
      measurement.record(nanoseconds: Double(calls[calls.count - 3].nanoseconds) / Double(pages))
    }
    measurements.append(measurement)
  }
  return measurements + [try measureBulkZap(pages, run), try measureMappedZap(pages, named: "zap.mapped", run)]
}

/// The bare zap of frames that a task has mapped and written, so that KVM has translations to drop.
func measureMappedZap(_ pages: Int, named name: String, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement(name, per: .frame)
  try run.times(3, quick: 1, name) {
    let machine = try Machine(MachineConfiguration(memory: (pages << 12) + 512 << 20))
    defer { machine.shutDown() }
    let hasWritten = WaitFlag()
    let task = try BenchmarkTask("lender", on: machine).start(["\(pages)"], console: { _ in hasWritten.set() })
    while !hasWritten.isSet, task.wait(seconds: 0.01) == nil {}
    measurement.record(nanoseconds: Double(machine.zapEverything()) / Double(pages))
  }
  return measurement
}

private func measureBulkZap(_ pages: Int, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("zap.bulk", per: .frame)
  run.progress.show("zap.bulk")
  do {
    let memory = try PoolMemory(frameCount: pages)
    for _ in 0..<3 {
      try memory.populate(FrameRun(start: FrameNumber(0), count: pages))
      let start = monotonicNanoseconds()
      memory.zap(FrameRun(start: FrameNumber(0), count: pages))
      measurement.record(nanoseconds: Double(monotonicNanoseconds() - start) / Double(pages))
    }
  } catch {
    throw CommandFailure.failure("a pool of \(pages >> 8) MiB cannot be created (\(error)): free some memory")
  }
  return measurement
}
