// alloc: allocating and freeing single frames, and creating machines; neither may depend on the pool's size.

internal import GuestMemory
internal import Machine
internal import PhysicalMemory

/// Frames that are allocated and freed between two readings of the clock.
private let batch = 1000

func measureAllocation(_ run: BenchmarkRun) throws -> [Measurement] {
  try [256 << 20, 64 << 30, 1 << 40].flatMap { try measureAllocation(pool: $0, run) }
}

private func measureAllocation(pool bytes: Int, _ run: BenchmarkRun) throws -> [Measurement] {
  let size = sizeText(bytes)
  var take = Measurement("alloc.take.\(size)", per: .frame)
  var give = Measurement("alloc.give.\(size)", per: .frame)
  var pool: FramePool
  do {
    pool = try FramePool(frameCount: bytes >> 12)
  } catch {
    throw CommandFailure.failure("not enough address space for a pool of \(size): see `physmem doctor`")
  }
  var frames = [FrameNumber](repeating: .none, count: batch)
  run.progress.show(take.name)
  for round in 0..<(run.isQuick ? 100 : 2000) {
    let start = monotonicNanoseconds()
    for index in 0..<batch { frames[index] = pool.takeFrame() ?? .none }
    let middle = monotonicNanoseconds()
    for frame in frames { pool.give(frame) }
    let end = monotonicNanoseconds()
    // The first rounds touch the frame records for the first time.
    if round < 10 { continue }
    take.record(nanoseconds: Double(middle - start) / Double(batch))
    give.record(nanoseconds: Double(end - middle) / Double(batch))
  }
  return [take, give]
}

/// Creating a machine, up to the point where it can load a program, and its resident memory.
func measureStarts(_ run: BenchmarkRun) throws -> [Measurement] {
  try [256 << 20, 64 << 30].map { bytes in
    var measurement = Measurement("start.\(sizeText(bytes))", per: .operation)
    try run.times(20, quick: 3, measurement.name) {
      let resident = residentBytes()
      let start = monotonicNanoseconds()
      let machine = try Machine(MachineConfiguration(memory: bytes))
      measurement.record(nanoseconds: Double(monotonicNanoseconds() - start))
      measurement.residentBytes = max(measurement.residentBytes ?? 0, residentBytes() - resident)
      machine.shutDown()
    }
    return measurement
  }
}

/// Resident bytes of this process. Source: proc_pid_statm(5), the second field.
private func residentBytes() -> Int {
  let fields = DoctorFacts.live.text("/proc/self/statm")?.split(separator: " ") ?? []
  return fields.count > 1 ? (Int(fields[1]) ?? 0) << 12 : 0
}
