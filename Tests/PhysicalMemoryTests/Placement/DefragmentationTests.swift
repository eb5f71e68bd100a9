// Defragmentation (R25): scattered contents are compacted, scarce zones are vacated, and packed blocks are left alone.

import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

@Suite struct DefragmentationTests {
  private let free = TestTask.free

  @Test("the unusable free space index, against a count by hand") func unusable() {
    // 1 + 2·4 frames in one zone, 2 + 8 in another.
    let fragmentation = Fragmentation(freeRuns: [[1, 0, 2], [0, 1, 0, 1]])
    #expect(fragmentation.freeCount == 19)
    #expect(fragmentation.unusable(order: 0) == 0)
    #expect(fragmentation.unusable(order: 1) == 1.0 / 19)
    #expect(fragmentation.unusable(order: 2) == 3.0 / 19)
    #expect(fragmentation.unusable(order: 3) == 11.0 / 19)
    #expect(fragmentation.unusable(order: 4) == 1)
    #expect(Fragmentation(freeRuns: [[], [0]]).unusable(order: 0) == 0)
  }

  /// For each block of `length` frames, how many are free and how many are movable.
  private func blocks(_ bed: Testbed, _ size: Int, _ end: Int) -> [(free: Int, movable: Int, count: Int)] {
    let uses = bed.server.frameUses()
    return stride(from: 0, to: end, by: size).map { start in
      let block = uses[start..<min(start + size, end)]
      return (block.count { $0 == .free }, block.count { $0 == .movable }, block.count)
    }
  }

  private func run(_ bed: Testbed, _ size: Int) -> DefragmentationPass {
    var pass = DefragmentationPass(blockFrames: size)
    while bed.server.continueDefragmentation(&pass) { bed.check() }
    return pass
  }

  @Test("R25: scattered contents are compacted with their data, and then left alone") func together() throws {
    let bed = try Testbed(frames: 1024)
    let task = try bed.start()
    let handle = try task.numbered(600)
    for id in 0..<UInt32(600) where id % 4 != 2 { #expect(task.deallocate(handle, id, 1) == .ok(1)) }
    let before = bed.server.fragmentation.unusable(order: 5)
    let pass = run(bed, 32)
    #expect(pass.moved > 60)
    #expect(bed.server.fragmentation.unusable(order: 5) < before)
    // The first block is not emptied: it contains a frame of the machine. One other may be partly used.
    let found = blocks(bed, 32, 992).dropFirst()
    #expect(found.count { $0.free > 0 && $0.free < $0.count } <= 1)
    for id in stride(from: UInt32(2), to: 600, by: 4) { task.checkNumbered(id..<id + 1) }
    #expect(run(bed, 32).moved == 0)
  }

  @Test("R22, R25: a block with a pinned frame is not emptied, but filled") func pinned() throws {
    let bed = try Testbed(frames: 1024)
    let task = try bed.start()
    let handle = try task.numbered(600)
    let frames = task.frames(handle, 0..<600)
    let id = 301
    task.pin(handle, UInt32(id))
    for other in 0..<600 where other != id && other % 4 != 2 {
      #expect(task.deallocate(handle, UInt32(other), 1) == .ok(1))
    }
    _ = run(bed, 32)
    #expect(task.frames(handle, UInt32(id)..<UInt32(id) + 1) == [frames[id]])
    task.checkNumbered(UInt32(id)..<UInt32(id) + 1)
    for id in stride(from: UInt32(2), to: 600, by: 4) { task.checkNumbered(id..<id + 1) }
  }

  @Test("R25: contents are allocated and freed between two steps") func interleaved() throws {
    let bed = try Testbed(frames: 1024)
    let task = try bed.start()
    let handle = try task.numbered(600)
    for id in 0..<UInt32(600) where id % 4 != 2 { #expect(task.deallocate(handle, id, 1) == .ok(1)) }
    var pass = DefragmentationPass(blockFrames: 32)
    var next: UInt32 = 0
    while bed.server.continueDefragmentation(&pass) {
      bed.check()
      #expect(task.allocate(handle, 4 * next, 1) == .ok(1))
      #expect(task.write(free.advanced(by: Int(4 * next)), UInt8(truncatingIfNeeded: 4 * next + 1)) == nil)
      if next > 20 { #expect(task.deallocate(handle, 4 * (next - 20), 1) == .ok(1)) }
      next += 1
    }
    for id in stride(from: UInt32(2), to: 600, by: 4) { task.checkNumbered(id..<id + 1) }
  }

  @Test("R19, R25: no movable contents stay below 16 MiB while there is room above") func zones() throws {
    let bed = try Testbed(frames: 4096 + 400, isChecked: false)
    let task = try bed.start()
    let handle = try task.numbered(600)
    #expect(task.frames(handle, 0..<600).contains { $0 < 4096 })
    for id in 0..<UInt32(500) { #expect(task.deallocate(handle, id, 1) == .ok(1)) }
    #expect(task.place(handle, 1000, 5, PlacementRequest(below: 16 << 20)) == .ok(5))
    let placed = task.frames(handle, 1000..<1005)
    let low = task.frames(handle, 500..<600).count { $0 < 4096 }
    #expect(low > 0)
    let pass = run(bed, 512)
    #expect(bed.violations == [])
    #expect(pass.moved >= low)
    #expect(!bed.server.frameUses()[..<4096].contains(.movable))
    #expect(task.frames(handle, 1000..<1005) == placed)
    task.checkNumbered(500..<600)
  }
}
