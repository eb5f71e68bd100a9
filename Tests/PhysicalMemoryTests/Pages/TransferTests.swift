// Transfers of devices: what may begin, and the state of pins during one (R22).

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

/// A driver with a container of pinned frames.
private struct Driver {
  let bed: Testbed
  let task: TestTask
  let container: UInt32
  let frames: [FrameNumber]

  var reference: TaskReference { TaskReference(slot: task.slot, id: task.id) }
  var server: PhysicalMemoryServer { bed.server }

  init(_ bed: Testbed, count: UInt32 = 4) throws {
    self.bed = bed
    task = try bed.start()
    container = try task.container(count)
    var frames: [FrameNumber] = []
    try Self.pin(task, container, 0, count, &frames)
    self.frames = frames
  }

  static func pin(
    _ task: TestTask, _ container: UInt32, _ start: UInt32, _ count: UInt32, _ frames: inout [FrameNumber],
    microseconds: UInt64 = 1000
  ) throws {
    try task.server.pin(
      task.slot, container, start: start, count: count, microseconds: microseconds, physical: TestTask.message)
    var bytes = [UInt8](repeating: 0, count: Int(count) * 8)
    try task.server.readMemory(task.slot, TestTask.message, into: &bytes)
    for index in 0..<Int(count) {
      let address = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[8 * index + $1]) << UInt64(8 * $1) }
      frames.append(FrameNumber(UInt32(address >> 12)))
    }
  }

  func pin(_ start: UInt32, _ count: UInt32, microseconds: UInt64 = 1000) throws {
    var frames: [FrameNumber] = []
    try Self.pin(task, container, start, count, &frames, microseconds: microseconds)
  }

  func run(_ index: Int, _ count: Int = 1) -> FrameRun { FrameRun(start: frames[index], count: count) }

  /// The refused frame; nil: it has begun.
  func begin(_ runs: [FrameRun]) -> FrameNumber? {
    defer { bed.check() }
    do throws(TransferRefusal) {
      try server.beginTransfer(reference, runs)
      return nil
    } catch {
      return error.frame
    }
  }

  func end(_ runs: [FrameRun]) {
    server.endTransfer(runs)
    bed.check()
  }

  func unpin(_ start: UInt32, _ count: UInt32) -> CallFailure? {
    defer { bed.check() }
    do throws(CallFailure) {
      try server.unpin(task.slot, container, start: start, count: count)
      return nil
    } catch {
      return error
    }
  }
}

@Suite struct TransferTests {
  @Test("R22: a transfer begins only on frames that its driver has pinned") func whatMayBegin()
    throws
  {
    let bed = try Testbed()
    let driver = try Driver(bed)
    let all = (0..<4).map { driver.run($0) }
    #expect(driver.begin(all) == nil)
    driver.end(all)
    // A repeated frame counts twice.
    #expect(driver.begin([all[1], all[1]]) == nil)
    driver.end([all[1]])
    driver.end([all[1]])
    #expect(driver.unpin(2, 1) == nil)
    #expect(driver.begin(all) == driver.frames[2])
    #expect(driver.begin([FrameRun(start: .none, count: 1)]) == FrameNumber(0))
    #expect(driver.begin([FrameRun(start: FrameNumber(.max - 1), count: 1)]) == FrameNumber(.max - 1))
    // Another task's pins do not count, nor do its unpinned frames.
    let other = try Driver(bed)
    #expect(driver.begin([all[0], other.run(0)]) == other.frames[0])
    #expect(other.begin([other.run(0)]) == nil)
    other.end([other.run(0)])
    // The pin has expired.
    bed.machine.advance(microseconds: 1000)
    #expect(driver.begin([all[0]]) == driver.frames[0])
  }

  @Test("an ended driver begins no transfer, nor does the next task in its slot") func endedDriver() throws {
    let bed = try Testbed()
    let driver = try Driver(bed)
    driver.task.end()
    #expect(driver.begin([driver.run(0)]) == driver.frames[0])
    let next = try Driver(bed)
    #expect(next.task.slot == driver.task.slot)
    do throws(TransferRefusal) {
      try bed.server.beginTransfer(driver.reference, [next.run(0)])
      Issue.record("a task that has ended began a transfer")
    } catch {
      #expect(error.frame == next.frames[0])
    }
  }

  @Test("R22: a frame unpinned during a transfer stays until its last transfer ends") func unpinned() throws {
    let bed = try Testbed()
    let driver = try Driver(bed)
    let run = [driver.run(1)]
    #expect(driver.begin(run) == nil)
    #expect(driver.begin(run) == nil)
    #expect(driver.unpin(0, 4) == nil)
    // No other transfer begins, the driver does not have it pinned, and it is not free either.
    #expect(driver.begin(run) == driver.frames[1])
    #expect(driver.unpin(1, 1) == .noEntry)
    #expect(driver.task.deallocate(driver.container, 0, 1) == .ok(1))
    #expect(driver.task.deallocate(driver.container, 1, 1) == .failed(.busy, 1))
    driver.end(run)
    #expect(driver.task.deallocate(driver.container, 1, 1) == .failed(.busy, 1))
    driver.end(run)
    #expect(driver.task.deallocate(driver.container, 1, 1) == .ok(1))
  }

