// Prezeroing, and what happens when no frames are left.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct ZeroAheadTests {
  private func fill(_ bed: Testbed, _ target: Int) -> Int {
    var steps = 0
    while !bed.server.zeroAhead(target: target).isEmpty {
      steps += 1
      bed.check()
    }
    return steps
  }

  @Test("the stock is filled a few frames at a time, and not beyond the free frames") func filling() throws {
    let bed = try Testbed(frames: 256)
    #expect(fill(bed, 100) == 7)
    #expect(bed.statistics.stockedFrames == 100)
    #expect(bed.statistics.freeFrames == 255)
    _ = fill(bed, 10_000)
    // All but the frames kept for page tables.
    #expect(bed.statistics.stockedFrames == 255 - 32)
    let task = try bed.start()
    #expect(task.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
  }

  @Test("faults ask for zeroed frames once, when half of them are used") func asking() throws {
    let bed = try Testbed(frames: 1024, stock: 200)
    let task = try bed.start(bed.load(), TaskParameters(faultAround: .fixed(1)))
    let handle = try task.container(300)
    #expect(task.map(handle, 0, 300, TestTask.free, [.read, .write, .lazy]) == nil)
    #expect(bed.machine.wishes == 0)
    #expect(task.write(TestTask.free, 1) == nil)
    #expect(task.write(TestTask.free.advanced(by: 1), 1) == nil)
    #expect(bed.machine.wishes == 1)
    _ = fill(bed, 200)
    for page in 2..<102 { #expect(task.write(TestTask.free.advanced(by: page), 1) == nil) }
    #expect(bed.statistics.stockedFrames == 100)
    #expect(bed.machine.wishes == 1)
    for page in 102..<113 { #expect(task.write(TestTask.free.advanced(by: page), 1) == nil) }
    #expect(bed.machine.wishes == 2)
    #expect(bed.statistics.stockedFrames == 89)
  }

  @Test("R18: freed frames are zero when they come from the stock") func zeroed() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let count = UInt32(task.information.available)
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, TestTask.free, [.read, .write]) == nil)
    for page in 0..<Int(count) { #expect(task.write(TestTask.free.advanced(by: page), 0xff) == nil) }
    #expect(task.deallocate(handle, 0, count) == .ok(count))
    _ = fill(bed, 10_000)
    #expect(task.allocate(handle, 0, count) == .ok(count))
    for page in 0..<Int(count) { #expect(task.read(TestTask.free.advanced(by: page)) == .success(0)) }
  }

  @Test("R3: all frames can be used, freed, and used again by another task") func exhaustionAndRecovery() throws {
    let bed = try Testbed(frames: 512)
    let image = try bed.load()
    let before = bed.balance
    for _ in 0..<3 {
      let task = try bed.start(image)
      let count = UInt32(task.information.available)
      let handle = try task.container(count)
      #expect(task.map(handle, 0, count, TestTask.free, [.read, .write]) == nil)
      for page in stride(from: 0, to: Int(count), by: 37) {
        #expect(task.write(TestTask.free.advanced(by: page), 3) == nil)
      }
      #expect(throws: CallFailure.noMemory) { _ = try bed.start(image) }
      task.end()
      #expect(bed.balance == before)
    }
  }
}
