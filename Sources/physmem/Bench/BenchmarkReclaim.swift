// reclaim: taking frames back from tasks with more than their guarantee, and returning free frames' memory to the host.

internal import GuestMemory
internal import Machine
internal import PhysicalMemory
internal import Synchronization

private let reclaimedFrames = 16_384
private let lenders = 16

func measureReclaim(_ run: BenchmarkRun) throws -> [Measurement] {
  try [measureCooperativeTask(run)] + measurePressure(run) + [measureEntitlement(run, tasks: 1)]
    + [measureEntitlement(run, tasks: 1000)] + measureGivingBack(run)
}

/// One task that holds 64 MiB and releases all of it in one handler: from the demand to the end of the call that
/// gets the frames, per frame.
private func measureCooperativeTask(_ run: BenchmarkRun) throws -> Measurement {
  var measurement = Measurement("reclaim", per: .frame)
  try run.times(9, quick: 1, "reclaim") {
    let bed = try PressureBed(lenders: 1, perLender: 0, memory: 80 << 20, claim: reclaimedFrames)
    defer { bed.end() }
    let calls = try bed.claim(reclaimedFrames, "together").filter { $0.kind == .call }
    // The calls are: marker, allocation, marker, exit.
    measurement.record(nanoseconds: Double(calls[calls.count - 3].nanoseconds) / Double(reclaimedFrames))
  }
  return measurement
}

/// One guaranteed frame after the other, its call and its first touch, while 16 tasks that wait for messages hold all
/// free frames; the same with free frames; and the same with one rogue among the tasks.
private func measurePressure(_ run: BenchmarkRun) throws -> [Measurement] {
  let frames = run.isQuick ? 256 : 4096
  var (unpressed, pressed, rogue) = (
    Measurement("reclaim.unpressed", per: .frame), Measurement("reclaim.pressed", per: .frame),
    Measurement("reclaim.rogue", per: .frame)
  )
  try run.times(3, quick: 1, "reclaim.unpressed") {
    let bed = try PressureBed(lenders: 0, perLender: 0, memory: 64 << 20, claim: frames)
    defer { bed.end() }
    record(try bed.claim(frames, "singly"), in: &unpressed)
  }
  try run.times(3, quick: 1, "reclaim.pressed") {
    let bed = try PressureBed(lenders: lenders, perLender: 640, memory: 64 << 20, claim: frames)
    defer { bed.end() }
    record(try bed.claim(frames, "singly"), in: &pressed)
  }
  try run.times(3, quick: 1, "reclaim.rogue") {
    let bed = try PressureBed(lenders: lenders, perLender: 640, memory: 64 << 20, claim: frames, rogues: 1)
    defer { bed.end() }
    record(try bed.claim(frames, "singly"), in: &rogue)
  }
  return [unpressed, pressed, rogue]
}

/// Each frame is a call to allocate it, a call to map it, and a fault.
private func record(_ samples: [ExitSample], in measurement: inout Measurement) {
  var time: UInt64 = 0
  var calls = 0
  for sample in samples {
    switch sample.kind {
    case .call:
      // A third call in a row is the marker before the first frame.
      if calls == 2 { time = 0 }
      calls = min(calls + 1, 2)
      time += calls == 1 || calls == 2 ? sample.nanoseconds : 0
    case .fault:
      if calls == 2 { measurement.record(nanoseconds: Double(time + sample.nanoseconds)) }
      (time, calls) = (0, 0)
    case .other: break
    }
  }
}

/// Counts lenders that have all their frames.
private final class ReadyCount: Sendable {
  let value = Atomic<Int>(0)
}

/// Set once by another thread.
final class WaitFlag: Sendable {
  private let value = Atomic<Bool>(false)
  var isSet: Bool { value.load(ordering: .acquiring) }
  func set() { value.store(true, ordering: .releasing) }
}

/// A claimant with a guarantee, and lenders that have taken all other frames as extra ones.
private struct PressureBed {
  let machine: Machine
  private let claimant: BenchmarkTask
  private let others: [GuestTask]
  private let guarantee: Int
  private let rogues: Int

