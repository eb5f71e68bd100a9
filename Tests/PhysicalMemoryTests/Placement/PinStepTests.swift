// Pinning and unpinning in steps (R22): the work of a step, and what other tasks may do between two steps.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

extension OpenServer {
  /// A container of the task, and a client that may pin its frames.
  fileprivate mutating func shared(_ count: UInt32) throws -> (handle: Handle, client: (task: TaskSlot, weak: Handle)) {
    let handle = try container(count, shownAt: [])
    let client = try client(of: handle)
    try showAddresses(task)
    try showAddresses(client.task)
    return (handle, client)
  }

  fileprivate mutating func expect(
    _ expected: CallFailure?, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: (inout OpenServer) throws -> CallFailure?
  ) rethrows {
    let error = try body(&self)
    #expect(error == expected, sourceLocation: sourceLocation)
  }
}

@Suite struct PinStepTests {
  private let start = TestTask.free

  private func slot(_ server: borrowing OpenServer, _ handle: Handle) throws -> ContainerSlot {
    guard case .container(let container) = server.state.tasks[server.task].handles[handle] else {
      throw CallFailure.invalid
    }
    return container.slot
  }

  // MARK: The work of a step

  @Test("a step makes resident, pins and checks bounded numbers of frames")
  func boundedSteps() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, _) = try server.shared(3000)
    var plan = try server.planPin(server.task, handle, 0, 3000)
    var made = 0
    repeat {
      let before = (server.state.contents.count, server.state.pins.count)
      _ = server.state.continuePin(&plan)
      #expect(server.state.contents.count - before.0 <= 128 + 8)
      #expect(server.state.pins.count - before.1 <= 128)
      made = max(made, server.state.pins.count - before.1)
      server.check()
    } while !plan.isOver
    #expect(plan.error == nil && server.state.pins.count == 3000 && made > 32)
    server.expectShortSteps()
    #expect(try server.storedFrames(server.task, 3000) == (0..<3000).map { try server.frame(handle, $0) })
    var unpin = try server.state.planUnpin(server.task, handle, FrameIDRange(start: 0, count: 3000))
    var most = 0
    var more = true
    while more {
      let before = server.state.pins.count
      more = server.state.continueUnpin(&unpin)
      most = max(most, before - server.state.pins.count)
      server.check()
    }
    #expect(unpin.error == nil && server.state.pins.count == 0 && most > 32 && most <= 1024)
  }

  @Test("expired pins end in steps, before any call that depends on them") func expiry() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, _) = try server.shared(3000)
    server.expect(nil) { $0.pin($0.task, handle, 0, 3000, microseconds: 100, physical: OpenServer.addresses.address) }
    server.machine.advance(microseconds: 100)
    var most = 0
    var isDone = false
    while !isDone {
      let before = server.state.pins.count
      isDone = server.state.expirePins()
      most = max(most, before - server.state.pins.count)
      server.check()
    }
    #expect(server.state.pins.count == 0 && most == 512)
  }

  @Test("the pins of an ending task end in steps, and only then its callers are answered") func endOfPins() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (_, client) = try server.shared(3000)
    server.expect(nil) { $0.pin(client.task, client.weak, 0, 3000, physical: OpenServer.addresses.address) }
    let caller = Waiter(server.task, .task)
    server.state.setWait(
      caller, .received(by: client.task, address: GuestAddress(OpenServer.addresses.address), call: 1))
    server.state.tasks[client.task].received.insert(caller)
    server.state.beginEnding(client.task)
    var steps = 0
    while server.state.pins.count > 0 {
      let isTold = server.state.tasks[client.task].received.isEmpty
      #expect(!isTold)
      let before = server.state.pins.count
      let step = server.state.continueEnding(client.task)
      #expect(step == .more && before - server.state.pins.count <= 512)
      steps += 1
      #expect(server.state.pins.isConsistent() == true)
    }
    #expect(steps == 6)
    let isTold = server.state.tasks[client.task].received.isEmpty
    #expect(isTold)
    while case .more = server.state.continueEnding(client.task) {}
    server.check()
  }

  @Test("a content with many leaves ends a step") func manyLeaves() throws {
    var server = try OpenServer(frames: 1 << 13)
    let pages = (0..<1000).map { start.advanced(by: 8 * $0) }
    let source = try server.container(8, shownAt: pages)
    let copies = try server.container(8, shownAt: [])
    var copy = try server.state.planCopy(server.task, source, .from(0), copies, .from(0), count: 8)
    while server.state.collect(&copy) {}
    while server.state.install(&copy) {}
    // Each of the source's 1000 leaves is removed when its content becomes private.
    var plan = try server.planPin(server.task, source, 0, 8, physical: PM_STACK_TOP - 512)
    var steps = 0
    repeat {
      _ = server.state.continuePin(&plan)
      steps += 1
    } while !plan.isOver
    #expect(plan.error == nil && steps > 1)
    server.expectShortSteps()
    server.check()
  }

  // MARK: Between two steps

  @Test("what is not pinned yet may be moved; the reported addresses are final, and pinned frames stay") func moved()
    throws
  {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, _) = try server.shared(3000)
    var plan = try server.planPin(server.task, handle, 0, 3000)
    var random: UInt64 = 1
    var known: [UInt32: Int] = [:]
    // All resident, so that there are contents to move.
    for id in 0..<FrameID(3000) { _ = server.state.makeResident(try slot(server, handle), id) }
    let before = try (0..<3000).map { try server.frame(handle, $0) }
    repeat {
      _ = server.state.continuePin(&plan)
      for _ in 0..<200 {
        random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        _ = server.state.moveSomeFrame(random >> 33)
      }
      for id in 0..<UInt32(3000) where server.state.pin(try slot(server, handle), FrameID(id)) != nil {
        let frame = try server.frame(handle, id)
        #expect(known[id] == nil || known[id] == frame)
        known[id] = frame
      }
      server.check()
    } while !plan.isOver
    let after = try (0..<3000).map { try server.frame(handle, $0) }
    #expect(plan.error == nil && server.storedFrames(server.task, 3000) == after && after != before)
  }

  @Test("R22: frames being pinned cannot be freed, copied, pinned or locked, nor their container destroyed")
  func busy() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, client) = try server.shared(400)
    let other = try server.container(10, shownAt: [])
    let task = server.task
    var plan = try server.planPin(client.task, client.weak, 0, 300)
    server.state.beginChanging(plan.container.slot, for: client.task)
    _ = server.state.continuePin(&plan)
    #expect(!plan.isOver)
    // Id 299 is among the last.
    let last = try FrameIDRange(start: 299, count: 1)
    func check(_ server: inout OpenServer) throws {
      let errors = [
        server.error { state throws(CallFailure) in _ = try state.planDeallocation(task, handle, last, []) },
        server.error { state throws(CallFailure) in _ = try state.planAllocation(task, handle, last, .squash) },
        server.error { state throws(CallFailure) in
          var plan = try state.planRelease(task, handle, [299])
          while state.continueRelease(&plan) {}
          if let error = plan.error { throw error }
        },
        server.error { state throws(CallFailure) in _ = try state.beginDestroying(task, handle) },
        server.error { state throws(CallFailure) in _ = try state.revokeShares(task, handle) },
        server.error { state throws(CallFailure) in
          do throws(CopyError) {
            _ = try state.planCopy(task, handle, .from(298), other, .from(0), count: 2)
          } catch { throw error.error }
        },
        server.error { state throws(CallFailure) in
          do throws(CopyError) {
            _ = try state.planCopy(task, other, .list([1]), handle, .list([299]), count: 1)
          } catch { throw error.error }
        },
        server.pin(task, handle, 299, 1),
      ]
      #expect(errors == Array(repeating: .busy, count: errors.count))
    }
    try check(&server)
    server.expect(.busy) { $0.lock(client) }
    server.expect(.busy) { $0.pin(task, handle, 350, 1) }
    // Other ids are not restricted.
    let beyond = try FrameIDRange(start: 300, count: 100)
    server.expect(nil) { server in
      server.error { state throws(CallFailure) in _ = try state.planDeallocation(task, handle, beyond, []) }
    }
    while server.state.continuePin(&plan) {}
    server.state.endChanges(of: client.task)
    #expect(plan.error == nil)
    try check(&server)
    server.expect(nil) { $0.pin(task, handle, 350, 1) }
    server.expect(nil) { $0.unpin(client.task, client.weak, 0, 300) }
    server.expect(nil) { server in
      server.error { state throws(CallFailure) in _ = try state.planDeallocation(task, handle, last, []) }
    }
    server.check()
  }

  @Test("R22: the owner's end waits for a call that is pinning, and for the pins") func ownerEnds() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (_, client) = try server.shared(400)
    var plan = try server.planPin(client.task, client.weak, 0, 300)
    _ = server.state.continuePin(&plan)
    server.state.beginEnding(server.task)
    var step = EndingStep.more
    while step == .more { step = server.state.continueEnding(server.task) }
    #expect(step == .wait(until: server.machine.now + 1_000_000))
    _ = server.machine.wasWoken(server.task)
    while server.state.continuePin(&plan) {}
    #expect(plan.error == nil && server.machine.wasWoken(server.task))
    step = server.state.continueEnding(server.task)
    #expect(step == .wait(until: server.machine.now + 1_000_000))
    server.check()
    server.expect(nil) { $0.unpin(client.task, client.weak, 0, 300) }
    #expect(server.machine.wasWoken(server.task))
    while step != .done { step = server.state.continueEnding(server.task) }
    server.check()
  }

  @Test("R22: when the addresses cannot be stored nothing is pinned, and earlier pins keep their deadline")
  func undone()
    throws
  {
    var server = try OpenServer(frames: 1 << 13)
    let (_, client) = try server.shared(400)
    let results = try server.container(8, shownAt: [])
    guard
      let target = server.state.tasks[server.task].handles[
        try server.state.share(server.task, results, remote: 0)],
      let weak = server.state.tasks[client.task].handles.insert(target)
    else { throw CallFailure.noMemory }
    let pages = try PageRange(address: GuestAddress(start.address), count: 8)
    let range = try FrameIDRange(start: 0, count: 8)
    let mapping = try server.state.checkMapping(client.task, weak, range, pages, [.read, .write, .lazy])
    server.state.installMapping(client.task, mapping)
    server.expect(nil) { $0.pin(client.task, client.weak, 100, 3, microseconds: 500) }
    server.expect(nil) { $0.pin(client.task, client.weak, 250, 1, microseconds: 700) }
    let container = try slot(
      server, server.state.containers[try server.state.container(client.task, client.weak).slot].handle)
    var plan = try server.planPin(client.task, client.weak, 0, 300, microseconds: 5000, physical: start.address)
    while server.state.pins.count < 300 { _ = server.state.continuePin(&plan) }
    // The results' container is destroyed meanwhile.
    let gone = try server.state.beginDestroying(server.task, results)
    while !server.state.continueDestroying(gone) {}
    while server.state.continuePin(&plan) {}
    #expect(plan.error == .fault && server.state.pins.count == 4 && server.state.pinsSetAside == 0)
    #expect(server.state.pin(container, 101)?.deadline == server.machine.now + 500_000)
    #expect(server.state.pin(container, 250)?.deadline == server.machine.now + 700_000)
    server.check()
    server.expect(nil) { $0.pin(client.task, client.weak, 0, 300, physical: OpenServer.addresses.address) }
  }

  @Test("R22: if another task has pinned any of the ids, none is pinned and no frame is taken") func foreign()
    throws
  {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, client) = try server.shared(3000)
    server.expect(nil) { $0.pin($0.task, handle, 2999, 1) }
    let contents = server.state.contents.count
    server.expect(.busy) { $0.pin(client.task, client.weak, 0, 3000, physical: OpenServer.addresses.address) }
    #expect(server.state.pins.count == 1 && server.state.contents.count == contents)
    server.check()
  }

  @Test("R22: two concurrent calls pin at most half of all frames") func halfOfAll() throws {
    var server = try OpenServer(frames: 1024)
    let (handle, client) = try server.shared(300)
    let half = server.state.ledger.allocatable / 2
    let other = try server.container(300, shownAt: [])
    var first = try server.planPin(server.task, other, 0, 300)
    while server.state.pins.count == 0 { _ = server.state.continuePin(&first) }
    #expect(server.state.pins.count < 300)
    server.expect(.noMemory) {
      $0.pin(client.task, client.weak, 0, UInt32(half - 299), physical: OpenServer.addresses.address)
    }
    server.expect(nil) {
      $0.pin(client.task, client.weak, 0, UInt32(half - 300), physical: OpenServer.addresses.address)
    }
    while server.state.continuePin(&first) {}
    #expect(first.error == nil && server.state.pins.count == half && server.state.pinsSetAside == 0)
    server.expect(.noMemory) { $0.pin($0.task, handle, 299, 1) }
    // Again, with a new deadline: these frames are counted already.
    server.expect(nil) { $0.pin($0.task, other, 0, 300, physical: OpenServer.addresses.address) }
    server.check()
  }

  @Test("R22: a pin that expires during a call that pins again is made anew") func ownPinExpires() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, _) = try server.shared(400)
    server.expect(nil) { $0.pin($0.task, handle, 200, 200, microseconds: 10, physical: OpenServer.addresses.address) }
    var plan = try server.planPin(server.task, handle, 0, 400)
    while server.state.pins.count < 210 { _ = server.state.continuePin(&plan) }
    server.machine.advance(microseconds: 10)
    let isDone = server.state.expirePins()
    #expect(isDone && server.state.pins.count < 210)
    while server.state.continuePin(&plan) {}
    #expect(plan.error == nil && server.state.pins.count == 400)
    server.check()
  }

  @Test("R22: a transfer that begins during a failing call keeps its own frame pinned only") func transfer() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, _) = try server.shared(400)
    var plan = try server.planPin(server.task, handle, 0, 400, physical: start.address)
    while server.state.pins.count < 10 { _ = server.state.continuePin(&plan) }
    let driver = TaskReference(slot: server.task, id: server.state.tasks[server.task].id)
    let run = [FrameRun(start: FrameNumber(UInt32(try server.frame(handle, 3))), count: 1)]
    try server.state.beginTransfer(driver, run.span)
    while server.state.continuePin(&plan) {}
    // The buffer for the addresses is not mapped.
    #expect(plan.error == .fault && server.state.pins.count == 1)
    do throws(TransferRefusal) {
      try server.state.beginTransfer(driver, run.span)
      Issue.record("a transfer began in a frame that is not pinned")
    } catch {
      #expect(error.frame == run[0].start)
    }
    server.check()
    server.state.endTransfer(run[0])
    #expect(server.state.pins.count == 0)
    server.check()
  }

  @Test("R22: during a call that unpins, the container may be destroyed after the pins expire, and others may pin")
  func unpinning()
    throws
  {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, client) = try server.shared(3000)
    let result = OpenServer.addresses.address
    server.expect(nil) { $0.pin(client.task, client.weak, 0, 3000, microseconds: 10, physical: result) }
    let range = try FrameIDRange(start: 0, count: 3000)
    var plan = try server.state.planUnpin(client.task, client.weak, range)
    while server.state.pins.count == 3000 { _ = server.state.continueUnpin(&plan) }
    server.machine.advance(microseconds: 10)
    server.expect(nil) { $0.pin($0.task, handle, 2990, 10) }
    while server.state.continueUnpin(&plan) {}
    #expect(plan.error == nil && server.state.pins.count == 10)
    server.expect(nil) { $0.unpin($0.task, handle, 2990, 10) }
    server.expect(nil) { $0.pin(client.task, client.weak, 0, 3000, microseconds: 10, physical: result) }
    plan = try server.state.planUnpin(client.task, client.weak, range)
    while server.state.pins.count == 3000 { _ = server.state.continueUnpin(&plan) }
    server.machine.advance(microseconds: 10)
    while !server.state.expirePins() {}
    let gone = try server.state.beginDestroying(server.task, handle)
    while !server.state.continueDestroying(gone) {}
    let next = try server.container(1, shownAt: [])
    server.expect(nil) { $0.pin($0.task, next, 0, 1) }
    while server.state.continueUnpin(&plan) {}
    #expect(plan.error == nil && server.state.pins.count == 1)
    server.check()
  }

  @Test("R22: a rejected call unpins nothing") func refusedUnpin() throws {
    var server = try OpenServer(frames: 1 << 13)
    let (handle, client) = try server.shared(3000)
    server.expect(nil) { $0.pin(client.task, client.weak, 0, 2999, physical: OpenServer.addresses.address) }
    server.expect(.noEntry) { $0.unpin(client.task, client.weak, 0, 3000) }
    server.expect(nil) { $0.pin($0.task, handle, 2999, 1) }
    server.expect(.notPermitted) { $0.unpin(client.task, client.weak, 0, 3000) }
    #expect(server.state.pins.count == 3000)
    server.check()
  }
}