  @Test("R22: so does a frame whose pin expires, and a new pin takes it over") func expired() throws {
    let bed = try Testbed()
    let driver = try Driver(bed)
    let run = [driver.run(1)]
    #expect(driver.begin(run) == nil)
    bed.machine.advance(microseconds: 1000)
    #expect(driver.task.deallocate(driver.container, 1, 1) == .failed(.busy, 1))
    #expect(driver.begin(run) == driver.frames[1])
    try driver.pin(1, 1, microseconds: 5000)
    #expect(driver.begin(run) == nil)
    driver.end(run)
    driver.end(run)
    #expect(driver.begin(run) == nil)
    driver.end(run)
    #expect(driver.task.deallocate(driver.container, 1, 1) == .failed(.busy, 1))
    #expect(driver.unpin(1, 1) == nil)
    #expect(driver.task.deallocate(driver.container, 1, 1) == .ok(1))
  }

  @Test("R22: the end of a driver waits for a transfer in its own frames") func driverDies() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let before = bed.balance
    let task = try bed.start(image)
    let container = try task.container(2)
    var frames: [FrameNumber] = []
    try Driver.pin(task, container, 0, 2, &frames)
    let run = [FrameRun(start: frames[0], count: 1)]
    try bed.server.beginTransfer(TaskReference(slot: task.slot, id: task.id), run)
    var waits = 0
    bed.server.endTask(task.slot) { until in
      #expect(bed.violations == [])
      waits += 1
      // The frame is not reused meanwhile.
      if waits == 3 { bed.server.endTransfer(run) } else { bed.machine.advance(to: until) }
    }
    #expect(waits == 3)
    bed.check()
    #expect(bed.balance == before)
  }

  @Test("R21, R22: the end of a client waits for its driver's transfer, which the driver's end does not stop")
  func clientDies() throws {
    let bed = try Testbed()
    let driver = try bed.start()
    let client = try bed.start()
    let container = try client.container(1)
    try bed.server.share(client.slot, container, remote: 0, result: TestTask.scratch)
    let weak = try client.send(
      client.loadWord(), isMoved: false, to: driver, driver.endpoint("driver"), named: "driver")
    var frames: [FrameNumber] = []
    try Driver.pin(driver, weak, 0, 1, &frames)
    let run = [FrameRun(start: frames[0], count: 1)]
    try bed.server.beginTransfer(TaskReference(slot: driver.slot, id: driver.id), run)
    driver.end()
    #expect(client.deallocate(container, 0, 1) == .failed(.busy, 1))
    #expect(throws: CallFailure.busy) { try bed.server.revoke(client.slot, container) }
    // The next task in the driver's slot does not inherit it.
    let next = try bed.start()
    #expect(next.slot == driver.slot)
    next.end()
    #expect(client.deallocate(container, 0, 1) == .failed(.busy, 1))
    var waits = 0
    bed.server.endTask(client.slot) { until in
      waits += 1
      if waits == 2 { bed.server.endTransfer(run) } else { bed.machine.advance(to: until) }
    }
    #expect(waits == 2)
    bed.check()
  }

  @Test("a transfer of more frames than one step covers begins as a whole or not at all") func manySteps() throws {
    let bed = try Testbed(frames: 1 << 14)
    let task = try bed.start()
    let count: UInt32 = 5000
    let container = try task.container(count)
    let handle = try task.container(10)
    let buffer = TestTask.free
    #expect(task.map(handle, 0, 10, buffer, [.read, .write]) == nil)
    try bed.server.pin(
      task.slot, container, start: 0, count: count, microseconds: 1000, physical: buffer.address)
    var bytes = [UInt8](repeating: 0, count: Int(count) * 8)
    try bed.server.readMemory(task.slot, buffer.address, into: &bytes)
    let runs = (0..<Int(count)).map { index in
      let address = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[8 * index + $1]) << UInt64(8 * $1) }
      return FrameRun(start: FrameNumber(UInt32(address >> 12)), count: 1)
    }
    let reference = TaskReference(slot: task.slot, id: task.id)
    try bed.server.beginTransfer(reference, runs)
    bed.check()
    bed.server.endTransfer(runs)
    bed.check()
    try bed.server.unpin(task.slot, container, start: count - 1, count: 1)
    do throws(TransferRefusal) {
      try bed.server.beginTransfer(reference, runs)
      Issue.record("a transfer began without its last frame")
    } catch {
      #expect(error.frame == runs[Int(count) - 1].start)
    }
    bed.check()
    // Nothing is left of it: everything can be freed at once.
    try bed.server.unpin(task.slot, container, start: 0, count: count - 1)
    #expect(task.deallocate(container, 0, count) == .ok(count))
  }
}
