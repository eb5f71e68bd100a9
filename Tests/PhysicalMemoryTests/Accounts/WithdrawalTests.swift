// Withdrawals, mainly for page tables: where all frames are lent, other tasks give some back.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct WithdrawalTests {
  private static func contract(_ guaranteed: Int) -> TaskParameters {
    TaskParameters(guaranteed: guaranteed, hasContract: true)
  }

  /// Pages that need page tables of their own.
  private static func far(_ index: Int) -> PageNumber { TestTask.free.advanced(by: index << 27) }

  /// A task with `count` frames, each mapped far from all others.
  private static func sparse(_ bed: Testbed, _ image: ImageNumber, _ count: Int) throws -> TestTask {
    let task = try bed.start(image, contract(SampleProgram.pages + count))
    let container = try task.container(UInt32(count))
    for index in 0..<count {
      #expect(task.map(container, UInt32(index), 1, far(index), [.read, .write, .lazy]) == nil)
    }
    return task
  }

  /// A task that has borrowed all frames.
  private struct Borrower {
    let task: TestTask
    let container: UInt32
    private(set) var count: UInt32

    init(_ bed: Testbed, _ image: ImageNumber) throws {
      task = try bed.start(image, contract(SampleProgram.pages))
      container = try task.createContainer().get()
      count = UInt32(task.information.available)
      #expect(task.allocate(container, 0, count, .extra) == .ok(count))
    }

    mutating func giveBack(_ wanted: Int) {
      #expect(task.deallocate(container, count - UInt32(wanted), UInt32(wanted)) == .ok(UInt32(wanted)))
      count -= UInt32(wanted)
    }
  }

  @Test("R3: other tasks give frames back for the tables of distant pages; a borrower does not wait")
  func farPages() throws {
    let bed = try Testbed(frames: 600)
    let image = try bed.load()
    let task = try Self.sparse(bed, image, 40)
    let second = try Self.sparse(bed, image, 1)
    var borrower = try Borrower(bed, image)
    let frames = task.information.allocated
    var waits = 0
    for index in 0..<40 {
      guard let outcome = task.write(Self.far(index), 7) else { continue }
      #expect(outcome == .waitForFrames)
      waits += 1
      guard case .waiting = bed.server.frameWait(task.slot) else {
        Issue.record("no demand was made")
        return
      }
      let asked = bed.server.takeReturnRequest(borrower.task.slot)
      #expect(asked == 32)
      borrower.giveBack(asked)
      #expect(bed.server.frameWait(task.slot) == .ready)
      #expect(task.write(Self.far(index), 7) == nil)
      bed.server.endRequest(task.slot)
      bed.check()
    }
    #expect(waits >= 2 && task.information.allocated == frames)
    let left = UInt32(borrower.task.information.available)
    #expect(borrower.task.allocate(borrower.container, borrower.count, left, .extra) == .ok(left))
    #expect(borrower.task.map(borrower.container, 0, 1, Self.far(1), [.read, .write, .lazy]) == nil)
    #expect(borrower.task.write(Self.far(1), 1) == .noMemory)
    // The same in a call; no demand is made until the task waits.
    #expect(throws: CallFailure.waitForFrames) {
      try bed.server.checkReadable(second.slot, Self.far(0).address, 1)
    }
    #expect(bed.server.takeReturnRequest(borrower.task.slot) == 0)
    bed.check()
  }

  @Test("R3, R4: awaited frames are not promised to others, and are free again when the wait is given up")
  func promisedOnce() throws {
    let bed = try Testbed(frames: 600)
    let image = try bed.load()
    let tasks = [try Self.sparse(bed, image, 30), try Self.sparse(bed, image, 1)]
    let rest = try bed.start(image, Self.contract(SampleProgram.pages))
    for index in 0..<30 { #expect(tasks[0].write(Self.far(index), 1) == nil) }
    while bed.statistics.allocatableFrames - bed.statistics.claimedFrames > 3 {
      _ = try #require(bed.server.takeMachineFrame())
    }
    let container = try rest.createContainer().get()
    let lent = UInt32(rest.information.available)
    #expect(rest.allocate(container, 0, lent, .extra) == .ok(lent))
    #expect(tasks[1].fault(Self.far(0), .write) == .waitForFrames)
    guard case .waiting = bed.server.frameWait(tasks[1].slot) else {
      Issue.record("no demand was made")
      return
    }
    #expect(bed.statistics.allocatableFrames == bed.statistics.claimedFrames)
    #expect(tasks[0].map(UInt32(PM_CAP_CONTAINER), 0, 1, Self.far(60), .read) == .noMemory)
    bed.server.endRequest(tasks[1].slot)
    bed.check()
    #expect(bed.statistics.allocatableFrames == bed.statistics.claimedFrames + 3)
    #expect(tasks[0].map(UInt32(PM_CAP_CONTAINER), 0, 1, Self.far(60), .read) == .waitForFrames)
  }

  @Test("R3: a task starts when its first table must come from others") func launch() throws {
    let bed = try Testbed(frames: 600)
    let image = try bed.load()
    let greedy = try Self.sparse(bed, image, 30)
    for index in 0..<30 { #expect(greedy.write(Self.far(index), 1) == nil) }
    var borrower = try Borrower(bed, image)
    var waits = 0
    let (slot, _) = try bed.server.createTask(image, Self.contract(SampleProgram.pages)) { _, _ in
      waits += 1
      borrower.giveBack(bed.server.takeReturnRequest(borrower.task.slot))
      bed.check()
    }
    #expect(waits > 1)
    bed.server.endTask(slot)
    bed.check()
  }

  @Test("R3: a task that ends while it waits for its first table leaves nothing behind") func launchGivenUp() throws {
    let bed = try Testbed(frames: 600)
    let image = try bed.load()
    let greedy = try Self.sparse(bed, image, 30)
    for index in 0..<30 { #expect(greedy.write(Self.far(index), 1) == nil) }
    let borrower = try Borrower(bed, image)
    let before = bed.balance
    #expect(throws: CallFailure.noMemory) {
      try bed.server.createTask(image, Self.contract(SampleProgram.pages)) { slot, until in
        // All that is left is promised away, so that its root table cannot be had any more.
        while bed.server.takeMachineFrame() != nil {}
        bed.machine.advance(to: until)
        bed.server.endRequest(slot)
        _ = borrower.task.deallocate(borrower.container, 0, borrower.count)
        while bed.server.takeMachineFrame() != nil {}
      }
    }
    #expect(bed.statistics.tasks == before.tasks)
    bed.check()
  }

  @Test("R3, R13: the policy buffer grows into frames that other tasks give back") func policyBuffer() throws {
    let bed = try Testbed(frames: 8192, tasks: 200)
    let image = try bed.load()
    let policy = try PolicyTask(try bed.start(image))
    for _ in 2..<64 { _ = try bed.start(image) }
    var borrower = try Borrower(bed, image)
    var waits = 0
    let (slot, id) = try bed.server.createTask(image, Self.contract(50)) { _, until in
      waits += 1
      let asked = bed.server.takeReturnRequest(borrower.task.slot)
      if asked > 0 { borrower.giveBack(asked) } else { bed.machine.advance(to: until) }
      // No policy is set yet for the task without an entry.
      #expect(policy.commit() == nil)
      bed.check()
    }
    #expect(slot == TaskSlot(64) && waits > 1)
    #expect(try policy.map() == 128)
    let entry = try policy.entry(slot)
    #expect(entry.task == id.rawValue && entry.guaranteed == 50 && entry.granted == 50)
    bed.check()
  }
}
