// superpage: first touches of memory that one fault maps by 2 MiB, the zeroing of as much, and reads all over 64 MiB with
// superpages and without.

internal import GuestMemory
internal import Machine
internal import PhysicalMemory

/// 64 MiB.
private let touchedPages = 1 << 14
private let reads = 1 << 22

func measureSuperpages(_ run: BenchmarkRun) throws -> [Measurement] {
  [
    try measureFirstTouches(run),
    try measureZeroing(run),
    try measureWalk("superpage.walk", blocks: touchedPages / PoolMemory.framesPerBlock, run),
    try measureWalk("superpage.walk.without", blocks: 0, run),
  ]
}

/// A machine with so many huge pages of the host in stock.
private func withBlocks<Result>(_ count: Int, _ body: (Machine) throws -> Result) throws -> Result {
  var configuration = MachineConfiguration(memory: 1 << 30)
  configuration.blocks = count
  let machine = try Machine(configuration)
  defer { machine.shutDown() }
  machine.prepareFrames()
  return try body(machine)
}

/// From the end of one fault's service to the end of the next one's, a page: the touches of 512 pages are in it. With the
/// stock full: it is zeroed ahead.
private func measureFirstTouches(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("superpage.touch", per: .page)
  try run.times(9, quick: 2, "superpage.touch") {
    try withBlocks(touchedPages / PoolMemory.framesPerBlock) { machine in
      let samples = try BenchmarkTask("touch", on: machine).run(["\(touchedPages)", "seq", "1"])
      // The first one begins with the marker call.
      for sample in samples.longestRow(of: .fault).dropFirst() where sample.pages >= PoolMemory.framesPerBlock {
        let pages = Int(sample.pages)
        measurement.record(nanoseconds: Double(sample.nanoseconds) / Double(pages), count: pages)
      }
    }
  }
  return measurement
}

/// A page of 2 MiB that the preparation thread clears, the memory being there.
private func measureZeroing(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("superpage.zero", per: .page)
  do {
    let memory = try PoolMemory(frameCount: touchedPages)
    for start in stride(from: 0, to: touchedPages, by: PoolMemory.framesPerBlock) {
      try? memory.collapse(FrameRun(start: FrameNumber(UInt32(start)), count: PoolMemory.framesPerBlock))
    }
    try memory.populate(FrameRun(start: FrameNumber(0), count: touchedPages))
    run.times(9, quick: 2, "superpage.zero") {
      for start in stride(from: 0, to: touchedPages, by: PoolMemory.framesPerBlock) {
        let block = FrameRun(start: FrameNumber(UInt32(start)), count: PoolMemory.framesPerBlock)
        let before = monotonicNanoseconds()
        memory.zero(block)
        measurement.record(nanoseconds: Double(monotonicNanoseconds() - before) / Double(block.count))
      }
    }
  } catch {
    throw CommandFailure.failure("a pool of \(touchedPages >> 8) MiB cannot be made (\(error)): free some memory")
  }
  return measurement
}

/// One read, at an address that follows from the read before.
private func measureWalk(_ name: String, blocks: Int, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement(name, per: .operation)
  try run.times(7, quick: 1, name) {
    try withBlocks(blocks) { machine in
      let samples = try BenchmarkTask("walk", on: machine).run(["\(touchedPages)", "\(reads)"])
      // The last call but one ends the walk; the last is the exit.
      let longest = samples.samples.filter { $0.kind == .call }.map(\.nanoseconds).max() ?? 0
      measurement.record(nanoseconds: Double(longest) / Double(reads))
    }
  }
  return measurement
}
