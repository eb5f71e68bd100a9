// Moving contents between frames (R17, R25): tasks see no change, and pinned and placed contents stay.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

private let free = TestTask.free

@Suite struct MovingTests {
  /// Moves the content of exactly that frame.
  private func move(_ bed: Testbed, _ frame: Int) {
    #expect(bed.server.frameUses()[frame] == .movable)
    #expect(bed.server.moveSomeFrame(UInt64(frame)))
    #expect(bed.server.frameUses()[frame] == .free)
    bed.check()
  }

  private func copy(_ task: TestTask, _ source: UInt32, _ target: UInt32, _ count: UInt32) {
    #expect(throws: Never.self) {
      try task.server.copy(task.slot, source, .from(0), target, .from(0), count: count, frameError: 0)
    }
  }

  @Test("R17, R25: every leaf of a content shows its new frame, with the same rights") func sharers() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(3)
    let copies = try task.container(3)
    copy(task, handle, copies, 3)
    let places = [
      (handle, free.advanced(by: 100)), (copies, free.advanced(by: 200)), (copies, free.advanced(by: 2000)),
    ]
    for (handle, page) in places { #expect(task.map(handle, 0, 3, page, [.read, .write, .lazy]) == nil) }
    let pages = [free] + places.map(\.1)
    for page in pages { #expect(task.read(page.advanced(by: 1)) == .success(2)) }
    // All read-only, since it is shared.
    let before = pages.map { task.leaf($0.advanced(by: 1))?.rights }
    let frame = task.frames(handle, 1..<2)[0]
    let leaves = bed.machine.leafCount
    move(bed, frame)
    let moved = task.frames(handle, 1..<2)
    #expect(moved != [frame] && task.frames(copies, 1..<2) == moved)
    #expect(pages.map { task.leaf($0.advanced(by: 1))?.rights } == before)
    #expect(pages.allSatisfy { task.leaf($0.advanced(by: 1)).map { [Int($0.frame.rawValue)] } == moved })
    #expect(bed.machine.leafCount == leaves)
    task.checkNumbered(0..<3)
    #expect(task.write(free.advanced(by: 201), 99) == nil)
    task.checkNumbered(0..<3)
    #expect(task.read(free.advanced(by: 2001)) == .success(99))
    task.end()
  }

  @Test("R25: a write through a stale translation is not lost") func writers() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(1)
    for round in 0..<50 {
      let byte = UInt8(round + 100)
      // The machine keeps the translation until the frame is zapped.
      #expect(bed.machine.store(task.slot, free.address + 7, byte))
      move(bed, task.frames(handle, 0..<1)[0])
      #expect(task.read(free, 7) == .success(byte))
    }
    task.checkNumbered(0..<1)
  }

  @Test("R22, R19: pinned and placed contents are not moved") func fixed() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let handle = try task.numbered(3)
    #expect(task.place(handle, 10, 2, PlacementRequest.run) == .ok(2))
    task.pin(handle, 1)
    let pinned = task.frames(handle, 1..<2)
    let placed = task.frames(handle, 10..<12)
    for random in 0..<UInt64(1000) { _ = bed.server.moveSomeFrame(random) }
    bed.check()
    #expect(task.frames(handle, 1..<2) == pinned && task.frames(handle, 10..<12) == placed)
    #expect(bed.statistics.framesMoved == 1000)
    task.checkNumbered(0..<3)
    // After the pin has ended it is movable.
    #expect(throws: Never.self) { try task.server.unpin(task.slot, handle, start: 1, count: 1) }
    move(bed, pinned[0])
    task.checkNumbered(0..<3)
  }

  @Test("R31: a released content is moved, and recovered with its data") func released() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.numbered(4)
    let frame = task.frames(handle, 2..<3)[0]
    #expect(task.release(handle, [2]) == nil)
    move(bed, frame)
    #expect(task.recover(handle, [2]) == nil)
    task.checkNumbered(0..<4)
    #expect(task.frames(handle, 2..<3) != [frame])
  }

  @Test("Without a free frame nothing is moved, and nothing is lost") func full() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start()
    let all = UInt32(task.information.available)
    let handle = try task.numbered(all)
    // Including all of its image and its stack, with private text.
    let rest = UInt32(SampleProgram.pages)
    let page = free.advanced(by: 4096)
    #expect(task.map(TestTask.container, 0, rest, page, [.read, .write, .forceWrite]) == nil)
    #expect(!bed.server.frameUses().contains(.free))
    #expect(!bed.server.moveSomeFrame(5))
    task.checkNumbered(0..<all)
    #expect(task.deallocate(handle, 0, 1) == .ok(1))
    #expect(bed.server.moveSomeFrame(5))
    task.checkNumbered(1..<all)
  }
}
