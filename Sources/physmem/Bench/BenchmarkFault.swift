// fault: first touches of lazily mapped pages, from the end of one fault's service to the end of the next one's.

internal import Machine
internal import PhysicalMemory

private let touchedPages = 4096

/// Warm: the pool has its memory, and zeroed frames are in stock for all pages. Cold: a new machine, where the first
/// touch of each frame is the host's first touch too.
func measureFaults(_ run: BenchmarkRun) throws -> [Measurement] {
  // Twice what a launch takes must be left when it ends: no frame is zeroed while it runs.
  var warm = MachineConfiguration(memory: 512 << 20, isPopulated: true, stock: 4 * touchedPages)
  warm.blocks = 0
  let machine = try Machine(warm)
  defer { machine.shutDown() }
  let touch = try BenchmarkTask("touch", on: machine)
  return [
    try measureWarmFaults("fault.around1", .fixed(1), touch, run),
    try measureWarmFaults("fault.around16", .fixed(16), touch, run),
    try measureWarmFaults("fault.auto", .automatic, touch, run),
    try measureWarmFaults("fault.auto.random", .automatic, order: "random", touch, run),
    try measureColdFaults("fault.around1.cold", .fixed(1), run),
    try measureColdFaults("fault.auto.cold", .automatic, run),
  ]
}

private func measureWarmFaults(
  _ name: String,
  _ faultAround: FaultAround,
  order: String = "seq",
  _ touch: BenchmarkTask,
  _ run: BenchmarkRun
) throws -> Measurement {
  var measurement = Measurement(name, per: .page)
  var isWarm = false
  try run.times(9, quick: 3, name) {
    touch.machine.prepareFrames()
    let samples = try touchPages(touch, order, faultAround)
    if isWarm { measurement.record(samples, faultAround) }
    isWarm = true
  }
  return measurement
}

private func measureColdFaults(_ name: String, _ faultAround: FaultAround, _ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement(name, per: .page)
  try run.times(4, quick: 1, name) {
    var cold = MachineConfiguration(memory: 512 << 20, stock: 0)
    cold.blocks = 0
    let machine = try Machine(cold)
    defer { machine.shutDown() }
    measurement.record(try touchPages(BenchmarkTask("touch", on: machine), "seq", faultAround), faultAround)
  }
  return measurement
}

private func touchPages(_ touch: BenchmarkTask, _ order: String, _ faultAround: FaultAround) throws -> ExitSamples {
  try touch.run(["\(touchedPages)", order, "1"], TaskParameters(faultAround: faultAround))
}

extension Measurement {
  /// Records the faults between the program's two marker calls.
  fileprivate mutating func record(_ samples: ExitSamples, _ faultAround: FaultAround) {
    for sample in samples.longestRow(of: .fault) {
      let pages = Int(sample.pages)
      let nanoseconds = Double(sample.nanoseconds) / Double(max(1, pages))
      switch faultAround {
      // Other numbers occur at the end of a leaf table or of the region.
      case .fixed(let wanted): if pages == wanted { record(nanoseconds: nanoseconds) }
      // Faults differ in the number of pages they fill in; each page counts once.
      case .automatic: if pages > 0 { record(nanoseconds: nanoseconds, count: pages) }
      }
    }
  }
}
