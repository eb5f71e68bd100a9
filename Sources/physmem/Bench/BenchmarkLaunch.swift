// launch: the time to a task's first call, and from its last call until all its resources are freed.

internal import CStart
internal import Glibc
internal import GuestImages
internal import Machine
internal import SystemPackage

func measureLaunches(_ run: BenchmarkRun) throws -> [Measurement] {
  try measureWarmLaunches(run) + [measureColdLaunches(run)]
}

/// One machine, with the program loaded and a vCPU parked; noop's first call is its exit.
private func measureWarmLaunches(_ run: BenchmarkRun) throws -> [Measurement] {
  let machine = try Machine()
  defer { machine.shutDown() }
  let noop = try BenchmarkTask("noop", on: machine)
  var launch = Measurement("launch.warm", per: .operation)
  var end = Measurement("launch.end", per: .operation)
  for _ in 0..<10 { _ = try noop.run() }
  machine.prepareFrames()
  try run.times(300, quick: 50, "launch.warm") {
    let start = monotonicNanoseconds()
    let samples = try noop.run()
    let whole = monotonicNanoseconds() - start
    guard let firstCall = samples.firstCall else { return }
    launch.record(nanoseconds: Double(firstCall))
    end.record(nanoseconds: Double(whole) - Double(firstCall))
  }
  return [launch, end]
}

/// `physmem run noop` as a new process, until its end.
private func measureColdLaunches(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("launch.cold", per: .operation)
  try run.times(30, quick: 5, "launch.cold") {
    let start = monotonicNanoseconds()
    let status: Int32
    do throws(Errno) {
      status = try ChildProcess(ownPath(), ["physmem", "run", "noop"]).wait()
    } catch {
      throw CommandFailure.failure("the command cannot be started again (\(error)): start it by its full path")
    }
    guard status == 0 else {
      throw CommandFailure.failure("`physmem run noop` ended with \(status) instead of 0: run it to see why")
    }
    measurement.record(nanoseconds: Double(monotonicNanoseconds() - start))
  }
  return measurement
}

/// The path of this process's executable: from /proc, which follows a move of the file, else from the kernel.
private func ownPath() -> String {
  let link = "/proc/self/exe"
  if unsafe access(link, F_OK) == 0 { return link }
  // SAFETY: a string that ends with a NUL and lives as long as the process.
  return unsafe cstart_program().map { unsafe String(cString: $0) } ?? link
}
