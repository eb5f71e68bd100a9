// hypercall: null calls, from the end of one's service to the end of the next one's.

internal import Machine

func measureCalls(_ run: BenchmarkRun) throws -> [Measurement] {
  let machine = try Machine(MachineConfiguration(memory: 64 << 20))
  defer { machine.shutDown() }
  let program = try BenchmarkTask("nullcall", on: machine)
  var measurement = Measurement("hypercall", per: .operation)
  try run.times(8, quick: 2, "hypercall") {
    let samples = try program.run(["50000"])
    // The first sample includes the start; the last is the exit.
    for sample in samples.longestRow(of: .call).dropFirst().dropLast() {
      measurement.record(nanoseconds: Double(sample.nanoseconds))
    }
  }
  return [measurement]
}
