// The test switch that unmaps random frames (R25, R27): no data is lost, in tasks whose mappings the server keeps and
// in those that map again themselves.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

private let free = TestTask.free

@Suite struct RandomRevocationTests {
  private static let count = 40

  /// A task with a container of numbered pages at `free`.
  private static func start(_ bed: Testbed, keepsMappings: Bool) throws -> (task: TestTask, handle: UInt32) {
    let task = try bed.start(TaskParameters(keepsMappings: keepsMappings))
    let handle = try task.container(UInt32(count))
    #expect(task.map(handle, 0, UInt32(count), free, [.read, .write, .lazy]) == nil)
    for page in 0..<count { #expect(task.write(free.advanced(by: page), UInt8(page + 1)) == nil) }
    return (task, handle)
  }

  /// Revokes every page of every task.
  private static func revokeAll(_ bed: Testbed) {
    var random: UInt64 = 1
    for _ in 0..<100_000 where bed.machine.leafCount > 0 {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      _ = bed.server.revokeSomeFrame(random >> 16)
    }
    bed.check()
    #expect(bed.machine.leafCount == 0, "some frame is never chosen")
  }

  @Test("R25: every frame is chosen at some time, and is mapped again with its data") func comesBack() throws {
    let bed = try Testbed()
    let (task, _) = try Self.start(bed, keepsMappings: true)
    Self.revokeAll(bed)
    for page in 0..<Self.count { #expect(task.read(free.advanced(by: page)) == .success(UInt8(page + 1))) }
    #expect(task.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
    task.end()
  }

  @Test("R27: without a mapping cache the task must map pages again, except its image and stack") func forgotten()
    throws
  {
    let bed = try Testbed()
    let (task, handle) = try Self.start(bed, keepsMappings: false)
    Self.revokeAll(bed)
    #expect(task.read(SampleProgram.text) == .success(SampleProgram.textByte(0)))
    for page in 0..<Self.count {
      let place = free.advanced(by: page)
      #expect(task.read(place).outcome == .notMapped)
      #expect(task.mapping(place) == .failure(.noEntry))
      #expect(task.map(handle, UInt32(page), 1, place, [.read, .write, .lazy]) == nil)
      #expect(task.read(place) == .success(UInt8(page + 1)))
    }
    task.end()
  }

  @Test("R25, R27: the message buffer of a waiting task stays mapped until the message is there")
  func waitingForAMessage() throws {
    let bed = try Testbed()
    let (receiver, _) = try Self.start(bed, keepsMappings: false)
    let (caller, _) = try Self.start(bed, keepsMappings: false)
    // Each across two pages.
    let message = free.address + 4096 - 50
    try bed.server.createEndpoint(receiver.slot, result: TestTask.scratch)
    let own = receiver.loadWord()
    let name: [UInt8] = [65, 0]
    try bed.server.writeMemory(receiver.slot, TestTask.scratch, name.span)
    try bed.server.registerName(receiver.slot, name: TestTask.scratch, endpoint: own)
    try bed.server.writeMemory(caller.slot, TestTask.scratch, name.span)
    let result = TestTask.scratch + 8
    #expect(
      try bed.server.lookUpName(caller.slot, name: TestTask.scratch, result: result, mayWait: false) == .finished(nil))
    let endpoint = caller.loadWord(result)

    #expect(try bed.server.receive(receiver.slot, own, message: message, mayWait: true) == .waiting)
    Self.revokeAll(bed)
    #expect(receiver.read(free.advanced(by: 2)).outcome == .notMapped)
    #expect(caller.map(try caller.container(2), 0, 2, free, [.read, .write, .lazy]) == nil)
    let zeros = [UInt8](repeating: 0, count: 104)
    try bed.server.writeMemory(caller.slot, message, zeros.span)
    try bed.server.writeMemory(caller.slot, message, [77 as UInt8].span)
    #expect(try bed.server.call(caller.slot, endpoint, message: message, mayWait: true) == .waiting)
    #expect(bed.server.waitOutcome(receiver.slot) == .finished(nil))
    #expect(receiver.read(message) == .success(77))

    // The caller's reply buffer is kept too; the receiver does not wait any more, and replies from its stack.
    var bytes = zeros
    try bed.server.readMemory(receiver.slot, message, into: &bytes)
    bytes[0] = 78
    try bed.server.writeMemory(receiver.slot, TestTask.scratch, bytes.span)
    Self.revokeAll(bed)
    #expect(receiver.read(message).outcome == .notMapped)
    try bed.server.reply(receiver.slot, message: TestTask.scratch)
    #expect(bed.server.waitOutcome(caller.slot) == .finished(nil))
    #expect(caller.read(message) == .success(78))
    Self.revokeAll(bed)
    #expect(caller.read(message).outcome == .notMapped)
    caller.end()
    receiver.end()
  }
}
