// superpage: first touches of memory that one fault maps by 2 MiB, the zeroing of as much, random reads in 64 MiB with
// and without superpages; and the cost of a split: first writes after a logical copy, with and without superpages, and
// the flush that they include.

internal import GuestMemory
internal import Machine
internal import PhysicalMemory

/// 64 MiB.
private let touchedPages = 1 << 14
private let regions = touchedPages / PoolMemory.framesPerBlock
private let reads = 1 << 22

func measureSuperpages(_ run: BenchmarkRun) throws -> [Measurement] {
  [
    try measureFirstTouches(run),
    try measureZeroing(run),
    try measureWalk("superpage.walk", blocks: regions, run),
    try measureWalk("superpage.walk.without", blocks: 0, run),
    try measureSplits("superpage.split", blocks: regions, run),
    try measureSplits("superpage.split.without", blocks: 0, run),
    try measureFlush(run),
  ]
}

/// A machine with that many huge pages of the host in stock.
private func withBlocks<Result>(_ count: Int, _ body: (Machine) throws -> Result) throws -> Result {
  var configuration = MachineConfiguration(memory: 1 << 30)
  configuration.blocks = count
  configuration.defragmentation = .never
  let machine = try Machine(configuration)
  defer { machine.shutDown() }
  machine.prepareFrames()
  return try body(machine)
}

/// From the end of one fault's service to the end of the next one's, per page, including the touches of 512 pages. With
/// the stock full, so that the page is zeroed ahead.
private func measureFirstTouches(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("superpage.touch", per: .page)
  try run.times(9, quick: 2, "superpage.touch") {
    try withBlocks(regions) { machine in
      let samples = try BenchmarkTask("touch", on: machine).run(["\(touchedPages)", "seq", "1"])
      // The first one includes the marker call.
      for sample in samples.longestRow(of: .fault).dropFirst() where sample.pages >= PoolMemory.framesPerBlock {
        let pages = Int(sample.pages)
        measurement.record(nanoseconds: Double(sample.nanoseconds) / Double(pages), count: pages)
      }
    }
  }
  return measurement
}

/// A page of 2 MiB that the preparation thread zeroes, with the memory allocated.
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
    throw CommandFailure.failure("a pool of \(touchedPages >> 8) MiB cannot be created (\(error)): free some memory")
  }
  return measurement
}

/// One read, at an address computed from the previous read.
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

/// The first write after a logical copy of the 2 MiB around it, and a null call after it.
private func measureSplits(_ name: String, blocks: Int, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement(name, per: .operation)
  try run.times(9, quick: 2, name) {
    try withBlocks(blocks) { machine in
      let samples = try BenchmarkTask("split", on: machine).run(["\(regions)"]).samples
      // Without huge pages of the host nothing was split.
      guard machine.server.statistics.superpages.splits[.copied, default: 0] == (blocks > 0 ? regions : 0) else {
        return
      }
      let writes = samples.indices.dropFirst().dropLast().filter {
        samples[$0].kind == .fault && samples[$0 - 1].kind == .call && samples[$0 + 1].kind == .call
      }
      for write in writes.suffix(regions) {
        measurement.record(nanoseconds: Double(samples[write].nanoseconds + samples[write + 1].nanoseconds))
      }
    }
  }
  return measurement
}

/// A flush of all translations, while a waiting task has 64 MiB mapped.
private func measureFlush(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("superpage.flush", per: .operation)
  try run.times(9, quick: 2, "superpage.flush") {
    try withBlocks(regions) { machine in
      let lender = try BenchmarkTask("lender", on: machine)
      if let nanoseconds = try written(touchedPages, lender, { machine.flushEverything() }) {
        measurement.record(nanoseconds: Double(nanoseconds))
      }
    }
  }
  return measurement
}
