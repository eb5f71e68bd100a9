// A task that must end gives up a long call between any two steps. The state is then consistent for the task's end,
// which leaves nothing behind, and for other tasks whose containers were involved.

import CGuestABI
import GuestMemory
@testable import PhysicalMemory
import Simulation
import Testing

@Suite struct StoppedCallTests {
  /// Frames of a call that takes several steps, whatever it does.
  private static let many: UInt32 = 4500
  /// For lists of ids, of which a step does fewer.
  private static let some: UInt32 = 1300
  private static let free = TestTask.free
  private static let other = PageNumber(containing: 0x2000_0000)
  private static let list = PM_STACK_TOP - 0x10000

  /// A task with two containers, the first with contents, and a friend that holds a weak capability to the first, or
  /// has shared one of its own.
  private struct Scene {
    let bed: Testbed
    let task: TestTask
    let friend: TestTask
    let first: UInt32
    let second: UInt32
    /// The friend's capability to `first`, and the task's capability to a container of the friend.
    let given: UInt32
    let taken: UInt32

    /// Changes that containers count: of calls under way.
    var changes: Int {
      bed.server.withState { state in
        var count = 0
        state.containers.forEachIndex { count += state.containers[$0].changes }
        return count
      }
    }

    init() throws {
      bed = try Testbed(frames: 1 << 14, isChecked: false)
      friend = try bed.start()
      task = try bed.start()
      first = try task.container(many)
      #expect(task.map(first, 0, many, free, [.read, .write]) == nil)
      second = try task.container(0)
      let theirs = try friend.container(many)
      #expect(friend.map(theirs, 0, many, free, [.read, .write]) == nil)
      given = try Self.give(task, first, to: friend, named: "friend")
      taken = try Self.give(friend, theirs, to: task, named: "task")
      try task.storeIDs(some, at: list)
    }

    private static func give(
      _ owner: TestTask, _ container: UInt32, to client: TestTask, named name: String
    ) throws -> UInt32 {
      try owner.server.share(owner.slot, container, remote: 0, result: TestTask.scratch)
      return try owner.send(
        owner.loadWord(), isMoved: false, to: client, client.endpoint(name), named: name)
    }
  }

  private enum Kind: String, CaseIterable {
    case allocate, squash, deallocate, destroy, drop, map, mapLazily, unmap, copy, copyToOther, copyFromOther
    case createFresh, createCopies, releaseData, releasePages, recoverPages, revoke, lock, pin, pinOther, unpin
    case placeRun, placeSingles, placeOver, defragment
  }

  private func prepare(_ kind: Kind, _ scene: Scene) throws {
    let (task, many, some) = (scene.task, Self.many, Self.some)
    switch kind {
    case .unpin:
      try scene.bed.server.pin(
        task.slot, scene.first, start: 0, count: some, microseconds: 1000, physical: Self.list)
    case .releaseData:
      try scene.bed.server.copy(
        task.slot, scene.first, .from(0), scene.second, .from(0), count: many, frameError: 0)
    case .recoverPages: try scene.bed.server.releasePages(task.slot, scene.first, frames: Self.list, count: some)
    case .revoke:
      #expect(scene.friend.map(scene.given, 0, many, Self.other, [.read, .write]) == nil)
    default: break
    }
  }