  init(lenders: Int, perLender: Int, memory: Int, claim: Int, rogues: Int = 0) throws {
    machine = try Machine(MachineConfiguration(memory: memory))
    machine.prepareFrames()
    claimant = try BenchmarkTask("claimant", on: machine)
    // Includes its image and stack.
    guarantee = claim + 256
    self.rogues = rogues
    let lender = lenders > 0 ? try BenchmarkTask("lender", on: machine) : nil
    var started: [GuestTask] = []
    let ready = ReadyCount()
    for index in 0..<lenders {
      let isLast = index == lenders - 1
      let arguments = ["\(isLast ? 0 : perLender)"] + (index < rogues ? ["rogue"] : [])
      let task = try lender?.start(
        arguments, TaskParameters(guaranteed: 200, mayUseExtra: true, hasContract: true),
        console: { _ in ready.value.add(1, ordering: .relaxed) })
      if let task { started.append(task) }
      while ready.value.load(ordering: .relaxed) <= index, task?.wait(seconds: 0.001) == nil {}
    }
    others = started
  }

  /// The exits between the markers, with both of them and the end.
  func claim(_ count: Int, _ how: String) throws -> [ExitSample] {
    let contract = TaskParameters(
      guaranteed: guarantee, mayUseExtra: false, hasContract: true, faultAround: .fixed(1))
    let samples = try claimant.run(["\(count)", how], contract).samples
    for task in others.dropFirst(rogues) where task.wait(seconds: 0) != nil {
      throw CommandFailure.failure("a task that must give frames back has ended: see `physmem test`")
    }
    return samples
  }

  func end() {
    for task in others { task.stop(.machineEnd) }
    for task in others { _ = task.wait() }
    machine.shutDown()
  }
}

/// The cost of checking whether a task may have a frame, and of charging it.
private func measureEntitlement(_ run: BenchmarkRun, tasks: Int) throws -> Measurement {
  var measurement = Measurement("entitlement.\(tasks)", per: .frame)
  run.progress.show("entitlement.\(tasks)")
  let machine = try Machine(MachineConfiguration(memory: 1 << 30))
  defer { machine.shutDown() }
  let program = try BenchmarkTask("noop", on: machine)
  guard let nanoseconds = program.entitlementCosts(tasks: tasks, rows: run.isQuick ? 10 : 100) else {
    throw CommandFailure.failure("\(tasks) tasks cannot be created here: free some memory")
  }
  for value in nanoseconds { measurement.record(nanoseconds: value) }
  return measurement
}

/// Returning the memory of frames that a task has freed to the host; and for comparison the bare hole punching.
private func measureGivingBack(_ run: BenchmarkRun) throws -> [Measurement] {
  let frames = run.isQuick ? 1 << 14 : 1 << 17
  var (idle, bare, again) = (
    Measurement("giveback", per: .frame), Measurement("giveback.bare", per: .frame),
    Measurement("giveback.touch", per: .page)
  )
  try run.times(5, quick: 1, "giveback") {
    var configuration = MachineConfiguration(memory: (frames << 12) * 2)
    configuration.framesGivenBackASecond = 0
    let machine = try Machine(configuration)
    defer { machine.shutDown() }
    let program = try BenchmarkTask("touch", on: machine)
    _ = try program.run(["\(frames)", "seq", "1"])
    let start = monotonicNanoseconds()
    let count = machine.giveBackFreeMemory()
    idle.record(nanoseconds: Double(monotonicNanoseconds() - start) / Double(max(count, 1)))
    // The cost of touching them again, 16 pages a fault.
    let samples = try program.run(["\(min(frames, 4096))", "seq", "1"], TaskParameters(faultAround: .fixed(16)))
    for sample in samples.longestRow(of: .fault) where sample.pages == 16 {
      again.record(nanoseconds: Double(sample.nanoseconds) / 16, count: 16)
    }
    do {
      let memory = try PoolMemory(frameCount: frames)
      let whole = FrameRun(start: FrameNumber(0), count: frames)
      try memory.populate(whole)
      let start = monotonicNanoseconds()
      memory.discard(whole)
      bare.record(nanoseconds: Double(monotonicNanoseconds() - start) / Double(frames))
    } catch {
      throw CommandFailure.failure("a pool of \(frames >> 8) MiB cannot be created (\(error)): free some memory")
    }
  }
  return [idle, bare, again]
}
