// pm_container_create, _destroy, _allocate, _deallocate: results, counts and charges.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct AllocationTests {
  private static let everything = UInt32.max

  // MARK: Containers

  @Test("R15: a container is a name space of its own") func containersAreApart() throws {
    let task = try Testbed().start()
    let first = try task.createContainer().get()
    let second = try task.createContainer().get()
    #expect(first != second)
    #expect(task.allocate(first, 7, 1) == .ok(1))
    #expect(task.allocate(second, 7, 1) == .ok(1))
    #expect(task.map(first, 7, 1, TestTask.free, [.read, .write]) == nil)
    #expect(task.map(second, 7, 1, TestTask.free.advanced(by: 1), [.read, .write]) == nil)
    #expect(task.write(TestTask.free, 1) == nil)
    #expect(task.write(TestTask.free.advanced(by: 1), 2) == nil)
    #expect(task.read(TestTask.free) == .success(1))
    #expect(task.destroy(first) == nil)
    #expect(task.read(TestTask.free).outcome == .notMapped)
    #expect(task.read(TestTask.free.advanced(by: 1)) == .success(2))
  }

  @Test("a stale, foreign, wrong or null handle is PM_EINVAL") func badHandles() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    let other = try bed.start(image)
    // Twice, so that the other task's handle is a number that is invalid here.
    _ = try other.createContainer().get()
    let foreign = try other.container(4)
    let stale = try task.container(4)
    #expect(task.destroy(stale) == nil)
    let reused = try task.container(4)
    #expect(reused & 0xffff == stale & 0xffff)
    let before = bed.balance
    for handle in [0, UInt32(PM_CAP_SELF), stale, foreign, 0xffff, 0x8000_0003, .max] {
      #expect(task.destroy(handle) == .invalid)
      #expect(task.allocate(handle, 50, 1) == .failed(.invalid, 1))
      #expect(task.deallocate(handle, 0, 1) == .failed(.invalid, 1))
      #expect(task.map(handle, 0, 1, TestTask.free, .read) == .invalid)
    }
    #expect(bed.balance == before)
    #expect(other.deallocate(foreign, 0, 4) == .ok(4))
  }

  @Test("the initial container cannot be destroyed") func initialContainer() throws {
    let task = try Testbed().start()
    #expect(task.destroy(TestTask.container) == .notPermitted)
    #expect(task.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
  }

  @Test("destroying a container frees everything, including its leaves") func destroying() throws {
    let bed = try Testbed()
    let task = try bed.start()
    // Make the tables first, since they stay.
    let tables = try task.container(1)
    #expect(task.map(tables, 0, 1, TestTask.free, .read) == nil)
    #expect(task.destroy(tables) == nil)
    let before = bed.balance
    let handle = try task.container(300)
    #expect(task.map(handle, 0, 300, TestTask.free, [.read, .write]) == nil)
    #expect(task.write(TestTask.free.advanced(by: 299), 9) == nil)
    #expect(task.allocate(handle, 1 << 20, 3) == .ok(3))
    #expect(task.destroy(handle) == nil)
    #expect(bed.balance == before)
    #expect(task.read(TestTask.free.advanced(by: 299)).outcome == .notMapped)
    #expect(task.destroy(handle) == .invalid)
  }

  @Test("a stale mapping shows nothing, even when the container's slot is reused") func staleMappings() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let task = try bed.start(image)
    let other = try bed.start(image)
    let handle = try task.container(4)
    #expect(task.map(handle, 0, 4, TestTask.free, [.read, .write, .lazy]) == nil)
    #expect(task.destroy(handle) == nil)
    // The other task's container takes the slot.
    let theirs = try other.container(4)
    #expect(other.map(theirs, 0, 4, TestTask.free, [.read, .write]) == nil)
    #expect(other.write(TestTask.free, 42) == nil)
    #expect(task.read(TestTask.free).outcome == .notMapped)
    #expect(task.mapping(TestTask.free) == .failure(.noEntry))
  }

  @Test("a container's slot can be reused as often as there are generations")
  func containersWithoutEnd() throws {
    let task = try Testbed().start()
    for _ in 0..<300 {
      let handle = try task.createContainer().get()
      #expect(task.destroy(handle) == nil)
    }
  }

  // MARK: Allocating

  @Test("R16: allocation takes no frame, R6: but is charged") func allocationIsLazy() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.createContainer().get()
    let before = bed.statistics
    #expect(task.allocate(handle, 100, 500) == .ok(500))
    #expect(bed.statistics.freeFrames == before.freeFrames)
    #expect(bed.statistics.contents == before.contents)
    #expect(bed.statistics.claimedFrames == before.claimedFrames + 500)
    #expect(task.information.allocated == SampleProgram.pages + 500)
  }

  @Test("R18: ids in use are PM_EEXIST; with PARTIAL those before them are allocated") func existing() throws {
    let task = try Testbed().start()
    let handle = try task.createContainer().get()
    #expect(task.allocate(handle, 10, 2) == .ok(2))
    let allocated = task.information.allocated
    #expect(task.allocate(handle, 5, 10) == .failed(.exists, 0))
    #expect(task.allocate(handle, 11, 1) == .failed(.exists, 0))
    #expect(task.information.allocated == allocated)
    #expect(task.allocate(handle, 5, 5) == .ok(5))
    #expect(task.allocate(handle, 3, 10, .partial) == .failed(.exists, 2))
    #expect(task.information.allocated == allocated + 7)
    #expect(task.allocate(handle, 3, 1, .partial) == .failed(.exists, 0))
    #expect(task.deallocate(handle, 3, 9) == .ok(9))
  }

  @Test("R18: too few frames are PM_ENOMEM; with PARTIAL as many as possible are allocated") func shortage() throws {
    let task = try Testbed(frames: 256).start()
    let handle = try task.createContainer().get()
    let available = UInt32(task.information.available)
    #expect(task.allocate(handle, 0, available + 1) == .failed(.noMemory, 0))
    #expect(task.information.available == Int(available))
    #expect(task.allocate(handle, 0, available + 1, .partial) == .failed(.noMemory, available))
    #expect(task.information.available == 0)
    #expect(task.allocate(handle, 1000, 1, .partial) == .failed(.noMemory, 0))
    #expect(task.allocate(handle, 1000, Self.everything, .partial) == .failed(.invalid, Self.everything))
    #expect(task.allocate(handle, 0, Self.everything) == .failed(.exists, 0))
    #expect(task.deallocate(handle, 0, available) == .ok(available))
    #expect(task.allocate(handle, 0, Self.everything) == .failed(.noMemory, 0))
    #expect(task.allocate(handle, 0, available) == .ok(available))
  }

  @Test("R18: SQUASH drops the ids' contents and leaves, and charges nothing twice") func squash() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(6)
    #expect(task.map(handle, 0, 6, TestTask.free, [.read, .write]) == nil)
    for page in 0..<6 { #expect(task.write(TestTask.free.advanced(by: page), 5) == nil) }
    let before = task.information.allocated
    let contents = bed.statistics.contents
    #expect(task.allocate(handle, 2, 3, .squash) == .ok(3))
    #expect(task.information.allocated == before)
    #expect(bed.statistics.contents == contents - 3)
    #expect(task.leaf(TestTask.free.advanced(by: 2)) == nil)
    let bytes = (0..<6).map { task.read(TestTask.free.advanced(by: $0)) }
    #expect(bytes == [5, 5, 0, 0, 0, 5].map { .success($0) })
    #expect(task.allocate(handle, 4, 6, .squash) == .ok(6))
    #expect(task.information.allocated == before + 4)
  }

  @Test("R18: SQUASH with too few frames changes nothing; with PARTIAL it goes as far as the frames do")
  func squashShortage() throws {
    let task = try Testbed(frames: 256).start()
    let handle = try task.container(4)
    #expect(task.map(handle, 0, 4, TestTask.free, [.read, .write]) == nil)
    #expect(task.write(TestTask.free, 5) == nil)
    let available = UInt32(task.information.available)
    let filler = try task.container(available - 2)
    #expect(task.information.available == 2)
    #expect(task.allocate(handle, 0, 7, .squash) == .failed(.noMemory, 0))
    #expect(task.read(TestTask.free) == .success(5))
    #expect(task.allocate(handle, 0, 7, [.squash, .partial]) == .failed(.noMemory, 6))
    #expect(task.read(TestTask.free) == .success(0))
    #expect(task.information.available == 0)
    #expect(task.allocate(handle, 0, 6, .squash) == .ok(6))
    #expect(task.allocate(handle, 1 << 31, 9, [.squash, .partial]) == .failed(.noMemory, 0))
    #expect(task.destroy(filler) == nil)
  }

  @Test("R5: EXTRA is needed beyond a contract, and not within") func extra() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let contract = TaskParameters(guaranteed: SampleProgram.pages + 10, hasContract: true)
    let task = try bed.start(image, contract)
    let handle = try task.createContainer().get()
    #expect(task.allocate(handle, 0, 11) == .failed(.noMemory, 0))
    #expect(task.allocate(handle, 0, 10) == .ok(10))
    #expect(task.allocate(handle, 10, 1) == .failed(.noMemory, 0))
    #expect(task.allocate(handle, 10, 20, .extra) == .ok(20))
    let strict = try bed.start(
      image, TaskParameters(guaranteed: SampleProgram.pages + 10, mayUseExtra: false, hasContract: true))
    let other = try strict.createContainer().get()
    #expect(strict.allocate(other, 0, 11, [.extra, .partial]) == .failed(.noMemory, 10))
  }

  @Test("R3: guaranteed frames can be allocated and used after others took all they could") func guarantees() throws {
    let bed = try Testbed(frames: 512)
    let image = try bed.load()
    let promised = try bed.start(image, TaskParameters(guaranteed: 150, mayUseExtra: false, hasContract: true))
    let greedy = try bed.start(image)
    let theirs = try greedy.createContainer().get()
    #expect(greedy.allocate(theirs, 0, 1 << 20, .partial).error == .noMemory)
    let all = UInt32(greedy.information.allocated - SampleProgram.pages)
    #expect(greedy.map(theirs, 0, all, TestTask.free, [.read, .write]) == nil)
    #expect(bed.statistics.claimedFrames == bed.statistics.allocatableFrames)
    let count = UInt32(150 - SampleProgram.pages)
    let mine = try promised.container(count)
    #expect(promised.map(mine, 0, count, TestTask.free, [.read, .write]) == nil)
    for page in 0..<Int(count) { #expect(promised.write(TestTask.free.advanced(by: page), 1) == nil) }
  }

  @Test("ids at both ends of the id space work") func lastIDs() throws {
    let task = try Testbed().start()
    let handle = try task.createContainer().get()
    let last = UInt32.max
    #expect(task.allocate(handle, last, 1) == .ok(1))
    #expect(task.allocate(handle, last - 2, 2) == .ok(2))
    #expect(task.allocate(handle, last, 2) == .failed(.invalid, 2))
    #expect(task.allocate(handle, 1, last) == .failed(.noMemory, 0))
    #expect(task.allocate(handle, 2, last) == .failed(.invalid, last))
    #expect(task.allocate(handle, last - 5, 6, .squash) == .ok(6))
    #expect(task.map(handle, last - 5, 6, TestTask.free, [.read, .write]) == nil)
    #expect(task.write(TestTask.free.advanced(by: 5), 3) == nil)
    #expect(task.map(handle, last, 2, TestTask.free, .read) == .invalid)
    #expect(task.deallocate(handle, last, 2) == .failed(.invalid, 2))
    #expect(task.deallocate(handle, last - 5, 6) == .ok(6))
    #expect(task.read(TestTask.free.advanced(by: 5)).outcome == .notMapped)
  }

  @Test("a zero count or an unknown flag is PM_EINVAL") func badArguments() throws {
    let task = try Testbed().start()
    let handle = try task.container(4)
    #expect(task.allocate(handle, 9, 0) == .failed(.invalid, 0))
    #expect(task.deallocate(handle, 0, 0) == .failed(.invalid, 0))
    for flags in [8, 1 << 31, .max] as [UInt32] {
      #expect(task.allocate(handle, 9, 1, AllocationFlags(rawValue: flags)) == .failed(.invalid, 1))
    }
    for flags in [4, 1 << 31, .max] as [UInt32] {
      #expect(task.deallocate(handle, 0, 1, DeallocationFlags(rawValue: flags)) == .failed(.invalid, 1))
    }
    #expect(task.deallocate(handle, 0, 4) == .ok(4))
  }

  // MARK: Deallocating

  @Test("R18: ids not in use are PM_ENOENT; PARTIAL stops there, SQUASH continues") func deallocating() throws {
    let task = try Testbed().start()
    let handle = try task.container(10)
    #expect(task.deallocate(handle, 3, 2) == .ok(2))
    let allocated = task.information.allocated
    #expect(task.deallocate(handle, 0, 10) == .failed(.noEntry, 0))
    #expect(task.information.allocated == allocated)
    #expect(task.deallocate(handle, 1, 9, .partial) == .failed(.noEntry, 2))
    #expect(task.information.allocated == allocated - 2)
    #expect(task.deallocate(handle, 1, 9, .partial) == .failed(.noEntry, 0))
    #expect(task.deallocate(handle, 0, 8, .squash) == .ok(4))
    #expect(task.deallocate(handle, 0, 8, .squash) == .ok(0))
    #expect(task.deallocate(handle, 8, Self.everything - 8, [.squash, .partial]) == .ok(2))
    #expect(task.information.allocated == SampleProgram.pages)
  }

  @Test("deallocation removes the leaves: the next access faults, and the frame is free") func leavesGo() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(3)
    #expect(task.map(handle, 0, 3, TestTask.free, [.read, .write]) == nil)
    // Map the second page at a second address too.
    #expect(task.map(handle, 1, 1, TestTask.free.advanced(by: 100), [.read, .write]) == nil)
    #expect(task.write(TestTask.free.advanced(by: 1), 77) == nil)
    let free = bed.statistics.freeFrames
    #expect(task.deallocate(handle, 1, 1) == .ok(1))
    #expect(bed.statistics.freeFrames == free + 1)
    #expect(task.read(TestTask.free.advanced(by: 1)).outcome == .notMapped)
    #expect(task.read(TestTask.free.advanced(by: 100)).outcome == .notMapped)
    #expect(task.read(TestTask.free) == .success(0))
    // The mapping still exists: after a new allocation it shows the new, empty frame.
    #expect(task.allocate(handle, 1, 1) == .ok(1))
    #expect(task.read(TestTask.free.advanced(by: 100)) == .success(0))
  }

  @Test("R18: a reused frame reads zero") func noLeaks() throws {
    let bed = try Testbed(frames: 256)
    let image = try bed.load()
    let first = try bed.start(image)
    let count = UInt32(first.information.available - 50)
    let theirs = try first.container(count)
    #expect(first.map(theirs, 0, count, TestTask.free, [.read, .write]) == nil)
    for page in 0..<Int(count) { #expect(first.write(TestTask.free.advanced(by: page).address + 99, 0xaa) == nil) }
    first.end()
    let second = try bed.start(image)
    let mine = try second.container(count)
    #expect(second.map(mine, 0, count, TestTask.free, [.read, .write]) == nil)
    for page in 0..<Int(count) {
      let frame = try #require(second.leaf(TestTask.free.advanced(by: page))?.frame)
      #expect(bed.machine.bytes(frame).allSatisfy { $0 == 0 })
    }
  }

  @Test("a result stored in the deallocated frames is no error") func resultInTheFrames() throws {
    let bed = try Testbed()
    let task = try bed.start()
    for flags in [[], .squash, .partial] as [DeallocationFlags] {
      let handle = try task.container(2)
      #expect(task.map(handle, 0, 2, TestTask.free, [.read, .write]) == nil)
      let address = TestTask.free.address + 8
      try bed.server.writeMemory(task.slot, address, ([3, 0, 0, 0] as [UInt8]).span)
      // Three requested, two in use.
      var answer: CallFailure?
      do throws(CallFailure) {
        try bed.server.deallocate(task.slot, handle, start: 0, countAddress: address, flags: flags.rawValue)
      } catch {
        answer = error
      }
      bed.check()
      #expect(answer == (flags.contains(.squash) ? nil : .noEntry))
      let isGone = !flags.isEmpty
      #expect(task.information.allocated == SampleProgram.pages + (isGone ? 0 : 2))
      #expect(task.destroy(handle) == nil)
    }
  }

  @Test("R18: the number of allocated ids is stored even where SQUASH dropped the page")
  func resultInSquashed() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let handle = try task.container(2)
    #expect(task.map(handle, 0, 2, TestTask.free, [.read, .write]) == nil)
    #expect(task.write(TestTask.free, 99) == nil)
    let address = TestTask.free.address + 8
    try bed.server.writeMemory(task.slot, address, ([5, 0, 0, 0] as [UInt8]).span)
    try bed.server.allocate(
      task.slot, handle, start: 0, countAddress: address, flags: AllocationFlags.squash.rawValue)
    bed.check()
    #expect(task.loadWord(address) == 5)
    #expect(task.read(TestTask.free) == .success(0))
    #expect(task.information.allocated == SampleProgram.pages + 5)
  }
}