  private func perform(_ kind: Kind, _ scene: Scene) throws(CallFailure) {
    let (server, slot) = (scene.bed.server, scene.task.slot)
    let (first, second, many, some) = (scene.first, scene.second, Self.many, Self.some)
    let result = TestTask.scratch
    func store(_ count: UInt32) throws(CallFailure) {
      let bytes = (0..<4).map { UInt8(truncatingIfNeeded: count >> UInt32(8 * $0)) }
      try server.writeMemory(slot, result, bytes.span)
    }
    func allocate(_ handle: UInt32, _ flags: UInt32) throws(CallFailure) {
      try store(many)
      try server.allocate(slot, handle, start: 0, countAddress: result, flags: flags)
    }
    switch kind {
    case .allocate: try allocate(second, 0)
    case .squash: try allocate(first, UInt32(PM_ALLOC_SQUASH))
    case .deallocate:
      try store(many)
      try server.deallocate(slot, first, start: 0, countAddress: result, flags: 0)
    case .destroy: try server.destroyContainer(slot, first)
    case .drop: try server.dropCapability(slot, first)
    case .map, .mapLazily:
      let flags: MappingFlags = kind == .map ? [.read, .write] : [.read, .lazy]
      // Over existing frames.
      try server.map(
        slot, first, start: 0, count: many, address: Self.free.advanced(by: 7).address, flags: flags.rawValue)
    case .unmap: try server.unmap(slot, address: Self.free.address, count: many)
    case .copy: try server.copy(slot, first, .from(0), second, .from(7), count: many, frameError: 0)
    case .copyToOther: try server.copy(slot, first, .from(0), scene.taken, .from(0), count: many, frameError: 0)
    case .copyFromOther: try server.copy(slot, scene.taken, .from(0), first, .from(0), count: many, frameError: 0)
    case .createFresh:
      try server.createContainer(slot, .fresh, count: many, remote: 0, result: result, weakResult: 0)
    case .createCopies:
      try server.createContainer(
        slot, .copies(source: first, .from(0)), count: many, remote: 0, result: result, weakResult: 0)
    case .releaseData: try server.releaseData(slot, first, frames: Self.list, count: some)
    case .releasePages: try server.releasePages(slot, first, frames: Self.list, count: some)
    case .recoverPages: try server.recoverPages(slot, first, frames: Self.list, count: some, frameError: 0)
    case .revoke: try server.revoke(slot, first)
    case .lock: try server.lock(slot, scene.taken, microseconds: 1000)
    case .pin, .pinOther:
      try server.pin(
        slot, kind == .pin ? first : scene.taken, start: 0, count: some, microseconds: 1000, physical: Self.list)
    case .unpin: try server.unpin(slot, first, start: 0, count: some)
    case .placeRun, .placeSingles, .placeOver:
      let request = kind == .placeSingles ? PlacementRequest(below: 1 << 27) : .run
      try server.writeMemory(slot, result - 64, request.bytes.span)
      try store(some)
      try server.allocatePlaced(
        slot, kind == .placeOver ? first : second, start: 0, countAddress: result,
        flags: kind == .placeOver ? UInt32(PM_ALLOC_SQUASH) : 0, placement: result - 64)
    case .defragment:
      try server.getControl(slot, result: result)
      try server.defragment(slot, scene.task.loadWord(), result: result)
    }
  }

  @Test(
    "R30: a call can be given up after any step, and its task's end leaves nothing behind", arguments: Kind.allCases)
  private func givenUp(kind: Kind) throws {
    var steps = 0
    var isDone = false
    while !isDone {
      let scene = try Scene()
      try prepare(kind, scene)
      scene.bed.machine.stop(scene.task.slot, afterSteps: steps)
      do throws(CallFailure) {
        try perform(kind, scene)
        isDone = true
      } catch {
        #expect(error == .stopped, "\(kind) after \(steps) steps")
        if error != .stopped { return }
      }
      #expect(scene.changes == 0, "\(kind) after \(steps) steps: a container counts a change")
      // Shares that were revoked but not cut off yet go with the container.
      if kind != .revoke { #expect(scene.bed.violations == [], "\(kind) after \(steps) steps") }
      scene.task.end()
      #expect(scene.bed.violations == [], "\(kind) after \(steps) steps, at the end")
      // The friend has everything it had, and can continue.
      #expect(scene.friend.write(Self.free, 1) == nil)
      let theirs = scene.friend.information.allocated
      #expect(theirs == SampleProgram.pages + Int(Self.many), "\(kind) after \(steps) steps")
      scene.friend.end()
      // The two loaded programs have a container each.
      #expect(scene.bed.statistics.allocatedFrames == 0 && scene.bed.statistics.containers == 2)
      #expect(scene.bed.violations == [], "\(kind) after \(steps) steps, at both ends")
      steps += 1
    }
    #expect(steps > 2, "\(kind) took \(steps) steps")
  }
}

extension TestTask {
  fileprivate func storeIDs(_ count: UInt32, at address: UInt64) throws {
    let bytes = (0..<count).flatMap { id in (0..<4).map { UInt8(truncatingIfNeeded: id >> UInt32(8 * $0)) } }
    try server.writeMemory(slot, address, bytes.span)
  }
}
