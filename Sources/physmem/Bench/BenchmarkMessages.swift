// ipc: a call and its answer between two running tasks, and for comparison a byte to another process and back.

internal import Machine
internal import PhysicalMemory
internal import SystemPackage

func measureMessages(_ run: BenchmarkRun) throws -> [Measurement] {
  [try measureRoundTrips(run), try measurePipes(run)]
}

private func measureRoundTrips(_ run: BenchmarkRun) throws -> Measurement {
  let machine = try Machine(MachineConfiguration(memory: 64 << 20))
  defer { machine.shutDown() }
  let pong = try BenchmarkTask("pong", on: machine).start()
  let ping = try BenchmarkTask("ping", on: machine)
  var measurement = Measurement("ipc.call", per: .operation)
  try run.times(5, quick: 2, "ipc.call") {
    let samples = try ping.run(["10000"])
    // The first calls look up the name and wake the partner; the last one is the exit.
    for sample in samples.longestRow(of: .call).dropFirst(4).dropLast() {
      measurement.record(nanoseconds: Double(sample.nanoseconds))
    }
  }
  pong.stop(.machineEnd)
  _ = pong.wait()
  return measurement
}

/// Sends a byte to a process that echoes it.
private func measurePipes(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("ipc.pipe", per: .operation)
  do {
    let there = try ChildProcess.pipe()
    let back = try ChildProcess.pipe()
    let cat = try ChildProcess("/bin/cat", ["cat"], input: there.readEnd, output: back.writeEnd)
    try there.readEnd.close()
    try back.writeEnd.close()
    run.progress.show("ipc.pipe")
    var byte: [UInt8] = [0]
    for _ in 0..<(run.isQuick ? 2000 : 20000) {
      let start = monotonicNanoseconds()
      _ = try there.writeEnd.writeAll(byte)
      // SAFETY: the buffer is the array's own.
      let count = try unsafe byte.withUnsafeMutableBytes { try unsafe back.readEnd.read(into: $0) }
      guard count == 1 else { break }
      measurement.record(nanoseconds: Double(monotonicNanoseconds() - start))
    }
    try there.writeEnd.close()
    try back.readEnd.close()
    _ = try cat.wait()
  } catch {
    throw CommandFailure.failure("the pipes to /bin/cat failed: \(error)")
  }
  return measurement
}
