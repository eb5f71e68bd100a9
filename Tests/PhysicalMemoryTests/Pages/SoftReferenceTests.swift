// Released frames: uncharged, and recoverable with their content until their frames are needed.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

extension TestTask {
  /// The address of the ids for calls: the start of a page below the results.
  private static let list = PM_STACK_TOP - 8192

  private func storeIDs(_ ids: [UInt32]) {
    let bytes = ids.flatMap { id in (0..<4).map { UInt8(truncatingIfNeeded: id >> UInt32(8 * $0)) } }
    #expect(throws: Never.self) { try server.writeMemory(slot, Self.list, bytes.span) }
  }

  func release(
    _ handle: UInt32, _ ids: [UInt32], sourceLocation: SourceLocation = #_sourceLocation
  ) -> CallFailure? {
    storeIDs(ids)
    return error(sourceLocation) { () throws(CallFailure) in
      try server.releasePages(slot, handle, frames: Self.list, count: UInt32(ids.count))
    }
  }

  /// Stores the id an error is about at `scratch`.
  func recover(
    _ handle: UInt32, _ ids: [UInt32], sourceLocation: SourceLocation = #_sourceLocation
  ) -> CallFailure? {
    storeIDs(ids)
    return error(sourceLocation) { () throws(CallFailure) in
      try server.recoverPages(slot, handle, frames: Self.list, count: UInt32(ids.count), frameError: Self.scratch)
    }
  }

  /// The ids whose content has expired.
  func expired(
    _ handle: UInt32, _ ids: [UInt32], sourceLocation: SourceLocation = #_sourceLocation
  ) -> [UInt32] {
    storeIDs(ids)
    let error = error(sourceLocation) { () throws(CallFailure) in
      try server.expiredPages(
        slot, handle, frames: Self.list, count: UInt32(ids.count), result: Self.list)
    }
    #expect(error == nil, sourceLocation: sourceLocation)
    var flags = [UInt8](repeating: 0, count: ids.count)
    #expect(throws: Never.self) { try server.readMemory(slot, Self.list, into: &flags) }
    return zip(ids, flags).filter { $0.1 == 1 }.map(\.0)
  }
}

@Suite struct SoftReferenceTests {
  private static let page = TestTask.free