@Suite struct PinTableTests {
  private func pin(_ task: Int, _ deadline: UInt64) -> Pin { Pin(task: TaskSlot(UInt32(task)), deadline: deadline) }
  private func place(_ id: Int) -> ContainerFrame { ContainerFrame(container: 1, id: FrameID(UInt32(id))) }

  @Test("pins expire in the order of their deadlines, however they were set, changed and removed") func order() throws {
    var table = try PinTable(frameCount: 512, taskCapacity: 4)
    var model: [Int: (task: Int, deadline: UInt64)] = [:]
    var generator = SystemRandomNumberGenerator()
    for step in 0..<4000 {
      let frame = Int.random(in: 1..<512, using: &generator)
      if model[frame] != nil, Bool.random(using: &generator) {
        table.remove(FrameNumber(UInt32(frame)))
        model[frame] = nil
      } else {
        let (task, deadline) = (Int.random(in: 0..<4, using: &generator), UInt64.random(in: 1..<50, using: &generator))
        table.set(FrameNumber(UInt32(frame)), place(frame), pin(task, deadline))
        model[frame] = (task, deadline)
      }
      if step % 50 == 0 { #expect(table.isConsistent() && table.count == model.count) }
    }
    for task in 0..<4 {
      var listed: Set<Int> = []
      var next = table.first(of: TaskSlot(UInt32(task)))
      while let frame = next {
        listed.insert(Int(frame.rawValue))
        next = table.next(of: TaskSlot(UInt32(task)), after: frame)
      }
      #expect(listed == Set(model.filter { $0.value.task == task }.keys))
    }
    for time in 0..<UInt64(50) {
      while let frame = table.firstDue(time) {
        #expect(model.removeValue(forKey: Int(frame.rawValue))?.deadline == time)
        table.remove(frame)
      }
    }
    #expect(model.isEmpty && table.count == 0)
  }
}
