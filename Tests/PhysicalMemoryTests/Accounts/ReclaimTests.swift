// Reclaim of extra frames: which tasks wait, are asked and are dropped. Time and processor time are inputs.

import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct ReclaimTests {
  private static let pages = SampleProgram.pages
  /// Nanoseconds.
  private static let limit: UInt64 = 100_000_000

  /// A task with more than its guarantee.
  private struct Borrower {
    let task: TestTask
    let handle: UInt32

    /// - count: extra frames; nil: all there are.
    init(_ bed: Testbed, _ image: ImageNumber, _ count: Int? = nil) throws {
      task = try bed.start(image, TaskParameters(guaranteed: pages, hasContract: true))
      bed.machine.setProcessorTime(task.slot, 0)
      handle = try task.createContainer().get()
      let count = UInt32(count ?? task.information.available)
      #expect(task.allocate(handle, 0, count, .extra) == .ok(count))
    }
  }

  private let bed: Testbed
  private let image: ImageNumber

  init() throws {
    bed = try Testbed(frames: 512)
    image = try bed.load()
  }

  /// A task that may have `more` frames than it has, and its container.
  private func owner(_ more: Int) throws -> (task: TestTask, handle: UInt32) {
    let task = try bed.start(image, TaskParameters(guaranteed: Self.pages + more, hasContract: true))
    return (task, try task.createContainer().get())
  }

  private func waits(_ task: TestTask) -> Bool {
    defer { bed.check() }
    return bed.server.frameWait(task.slot) != .ready
  }

  @Test("R3, R28: a task with a claim waits until others have given frames back, and gets its frames") func served()
    throws
  {
    let (task, handle) = try owner(100)
    let borrower = try Borrower(bed, image)
    #expect(task.allocate(handle, 0, 40) == .failed(.waitForFrames, 40))
    // Nothing has changed.
    #expect(task.information.allocated == Self.pages)
    #expect(bed.machine.takeAsked().asked == [borrower.task.slot])
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 40)
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 0)
    #expect(bed.server.frameWait(task.slot) == .waiting(until: bed.machine.now + Self.limit))
    #expect(borrower.task.information.pressure == 100)
    #expect(borrower.task.deallocate(borrower.handle, 0, 30) == .ok(30))
    #expect(borrower.task.release(borrower.handle, (30..<39).map { UInt32($0) }) == nil)
    #expect(waits(task))
    // Returned frames are not lent again.
    #expect(borrower.task.allocate(borrower.handle, 0, 1, .extra) == .failed(.noMemory, 0))
    _ = bed.machine.wasWoken(task.slot)
    #expect(borrower.task.deallocate(borrower.handle, 39, 1) == .ok(1))
    #expect(bed.machine.wasWoken(task.slot))
    #expect(!waits(task))
    #expect(task.allocate(handle, 0, 40) == .ok(40))
    bed.server.endRequest(task.slot)
    #expect(task.information.allocated == Self.pages + 40)
    #expect(bed.statistics.upcalls == 1)
  }

  @Test("R28: demands made while the handler runs are reported at once, as one number") func merged() throws {
    let tasks = [try owner(40), try owner(33), try owner(34)]
    let borrower = try Borrower(bed, image)
    #expect(tasks[0].task.allocate(tasks[0].handle, 0, 40).error == .waitForFrames)
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 40)
    #expect(tasks[1].task.allocate(tasks[1].handle, 0, 33).error == .waitForFrames)
    #expect(tasks[2].task.allocate(tasks[2].handle, 0, 34).error == .waitForFrames)
    #expect(bed.statistics.upcalls == 3)
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 67)
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 0)
    // Frames given back before the report are not reported any more.
    #expect(borrower.task.deallocate(borrower.handle, 0, 107) == .ok(107))
    for (task, handle) in tasks {
      #expect(!waits(task))
      #expect(task.allocate(handle, 0, 1) == .ok(1))
      bed.server.endRequest(task.slot)
    }
  }

  @Test("R28: requests are served in order") func order() throws {
    let (first, firstHandle) = try owner(60)
    let (second, secondHandle) = try owner(60)
    let borrower = try Borrower(bed, image)
    #expect(first.allocate(firstHandle, 0, 60).error == .waitForFrames)
    #expect(second.allocate(secondHandle, 0, 10).error == .waitForFrames)
    #expect(borrower.task.deallocate(borrower.handle, 0, 59) == .ok(59))
    #expect(waits(first) && waits(second))
    #expect(borrower.task.deallocate(borrower.handle, 59, 1) == .ok(1))
    #expect(!waits(first) && waits(second))
    #expect(borrower.task.deallocate(borrower.handle, 60, 10) == .ok(10))
    #expect(!waits(second))
    #expect(second.allocate(secondHandle, 0, 10) == .ok(10))
    #expect(first.allocate(firstHandle, 0, 60) == .ok(60))
  }

  @Test("R28: frames set aside for a call that asks for more when repeated go to earlier requests") func wantsMore()
    throws
  {
    let (first, firstHandle) = try owner(60)
    let (second, secondHandle) = try owner(60)
    let borrower = try Borrower(bed, image)
    #expect(first.allocate(firstHandle, 0, 10).error == .waitForFrames)
    #expect(second.allocate(secondHandle, 0, 5).error == .waitForFrames)
    #expect(borrower.task.deallocate(borrower.handle, 0, 10) == .ok(10))
    #expect(!waits(first) && waits(second))
    _ = bed.machine.wasWoken(second.slot)
    #expect(first.allocate(firstHandle, 0, 20).error == .waitForFrames)
    #expect(bed.machine.wasWoken(second.slot))
    #expect(waits(first) && !waits(second))
    #expect(second.allocate(secondHandle, 0, 5) == .ok(5))
  }

  @Test("R28: an upcall demands at least 32 frames, and never more than the extra ones") func amounts() throws {
    let most = bed.statistics.allocatableFrames - 3 * Self.pages
    let (task, handle) = try owner(most)
    let small = try Borrower(bed, image, 5)
    let large = try Borrower(bed, image)
    #expect(task.allocate(handle, 0, 1).error == .waitForFrames)
    #expect(bed.server.takeReturnRequest(large.task.slot) == 32)
    #expect(bed.server.takeReturnRequest(small.task.slot) == 0)
    bed.server.endRequest(task.slot)
    let extra = large.task.information.allocated - Self.pages
    #expect(extra + 5 == most)
    #expect(task.allocate(handle, 0, UInt32(extra + 3)).error == .waitForFrames)
    #expect(bed.server.takeReturnRequest(large.task.slot) == extra - 32)
    // Three are missing, and at most five can be demanded.
    #expect(bed.server.takeReturnRequest(small.task.slot) == 5)
    bed.server.endRequest(task.slot)
    bed.check()
  }

  @Test("R30: the victim has the most extra frames; among equals, it was asked longest ago") func selection() throws {
    // A task that uses all of its guarantee leaves 170 frames to lend, and some for tables.
    let rest = bed.statistics.allocatableFrames - 5 * Self.pages - 178
    let (full, fullHandle) = try owner(rest)
    #expect(full.allocate(fullHandle, 0, UInt32(rest)) == .ok(UInt32(rest)))
    let (task, handle) = try owner(170)
    let borrowers = try [50, 60, 60].map { try Borrower(bed, image, $0) }
    let left = UInt32(full.information.available)
    #expect(full.allocate(fullHandle, UInt32(rest), left, .extra) == .ok(left))
    var asked: [TaskSlot] = []
    for round in 0..<4 {
      #expect(task.allocate(handle, 0, UInt32(32 * round + 1)).error == .waitForFrames)
      asked += bed.machine.takeAsked().asked
      bed.server.endRequest(task.slot)
    }
    // 60 of the first, 60 of the second, then 50; of 28 and 28, the task that was asked longest ago.
    #expect(asked == [1, 2, 0, 1].map { borrowers[$0].task.slot })
  }

  @Test("R30: a task is dropped only after the time limit and 5 ms of processor time") func late() throws {
    let (task, handle) = try owner(100)
    let borrower = try Borrower(bed, image)
    let victim = borrower.task.slot
    bed.machine.setProcessorTime(victim, 7_000_000)
    #expect(task.allocate(handle, 0, 40).error == .waitForFrames)
    let deadline = bed.machine.now + Self.limit
    bed.machine.setProcessorTime(victim, 90_000_000)
    bed.machine.advance(to: deadline - 1)
    #expect(bed.server.frameWait(task.slot) == .waiting(until: deadline))
    bed.machine.setProcessorTime(victim, 11_999_999)
    bed.machine.advance(to: deadline)
    #expect(bed.server.frameWait(task.slot) == .waiting(until: deadline + 1_000_000))
    #expect(bed.machine.takeAsked().dropped == [])
    bed.machine.setProcessorTime(victim, 12_000_000)
    #expect(waits(task))
    #expect(bed.machine.takeAsked().dropped == [victim])
    #expect(bed.statistics.tasksDropped == 1)
    #expect(waits(task))
    borrower.task.end()
    #expect(!waits(task))
    #expect(task.allocate(handle, 0, 40) == .ok(40))
    bed.server.endRequest(task.slot)
    // All its frames are free again.
    #expect(bed.statistics.allocatedFrames == Self.pages + 40)
  }

  @Test("R28, R30: after a partial return the rest is due at the same deadline") func part() throws {
    let (task, handle) = try owner(100)
    let borrower = try Borrower(bed, image)
    #expect(task.allocate(handle, 0, 40).error == .waitForFrames)
    let deadline = bed.machine.now + Self.limit
    bed.machine.advance(microseconds: 50_000)
    #expect(borrower.task.deallocate(borrower.handle, 0, 39) == .ok(39))
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 1)
    bed.machine.setProcessorTime(borrower.task.slot, 5_000_000)
    #expect(bed.server.frameWait(task.slot) == .waiting(until: deadline))
    bed.machine.advance(to: deadline)
    #expect(waits(task))
    #expect(bed.machine.takeAsked().dropped == [borrower.task.slot])
    borrower.task.end()
    #expect(!waits(task))
  }

  @Test("R28: a request ends with its task") func requesterEnds() throws {
    let (task, handle) = try owner(100)
    let (other, otherHandle) = try owner(50)
    let borrower = try Borrower(bed, image)
    #expect(task.allocate(handle, 0, 100).error == .waitForFrames)
    #expect(other.allocate(otherHandle, 0, 20).error == .waitForFrames)
    #expect(waits(other))
    // Its frames serve the next request.
    task.end()
    #expect(!waits(other))
    #expect(other.allocate(otherHandle, 0, 20) == .ok(20))
    bed.server.endRequest(other.slot)
    #expect(borrower.task.information.available > 0)
    borrower.task.end()
  }

  @Test("R4, R28: frames that a task waits for are not promised to others, with or without a contract") func promised()
    throws
  {
    let task = try bed.start(image)
    let handle = try task.createContainer().get()
    let borrower = try Borrower(bed, image)
    let left = bed.statistics.allocatableFrames - bed.statistics.claimedFrames
    #expect(task.allocate(handle, 0, 50).error == .waitForFrames)
    #expect(bed.statistics.claimedFrames == bed.statistics.allocatableFrames - left + 50)
    #expect(throws: CallFailure.noMemory) {
      try bed.start(image, TaskParameters(guaranteed: left - 49, hasContract: true))
    }
    #expect(borrower.task.deallocate(borrower.handle, 0, 50) == .ok(50))
    #expect(!waits(task))
    #expect(task.allocate(handle, 0, 50) == .ok(50))
    bed.server.endRequest(task.slot)
    #expect(task.information.allocated == Self.pages + 50)
  }

  @Test("R28: after a guarantee was raised, no more is demanded than is extra then") func guaranteeRaised() throws {
    let (task, handle) = try owner(10)
    let borrower = try Borrower(bed, image)
    #expect(task.allocate(handle, 0, 1).error == .waitForFrames)
    let slot = borrower.task.slot
    // All but what the other task claims.
    let most = bed.statistics.allocatableFrames - Self.pages - 10
    let isSet = bed.server.withState { state in
      let isSet = state.ledger.set(&state.tasks[slot].entitlement, guaranteed: most, hasContract: true)
      state.limitDemands(slot)
      return isSet
    }
    #expect(isSet == true)
    bed.check()
    // It was asked for 32.
    #expect(bed.server.takeReturnRequest(slot) == 10)
    #expect(borrower.task.deallocate(borrower.handle, 0, 10) == .ok(10))
    #expect(!waits(task))
  }

  @Test("R3, R28: a new task waits for its first frames") func start() throws {
    let borrower = try Borrower(bed, image)
    var waits = 0
    let (slot, _) = try bed.server.createTask(image, TaskParameters(guaranteed: Self.pages, hasContract: true)) {
      task, until in
      waits += 1
      #expect(until == bed.machine.now + Self.limit)
      let wanted = UInt32(bed.server.takeReturnRequest(borrower.task.slot))
      #expect(borrower.task.deallocate(borrower.handle, 0, wanted) == .ok(wanted))
      #expect(bed.machine.wasWoken(task))
    }
    bed.check()
    #expect(waits == 1)
    #expect(bed.server.taskInformation(slot).allocated == Self.pages)
  }
}