  /// A container of `count` frames, mapped from `page` on, each with different data.
  private func filled(_ task: TestTask, _ count: UInt32) throws -> UInt32 {
    let handle = try task.container(count)
    #expect(task.map(handle, 0, count, Self.page, [.read, .write]) == nil)
    for id in 0..<count { #expect(task.write(Self.page.advanced(by: Int(id)), UInt8(id + 1)) == nil) }
    return handle
  }

  @Test("R31: a released frame is uncharged and unmapped, and recovered unchanged") func recovery() throws {
    let task = try Testbed().start()
    let handle = try filled(task, 4)
    let before = task.information.allocated
    #expect(task.release(handle, [2, 0, 2]) == nil)
    #expect(task.information.allocated == before - 2)
    #expect(task.bed.statistics.releasedFrames == 2)
    #expect(task.read(Self.page).outcome == .notMapped)
    #expect(task.read(Self.page.advanced(by: 1)) == .success(2))
    #expect(task.expired(handle, [0, 1, 2, 9]) == [9])
    #expect(task.recover(handle, [0, 2]) == nil)
    #expect(task.information.allocated == before)
    #expect(task.read(Self.page) == .success(1))
    #expect(task.read(Self.page.advanced(by: 2)) == .success(3))
    #expect(task.write(Self.page, 9) == nil)
    #expect(task.bed.statistics.releasedFrames == 0)
  }

  @Test("R31, R32: released frames are reused only when no other is free, the oldest first")
  func oldestFirst() throws {
    let bed = try Testbed(frames: 256)
    let task = try bed.start(TaskParameters(faultAround: .fixed(1)))
    let handle = try filled(task, 100)
    // Neither the order of the ids nor its reverse.
    let order = (0..<UInt32(100)).map { $0 * 7 % 100 }
    for id in order { #expect(task.release(handle, [id]) == nil) }
    let most = UInt32(task.information.available)
    let other = try task.container(most)
    let far = PageNumber(Self.page.rawValue + 1024)
    #expect(task.map(other, 0, most, far, [.read, .write, .lazy]) == nil)
    for id in 0..<Int(most) {
      // Frames kept for page tables are used for contents only when nothing else is left.
      let free = bed.statistics.freeFrames - (32 - bed.statistics.tableFrames)
      let gone = bed.statistics.framesExpired
      #expect(task.write(far.advanced(by: id), 0xee) == nil)
      // Never while another frame is free; an access may need a page table too.
      #expect(bed.statistics.framesExpired > gone ? free <= 1 : free > 0)
    }
    let gone = Int(bed.statistics.framesExpired)
    #expect((5..<80).contains(gone))
    #expect(task.expired(handle, order) == Array(order[..<gone]))
    #expect(task.deallocate(other, 0, 30) == .ok(30))
    #expect(task.recover(handle, [order[99], order[gone - 1]]) == .contentGone)
    #expect(task.loadWord() == order[gone - 1])
    #expect(task.recover(handle, Array(order[gone...].suffix(20))) == nil)
    for id in order[gone...].suffix(20) {
      #expect(task.read(Self.page.advanced(by: Int(id))) == .success(UInt8(id + 1)))
    }
  }

  @Test("R24, R31: writing a logical copy does not change a released content") func copies() throws {
    let task = try Testbed().start()
    let handle = try filled(task, 2)
    let copy = try task.createContainer().get()
    #expect(throws: Never.self) {
      try task.server.copy(task.slot, handle, .from(0), copy, .from(0), count: 2, frameError: 0)
    }
    #expect(task.release(handle, [0, 1]) == nil)
    let far = PageNumber(Self.page.rawValue + 1024)
    #expect(task.map(copy, 0, 2, far, [.read, .write, .lazy]) == nil)
    #expect(task.write(far, 0x77) == nil)
    #expect(task.recover(handle, [0, 1]) == nil)
    #expect(task.read(Self.page) == .success(1))
    #expect(task.read(far) == .success(0x77))
    #expect(task.read(far.advanced(by: 1)) == .success(2))
  }

  @Test("R31: a released frame is freed with its id or its container") func drops() throws {
    let task = try Testbed().start()
    let contents = task.bed.statistics.contents
    let handle = try filled(task, 4)
    #expect(task.release(handle, [0, 1, 2]) == nil)
    #expect(task.allocate(handle, 0, 1) == .ok(1))
    #expect(task.recover(handle, [0]) == .exists)
    #expect(task.read(Self.page) == .success(0))
    #expect(task.deallocate(handle, 1, 1, .squash) == .ok(0))
    #expect(task.recover(handle, [2, 1]) == .contentGone)
    #expect(task.bed.statistics.releasedFrames == 1)
    #expect(task.destroy(handle) == nil)
    #expect(task.bed.statistics.releasedFrames == 0)
    // The list of ids is on an untouched page of the stack.
    #expect(task.bed.statistics.contents <= contents + 2)
  }

  @Test("R31: recovery is all or none, and within the entitlement") func errors() throws {
    let bed = try Testbed()
    let task = try bed.start(
      TaskParameters(guaranteed: SampleProgram.pages + 4, mayUseExtra: false, hasContract: true))
    let handle = try filled(task, 4)
    #expect(task.release(handle, [0, 7]) == .noEntry)
    #expect(task.release(handle, []) == .invalid)
    #expect(task.read(Self.page) == .success(1))
    #expect(task.release(handle, [0, 1, 2]) == nil)
    #expect(task.allocate(handle, 10, 2) == .ok(2))
    #expect(task.recover(handle, [2, 1]) == .noMemory)
    #expect(task.loadWord() == 1)
    #expect(task.expired(handle, [0, 1, 2]) == [])
    #expect(task.recover(handle, [2]) == nil)
    #expect(task.information.available == 0)
  }
}
