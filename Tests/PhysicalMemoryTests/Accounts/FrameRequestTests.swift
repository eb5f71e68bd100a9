// Requests for frames that other tasks must give back first: what may change meanwhile.

import PhysicalMemory
import Testing

@Suite struct FrameRequestTests {
  private static func contract(_ guaranteed: Int) -> TaskParameters {
    TaskParameters(guaranteed: guaranteed, hasContract: true)
  }

  /// Lends all frames to a task. Returns the task and the container that holds them.
  private static func lendAll(_ bed: Testbed, _ image: ImageNumber) throws -> (TestTask, UInt32, UInt32) {
    let borrower = try bed.start(image, contract(60))
    let container = try borrower.createContainer().get()
    let all = UInt32(borrower.information.available)
    #expect(borrower.allocate(container, 0, all, .extra) == .ok(all))
    return (borrower, container, all)
  }

  @Test("R4, R8: frames that a task without a contract waits for are not promised to others")
  func promisedToNobodyElse() throws {
    let bed = try Testbed(frames: 400)
    let image = try bed.load()
    let plain = try bed.start(image)
    let wanted = try plain.createContainer().get()
    let (borrower, container, all) = try Self.lendAll(bed, image)
    #expect(plain.allocate(wanted, 0, 50) == .failed(.waitForFrames, 50))
    let rest = bed.statistics.allocatableFrames - bed.statistics.claimedFrames
    var isAsked = false
    let (slot, _) = try bed.server.createTask(image, Self.contract(rest)) { _, _ in
      if !isAsked { #expect(borrower.deallocate(container, 0, all) == .ok(all)) }
      isAsked = true
    }
    #expect(isAsked && bed.server.taskInformation(slot).guaranteed == rest)
    #expect(bed.server.frameWait(plain.slot) == .ready)
    #expect(plain.allocate(wanted, 0, 50) == .ok(50))
    bed.server.endRequest(plain.slot)
    bed.check()
  }

  @Test("R3: a starting task gets its machine frame from a borrower of all frames") func machineFrame() throws {
    let bed = try Testbed(frames: 400)
    let image = try bed.load()
    let beginner = try bed.start(image, Self.contract(60))
    let (borrower, container, _) = try Self.lendAll(bed, image)
    #expect(bed.server.takeMachineFrame() == nil)
    var waits = 0
    let frame = bed.server.takeMachineFrame(for: beginner.slot) { _ in
      waits += 1
      #expect(borrower.deallocate(container, 0, 1) == .ok(1))
    }
    #expect(frame != nil && waits == 1)
    #expect(beginner.information.allocated == SampleProgram.pages)
    if let frame { bed.server.giveMachineFrame(frame) }
    bed.check()
  }
}
