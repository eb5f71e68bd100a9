// Control, the policy buffer and commits (R4, R7–R14), as tasks see them.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct PolicyTests {
  private let free = TestTask.free

  // MARK: Control and the buffer

  @Test("R9: control is given once, even after its last holder is gone") func controlOnce() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let policy = try PolicyTask(first)
    #expect(first.getControl() == .failure(.notPermitted))
    #expect(second.getControl() == .failure(.notPermitted))
    try policy.set(second, guaranteed: 77, extra: 0)
    #expect(policy.commit() == nil)
    let frames = bed.statistics.allocatableFrames
    first.end()
    #expect(second.getControl() == .failure(.notPermitted))
    // The policy stays, and the buffer's frame is free again.
    #expect(second.information.guaranteed == 77 && second.information.available == 77 - SampleProgram.pages)
    #expect(bed.statistics.allocatableFrames == frames + 1)
    let third = try bed.start(image)
    #expect(third.getControl() == .failure(.notPermitted))
    #expect(third.information.guaranteed == SampleProgram.pages)
  }

  @Test("R9, R11: only the holder of control gets the buffer, at the address it asks for") func bufferForHolderOnly()
    throws
  {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let control = try first.getControl().get()
    #expect(first.commitPolicy(control) == .noEntry)
    for handle in [0, 99, control + 1 << 16] as [UInt32] {
      #expect(first.getPolicyBuffer(handle, free.address) == .failure(.invalid))
      #expect(first.commitPolicy(handle) == .invalid)
      #expect(first.name(handle, of: first.id) == .failure(.invalid))
    }
    for handle in [UInt32(PM_CAP_SELF), UInt32(PM_CAP_CONTAINER)] {
      #expect(first.getPolicyBuffer(handle, free.address) == .failure(.notPermitted))
      #expect(first.commitPolicy(handle) == .notPermitted)
      #expect(first.name(handle, of: first.id) == .failure(.notPermitted))
    }
    // Another task's handle of control is invalid here.
    #expect(second.getPolicyBuffer(control, free.address) == .failure(.invalid))
    for address in [0, 1, 0xfff, free.address + 1, PM_USER_END, .max - 4095, 1 << 47] as [UInt64] {
      #expect(first.getPolicyBuffer(control, address) == .failure(.invalid))
    }
    #expect(bed.statistics.containers == 3)
    #expect(first.getPolicyBuffer(control, PM_USER_END - 4096) == .success(64))
    #expect(first.getPolicyBuffer(control, free.address) == .success(64))
    #expect(first.leaf(PageNumber(containing: PM_USER_END - 4096)) == nil)
    #expect(first.read(PM_USER_END - 4096).outcome == .notMapped)
    #expect(first.read(free) == .success(UInt8(first.id.rawValue)))
    #expect(first.read(free.address, .execute).outcome == .forbidden)
    #expect(second.read(free).outcome == .notMapped)
  }

  @Test("R11: the buffer replaces what was mapped there, and can be unmapped") func bufferReplaces() throws {
    let bed = try Testbed()
    let task = try bed.start()
    let container = try task.container(3)
    #expect(task.map(container, 0, 3, free.advanced(by: -1), [.read, .write]) == nil)
    #expect(task.write(free, 9) == nil)
    let policy = try PolicyTask(task)
    #expect(try policy.entry(task).task == task.id.rawValue)
    #expect(task.read(free.advanced(by: 1)) == .success(0))
    #expect(task.unmap(free, 1) == nil)
    #expect(policy.isUnmapped)
    #expect(task.map(container, 1, 1, free, [.read, .write]) == nil)
    #expect(task.read(free) == .success(9))
    // A mapping of the task's own is kept when the buffer is revoked.
    #expect(throws: Never.self) { try task.server.dropCapability(task.slot, policy.control) }
    bed.check()
    #expect(task.read(free) == .success(9))
  }

  @Test("R12: the first buffer shows the current state and guarantees nothing") func firstBuffer() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let first = try bed.start(image)
    let second = try bed.start(image, TaskParameters(guaranteed: 50, mayUseExtra: false, hasContract: true))
    let third = try bed.start(image, TaskParameters(guaranteed: 9))
    _ = try third.container(5)
    let policy = try PolicyTask(first)
    let pages = UInt64(SampleProgram.pages)
    #expect(
      try policy.entry(first) == PolicyTask.Entry(task: first.id.rawValue, allocated: pages, extra: 1))
    #expect(
      try policy.entry(second)
        == PolicyTask.Entry(task: second.id.rawValue, allocated: pages, granted: 50, extra: 1))
    #expect(
      try policy.entry(third)
        == PolicyTask.Entry(task: third.id.rawValue, allocated: pages + 5, granted: 9, extra: 1))
    for slot in 3..<64 as Range<UInt32> { #expect(try policy.entry(TaskSlot(slot)) == PolicyTask.Entry()) }
    #expect(policy.commit() == nil)
    #expect([first, second, third].map(\.information.guaranteed) == [0, 0, 0])
    #expect(bed.statistics.claimedFrames == 0)
  }

  @Test("R11: entries follow allocations and the creation and end of tasks") func entriesAreCurrent() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let first = try bed.start(image)
    let policy = try PolicyTask(first)
    #expect(policy.commit() == nil)
    let second = try bed.start(image, TaskParameters(mayUseExtra: false))
    let pages = UInt64(SampleProgram.pages)
    #expect(
      try policy.entry(second)
        == PolicyTask.Entry(task: second.id.rawValue, allocated: pages, granted: pages, guaranteed: pages))
    try policy.set(second, guaranteed: 100, extra: 7, swapQuota: .max)
    #expect(try policy.entry(second).granted == pages)
    #expect(policy.commit() == nil)
    #expect(try policy.entry(second).granted == 100)
    let container = try second.container(10)
    #expect(try policy.entry(second).allocated == pages + 10)
    #expect(second.deallocate(container, 2, 3) == .ok(3))
    #expect(try policy.entry(second).allocated == pages + 7)
    #expect(second.allocate(container, 0, 100, [.squash, .extra]) == .ok(100))
    #expect(try policy.entry(second).allocated == pages + 100)
    #expect(second.destroy(container) == nil)
    #expect(try policy.entry(second).allocated == pages)
    second.end()
    #expect(try policy.entry(second.slot) == PolicyTask.Entry())
    let third = try bed.start(image)
    #expect(third.slot == second.slot)
    #expect(
      try policy.entry(third)
        == PolicyTask.Entry(task: third.id.rawValue, allocated: pages, granted: pages, guaranteed: pages, extra: 1))
  }

  @Test("R10, R11: control can be copied and moved; one task at a time has the buffer", arguments: [false, true])
  func handedOver(isMoved: Bool) throws {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let old = try PolicyTask(first)
    try old.set(second, guaranteed: 123)
    let endpoint = try second.endpoint("next")
    let control = try first.send(old.control, isMoved: isMoved, to: second, endpoint, named: "next")
    #expect(control != PM_CAP_NONE)
    // A task that moved its only handle has lost control and the buffer.
    #expect(old.isUnmapped == isMoved)
    #expect(old.commit() == (isMoved ? .invalid : nil))
    #expect(second.getPolicyBuffer(control, free.address) == .success(64))
    #expect(old.isUnmapped)
    #expect(try second.loadWords(8, free.address + UInt64(second.slot.rawValue) * 64)[4] == 123)
    #expect(second.commitPolicy(control) == nil)
    #expect(second.information.guaranteed == 123)
    guard !isMoved else { return }
    // The first holder still has a handle and can map the buffer again.
    #expect(old.commit() == nil)
    try old.map()
    #expect(second.read(free).outcome == .notMapped)
    #expect(try old.entry(second).guaranteed == 123)
    second.end()
    #expect(try old.entry(first).task == first.id.rawValue)
    #expect(old.commit() == nil)
  }

  @Test("R10: a task with two handles keeps the buffer until it drops both") func twoHandles() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let policy = try PolicyTask(first)
    let there = try second.endpoint("there")
    let back = try first.endpoint("back")
    let copy = try first.send(policy.control, isMoved: false, to: second, there, named: "there")
    let again = try second.send(copy, isMoved: true, to: first, back, named: "back")
    #expect(again != policy.control)
    try bed.server.dropCapability(first.slot, policy.control)
    bed.check()
    #expect(try policy.entry(first).task == first.id.rawValue)
    #expect(first.commitPolicy(again) == nil)
    let containers = bed.statistics.containers
    try bed.server.dropCapability(first.slot, again)
    bed.check()
    #expect(policy.isUnmapped)
    #expect(bed.statistics.containers == containers - 1)
    #expect(first.getControl() == .failure(.notPermitted))
  }

  @Test("R13: with more tasks than entries the holder loses the buffer and gets a larger one with the same contents")
  func growing() throws {
    let bed = try Testbed(frames: 8192, tasks: 200)
    let image = try bed.load()
    let first = try bed.start(image)
    let policy = try PolicyTask(first)
    #expect(policy.commit() == nil)
    var tasks = [first]
    for _ in 1..<64 { tasks.append(try bed.start(image)) }
    for task in tasks { try policy.set(task, guaranteed: 40 + task.id.rawValue % 7, extra: task.id.rawValue % 2) }
    let before = try tasks.map { try policy.entry($0) }
    tasks.append(try bed.start(image))
    #expect(policy.isUnmapped)
    #expect(policy.commit() == nil)
    #expect(tasks[1].information.guaranteed == 42)
    #expect(try policy.map() == 128)
    for (task, entry) in zip(tasks, before) {
      var expected = entry
      expected.granted = entry.guaranteed
      #expect(try policy.entry(task) == expected)
    }
    #expect(try policy.entry(tasks[64]).guaranteed == UInt64(SampleProgram.pages))
    for _ in 65..<129 { tasks.append(try bed.start(image)) }
    #expect(policy.isUnmapped)
    #expect(try policy.map() == 192)
    for task in tasks { #expect(try policy.entry(task).task == task.id.rawValue) }
    for task in tasks.dropFirst() { task.end() }
    for slot in 1..<192 as Range<UInt32> { #expect(try policy.entry(TaskSlot(slot)) == PolicyTask.Entry()) }
  }

  @Test("R4, R13: no task starts when the buffer cannot grow") func noRoomToGrow() throws {
    let bed = try Testbed(frames: 4096, tasks: 200)
    let image = try bed.load()
    let policy = try PolicyTask(try bed.start(image))
    for _ in 1..<64 { _ = try bed.start(image) }
    let left = UInt64(bed.statistics.allocatableFrames)
    try policy.set(policy.task, guaranteed: left)
    #expect(policy.commit() == nil)
    let balance = bed.balance
    #expect(throws: CallFailure.noMemory) { try bed.start(image) }
    #expect(bed.balance == balance)
    #expect(try policy.entry(policy.task).granted == left)
  }

  // MARK: Commits

  @Test("R7, R8: writes to the buffer have no effect before a commit") func commitOnly() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let unclaimed = second.information.available
    let policy = try PolicyTask(first)
    try policy.set(first, guaranteed: 500)
    try policy.set(second, guaranteed: 60, extra: 0)
    // The buffer has taken one frame.
    #expect(second.information.available == unclaimed - 1 && second.information.guaranteed == 0)
    let third = try bed.start(image)
    #expect(third.information.guaranteed == 0)
    #expect(policy.commit() == nil)
    #expect(first.information.guaranteed == 500 && second.information.guaranteed == 60)
    #expect(second.information.available == 60 - SampleProgram.pages)
    // It started in between: the buffer shows its launch parameters.
    #expect(third.information.guaranteed == 0)
    #expect(bed.statistics.claimedFrames == 560)
    try policy.set(second, guaranteed: 10, extra: 2)
    #expect(second.information.guaranteed == 60)
    #expect(policy.commit() == nil)
    #expect(second.information.guaranteed == 10)
    #expect(second.allocate(try second.container(0), 0, 100) == .failed(.noMemory, 0))
    #expect(second.allocate(try second.container(0), 0, 100, .extra) == .ok(100))
  }

  @Test("R4: a policy that would overcommit is rejected and changes nothing") func overcommitment() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let policy = try PolicyTask(first)
    try policy.set(first, guaranteed: 100)
    try policy.set(second, guaranteed: 200)
    #expect(policy.commit() == nil)
    let most = UInt64(bed.statistics.allocatableFrames)
    let absurd: [(UInt64, UInt64)] = [
      (most, 1), (1, most), (most + 1, 0), (.max, 0), (0, .max), (.max, .max), (1 << 63, 1 << 63),
      (UInt64(Int.max), UInt64(Int.max)), (.max - 1, 2), (1 << 32, 0), (most / 2 + 1, most / 2 + 1),
    ]
    for (one, other) in absurd {
      try policy.set(first, guaranteed: one, extra: 0, swapQuota: .max)
      try policy.set(second, guaranteed: other, extra: 0)
      #expect(policy.commit() == .noMemory)
      #expect(first.information.guaranteed == 100 && second.information.guaranteed == 200)
      #expect(second.information.available > 200)
    }
    // Exactly everything: one commit can move frames between guarantees.
    for (one, other) in [(most, 0), (0, most), (most - 5, 5), (5, most - 5)] {
      try policy.set(first, guaranteed: one)
      try policy.set(second, guaranteed: other)
      #expect(policy.commit() == nil)
      #expect(bed.statistics.claimedFrames == Int(most))
    }
  }

  @Test("R4, R11: writes to the server's fields or to unused entries are harmless")
  func garbage() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let (first, second) = (try bed.start(image), try bed.start(image))
    let policy = try PolicyTask(first)
    let noise = PolicyTask.Entry(
      task: 4711, allocated: .max, granted: 1 << 40, swapped: 3, guaranteed: 50, extra: .max, swapQuota: .max,
      reserved: .max)
    for slot in 0..<64 as Range<UInt32> { try policy.write(noise, TaskSlot(slot)) }
    #expect(policy.commit() == nil)
    #expect(first.information.guaranteed == 50 && second.information.guaranteed == 50)
    #expect(bed.statistics.claimedFrames == 100)
    var expected = noise
    expected.granted = 50
    expected.swapped = 0
    expected.allocated = UInt64(SampleProgram.pages)
    for task in [first, second] {
      expected.task = task.id.rawValue
      #expect(try policy.entry(task) == expected)
    }
    for slot in 2..<64 as Range<UInt32> { #expect(try policy.entry(TaskSlot(slot)) == PolicyTask.Entry()) }
    // Written to the slot of an ended task: the next task there is not affected.
    second.end()
    try policy.write(noise, second.slot)
    let third = try bed.start(image)
    #expect(third.slot == second.slot && third.information.guaranteed == SampleProgram.pages)
    #expect(policy.commit() == nil)
    #expect(third.information.guaranteed == SampleProgram.pages)
  }

  @Test(
    "R4: with random contents of the buffer, a commit is either correct or rejected", arguments: [1, 2, 3] as [UInt64])
  func fuzzed(seed: UInt64) throws {
    var random = SeededGenerator(state: seed)
    let bed = try Testbed(frames: 2048, tasks: 80)
    let image = try bed.load()
    let policy = try PolicyTask(try bed.start(image))
    var tasks: [TestTask] = []
    var refused = 0
    for step in 0..<300 {
      switch Int.random(in: 0..<6, using: &random) {
      case 0 where tasks.count < 9:
        if let task = try? bed.start(image) { tasks.append(task) }
      case 1 where !tasks.isEmpty: tasks.remove(at: Int.random(in: 0..<tasks.count, using: &random)).end()
      case 2 where !tasks.isEmpty:
        let task = tasks.randomElement(using: &random)!
        if let container = try? task.createContainer().get() {
          _ = task.allocate(container, 0, .random(in: 1...60, using: &random), [.partial, .extra])
        }
      default:
        let slot = TaskSlot(.random(in: 0..<12, using: &random))
        let scale = [10, 100, 1 << 20, .max].randomElement(using: &random)! as UInt64
        let words = (0..<8).map { _ in UInt64.random(in: 0...scale, using: &random) }
        try policy.task.storeWords(words, PolicyTask.address + UInt64(slot.rawValue) * 64)
      }
      let all = [policy.task] + tasks
      let proposed = try all.map { try policy.entry($0) }
      let before = all.map(\.information.guaranteed)
      let most = UInt64(bed.statistics.allocatableFrames)
      let fits = proposed.allSatisfy { $0.guaranteed <= most } && proposed.reduce(0) { $0 &+ $1.guaranteed } <= most
      #expect(policy.commit() == (fits ? nil : .noMemory), "seed \(seed), step \(step)")
      let after = all.map(\.information.guaranteed)
      try #require(after == (fits ? proposed.map { Int($0.guaranteed) } : before), "seed \(seed), step \(step)")
      if !fits {
        refused += 1
        for task in all { try policy.set(task, guaranteed: UInt64(task.information.guaranteed)) }
      }
    }
    #expect(refused > 10 && refused < 290)
  }

  @Test("R14, R28: raising a guarantee reclaims nothing, and cancels demands on the task")
  func demandsFollow() throws {
    let bed = try Testbed(frames: 400)
    let image = try bed.load()
    let (first, rich, poor) = (try bed.start(image), try bed.start(image), try bed.start(image))
    let policy = try PolicyTask(first)
    let most = UInt64(bed.statistics.allocatableFrames)
    try policy.set(first, guaranteed: 60, extra: 0)
    try policy.set(rich, guaranteed: 40)
    try policy.set(poor, guaranteed: 100, extra: 0)
    #expect(policy.commit() == nil)
    let container = try rich.createContainer().get()
    let all = rich.information.available
    #expect(rich.allocate(container, 0, UInt32(all), .extra) == .ok(UInt32(all)))
    #expect(poor.allocate(try poor.createContainer().get(), 0, 50) == .failed(.waitForFrames, 50))
    #expect(bed.server.takeReturnRequest(rich.slot) == 50)
    // The rich task may now keep everything, and the poor one has no claim: its call is repeated and fails.
    _ = bed.machine.wasWoken(poor.slot)
    try policy.set(poor, guaranteed: 40, extra: 0)
    try policy.set(rich, guaranteed: most - 100, extra: 0)
    #expect(policy.commit() == nil)
    #expect(bed.machine.wasWoken(poor.slot))
    #expect(bed.server.frameWait(poor.slot) == .ready)
    #expect(bed.server.takeReturnRequest(rich.slot) == 0)
    #expect(poor.allocate(try poor.createContainer().get(), 0, 50) == .failed(.noMemory, 0))
    #expect(rich.information.allocated == SampleProgram.pages + all)
    // Lowering a guarantee reclaims nothing either.
    try policy.set(rich, guaranteed: 0, extra: 0)
    #expect(policy.commit() == nil)
    #expect(rich.information.allocated == SampleProgram.pages + all)
    #expect(bed.server.takeReturnRequest(rich.slot) == 0)
    #expect(rich.allocate(container, UInt32(all), 1, .extra) == .failed(.noMemory, 0))
  }

  // MARK: Notifications

  @Test("R14: the holder of control reads the names of tasks") func names() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let long = String(repeating: "n", count: 70)
    let first = try bed.start(image, TaskParameters(name: "policy"))
    let tasks = try ["", "two words", long].map { try bed.start(image, TaskParameters(name: $0)) }
    let control = try first.getControl().get()
    #expect(first.name(control, of: first.id) == .success("policy"))
    #expect(
      tasks.map { first.name(control, of: $0.id) }
        == [.success(""), .success("two words"), .success(String(long.prefix(63)))])
    #expect(first.name(control, of: TaskID(0)) == .failure(.noEntry))
    #expect(first.name(control, of: TaskID(99)) == .failure(.noEntry))
    tasks[1].end()
    #expect(first.name(control, of: tasks[1].id) == .failure(.noEntry))
    #expect(tasks[0].name(control, of: first.id) == .failure(.invalid))
  }

  @Test("R14: the receiving holder is notified once of tasks that start and end") func news() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let first = try bed.start(image)
    let endpoint = try first.endpoint("policy")
    let second = try bed.start(image)
    #expect(first.receive(endpoint, mayWait: false) == .finished(.timedOut))
    let policy = try PolicyTask(first)
    // A change before the receive is reported at once, one during the wait when it happens; other tasks see none.
    second.end()
    #expect(first.receive(endpoint, mayWait: false) == .finished(.again))
    #expect(first.receive(endpoint) == .waiting)
    let third = try bed.start(image)
    #expect(bed.machine.wasWoken(first.slot))
    #expect(bed.server.waitOutcome(first.slot) == .finished(.again))
    #expect(first.receive(endpoint, mayWait: false) == .finished(.timedOut))
    let other = try third.endpoint("other")
    #expect(third.receive(other) == .waiting)
    _ = try bed.start(image)
    #expect(bed.server.waitOutcome(third.slot) == .waiting)
    // A commit in between does not suppress the notification.
    #expect(policy.commit() == nil)
    #expect(first.receive(endpoint, mayWait: false) == .finished(.again))
    try bed.server.dropCapability(first.slot, policy.control)
    _ = try bed.start(image)
    #expect(first.receive(endpoint, mayWait: false) == .finished(.timedOut))
  }

  @Test("R14: a new task starts after the policy server's commit, or soon without one") func launches() throws {
    let bed = try Testbed()
    let image = try bed.load()
    let first = try bed.start(image)
    let control = try first.getControl().get()
    // Without a holder of the buffer, launches do not wait.
    let start = bed.machine.now
    _ = try bed.start(image)
    #expect(bed.machine.now == start)
    let policy = try PolicyTask(first, control: control)
    var waits: [UInt64] = []
    var (slot, _) = try bed.server.createTask(image, TaskParameters()) { _, until in
      waits.append(until)
      bed.machine.advance(to: until)
    }
    #expect(waits == [start + 50_000_000])
    let patience = bed.machine.now
    (slot, _) = try bed.server.createTask(image, TaskParameters()) { slot, until in
      waits.append(until)
      try? policy.task.storeWords([55], PolicyTask.address + UInt64(slot.rawValue) * 64 + 32)
      #expect(policy.commit() == nil)
      #expect(bed.machine.wasWoken(slot))
    }
    #expect(waits.count == 2 && bed.machine.now == patience)
    #expect(bed.server.taskInformation(slot).guaranteed == 55)
    // The policy server ends while a launch waits for it.
    (slot, _) = try bed.server.createTask(image, TaskParameters()) { slot, until in
      waits.append(until)
      policy.task.end()
      #expect(bed.machine.wasWoken(slot))
    }
    #expect(waits.count == 3 && bed.machine.now == patience)
    _ = try bed.start(image)
    #expect(bed.machine.now == patience)
  }
}
