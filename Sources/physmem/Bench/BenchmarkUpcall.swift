// upcall: from the demand for frames to the first instruction of a computing task's pm_return_pages handler.

internal import Glibc
internal import Machine
internal import PhysicalMemory

func measureUpcalls(_ run: BenchmarkRun) throws -> [Measurement] {
  let machine = try Machine(MachineConfiguration(memory: 64 << 20))
  defer { machine.shutDown() }
  let program = try BenchmarkTask("interrupted", on: machine)
  var measurement = Measurement("upcall", per: .operation)
  try run.times(4, quick: 1, "upcall") {
    let task = try program.start(isMeasured: true)
    // The task has set its handler by then; an earlier upcall is delivered late, and left out below.
    usleep(20_000)
    var raised: [UInt64] = []
    for _ in 0..<300 {
      usleep(500)
      raised.append(monotonicNanoseconds())
      task.pretendUpcall(count: 1)
    }
    usleep(20_000)
    task.stop(.machineEnd)
    _ = task.wait()
    guard let samples = task.samples else { return }
    for time in latencies(raised, samples).dropFirst(10) { measurement.record(nanoseconds: Double(time)) }
  }
  return [measurement]
}

/// From each demand to the end of the next call, the handler's first instruction, if it precedes the next demand.
private func latencies(_ raised: [UInt64], _ samples: ExitSamples) -> [UInt64] {
  let calls = zip(samples.samples, samples.ends).filter { $0.0.kind == .call }.map(\.1)
  var times: [UInt64] = []
  var next = 0
  for (index, time) in raised.enumerated() {
    while next < calls.count, calls[next] < time { next += 1 }
    guard next < calls.count else { break }
    if index + 1 == raised.count || calls[next] < raised[index + 1] { times.append(calls[next] - time) }
  }
  return times
}
