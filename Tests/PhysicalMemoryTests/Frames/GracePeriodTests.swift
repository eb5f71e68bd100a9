// Grace periods: frames wait while a vCPU may access them, and no request fails because of that.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct GracePeriodTests {
  @Test("Safety: frames that wait are in two lists, count as free, and keep their contents")
  func waitingFrames() throws {
    var pool = try FramePool(frameCount: 4096)
    let free = pool.freeCount
    let (run, other) = (pool.takeRun(count: 3), pool.takeFrame())
    guard let run, let other else { throw CallFailure.noMemory }
    pool.isGiving = false
    pool.give(run)
    pool.endPeriod()
    pool.give(other)
    expect(&pool, free: free, waiting: 4, ending: 3)
    let isTaken = pool.isFree(run) || pool.takeFixed(run)
    #expect(!isTaken)
    pool.giveEnded(most: 2)
    expect(&pool, free: free, waiting: 2, ending: 1)
    pool.giveEnded(most: 2)
    pool.endPeriod()
    pool.giveEnded(most: 2)
    expect(&pool, free: free, waiting: 0, ending: 0)
    let isFree = pool.isFree(run) && pool.isDirty(other)
    #expect(isFree)
  }

  private func expect(_ pool: inout FramePool, free: Int, waiting: Int, ending: Int) {
    let found = (pool.freeCount, pool.takeableCount, pool.waitingCount, pool.endingCount)
    #expect(found == (free, free - waiting, waiting, ending))
    let violations = pool.checkInvariants()
    #expect(violations == [])
  }

  private let free = TestTask.free

  @Test("Safety: a frame vacated by a move waits until the task that mapped it has left the machine")
  func moved() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(1)
    let frame = task.frames(handle, 0..<1)[0]
    bed.machine.enter(task.slot)
    #expect(bed.server.moveSomeFrame(UInt64(frame)))
    #expect(task.frames(handle, 0..<1) != [frame])
    // Checking alone does not end it.
    #expect(bed.server.waitingFrames == 1 && bed.server.frameUses()[frame] == .free)
    #expect(bed.machine.watches == 1 && bed.machine.hurries == 0)
    // A later visit cannot access it.
    bed.machine.leave(task.slot)
    bed.machine.enter(task.slot)
    #expect(bed.server.waitingFrames == 0)
    bed.check()
    task.end()
  }

  @Test("Safety: nothing waits for a task outside the machine, as during its own calls")
  func outside() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let other = try bed.start()
    bed.machine.enter(other.slot)
    let handle = try task.numbered(10)
    #expect(task.deallocate(handle, 0, 10) == .ok(10))
    #expect(bed.server.waitingFrames == 0 && bed.machine.watches == 0)
    task.end()
    other.end()
  }

  @Test("Safety: a released frame whose id is dropped waits for the task that mapped it") func released() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(1)
    bed.machine.enter(task.slot)
    #expect(task.release(handle, [0]) == nil)
    #expect(bed.server.waitingFrames == 0 && bed.statistics.releasedFrames == 1)
    try bed.server.destroyContainer(task.slot, handle)
    #expect(bed.server.waitingFrames == 1)
    bed.machine.leave(task.slot)
    #expect(bed.server.waitingFrames == 0)
    bed.check()
    task.end()
  }

  @Test("R17, R24: a content is moved or shared only after KVM's own writes to its frame are in memory")
  func settled() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(2)
    let copies = try task.container(2)
    func copy(_ id: UInt32) throws {
      try bed.server.copy(task.slot, handle, .from(id), copies, .from(id), count: 1, frameError: 0)
    }
    func move() { #expect(bed.server.moveSomeFrame(UInt64(task.frames(handle, 1..<2)[0]))) }
    // No write is under way.
    try copy(0)
    move()
    #expect(bed.machine.settles == 0)
    #expect(task.read(free.advanced(by: 1)) == .success(2))
    bed.machine.enter(task.slot)
    try copy(1)
    #expect(bed.machine.settles == 1)
    move()
    #expect(bed.machine.settles == 2)
    bed.machine.leave(task.slot)
    move()
    #expect(bed.machine.settles == 2)
    bed.check()
    task.end()
  }

  @Test("Safety: a task that never leaves the machine is kicked by the watcher")
  func watched() throws {
    let bed = try Testbed()
    let task = try bed.start()
    _ = try task.numbered(1)
    bed.machine.enter(task.slot)
    #expect(bed.server.moveSomeFrame(300))
    #expect(!bed.server.watchGracePeriods())
    #expect(bed.machine.hurries == 1 && bed.server.waitingFrames == 0)
    #expect(!bed.server.watchGracePeriods())
    task.end()
  }

  @Test("Safety: later visits do not delay frames that have waited")
  func periods() throws {
    let bed = try Testbed()
    let tasks = [try bed.start(), try bed.start()]
    let handles = try tasks.map { try $0.numbered(1) }
    bed.machine.enter(tasks[0].slot)
    #expect(bed.server.moveSomeFrame(UInt64(tasks[0].frames(handles[0], 0..<1)[0])))
    #expect(bed.server.waitingFrames == 1)
    bed.machine.enter(tasks[1].slot)
    #expect(bed.server.moveSomeFrame(UInt64(tasks[1].frames(handles[1], 0..<1)[0])))
    #expect(bed.server.waitingFrames == 2)
    bed.machine.leave(tasks[0].slot)
    #expect(bed.server.waitingFrames == 1)
    bed.machine.leave(tasks[1].slot)
    #expect(bed.server.waitingFrames == 0)
    for task in tasks { task.end() }
  }

  /// All frames but those of the task that is to wait: `count` of them are mapped, then freed together.
  @Test("R3: where all free frames wait, an access waits too and does not fail")
  func nothingElse() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let count = UInt32(task.information.available)
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, free, [.read, .write, .lazy]) == nil)
    for id in 0..<Int(count) { #expect(task.write(free.advanced(by: id), 1) == nil) }
    bed.machine.enter(task.slot)
    #expect(task.deallocate(handle, 0, count) == .ok(count))
    #expect(task.allocate(handle, 0, count) == .ok(count))
    // Its own mapping shows the fresh frames.
    for id in 0..<Int(count) { #expect(task.read(free.advanced(by: id)) == .success(0)) }
    #expect(bed.machine.hurries > 0)
    task.end()
  }

  @Test("R19: a waiting frame can be allocated by its address")
  func placed() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(1)
    let frame = UInt64(task.frames(handle, 0..<1)[0]) << 12
    let placed = try task.container(0)
    bed.machine.enter(task.slot)
    #expect(task.deallocate(handle, 0, 1) == .ok(1))
    #expect(bed.server.waitingFrames == 1)
    #expect(task.place(placed, 0, 1, PlacementRequest(fixed: frame)) == .ok(1))
    #expect(task.frames(placed, 0..<1) == [Int(frame >> 12)])
    task.end()
  }
}
