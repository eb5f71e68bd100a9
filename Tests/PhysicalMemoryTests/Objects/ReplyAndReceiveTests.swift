// pm_reply_receive: it may be repeated, for frames or for a page that the task must map, and answers once.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct ReplyAndReceiveTests {
  @Test("everything that may fail for lack of memory fails before the reply is sent") func answersOnce() throws {
    let bed = try Testbed()
    let client = try bed.start()
    let task = try bed.start()
    let endpoint = try task.endpoint("echo")
    try bed.server.writeMemory(client.slot, TestTask.scratch, (Array("echo".utf8) + [0]).span)
    #expect(
      try bed.server.lookUpName(client.slot, name: TestTask.scratch, result: TestTask.scratch, mayWait: false)
        == .finished(nil))
    let target = client.loadWord()
    let message = PM_STACK_TOP - 1024
    #expect(task.receive(endpoint) == .waiting)
    #expect(try bed.server.call(client.slot, target, message: message, mayWait: true) == .waiting)
    #expect(bed.server.waitOutcome(task.slot) == .finished(nil))

    // The reply is in a page where the next message cannot be stored.
    let container = try task.container(1)
    #expect(task.map(container, 0, 1, TestTask.free, [.read, .write]) == nil)
    var bytes = [UInt8](repeating: 0, count: 104)
    try bed.server.readMemory(task.slot, TestTask.message, into: &bytes)
    try bed.server.writeMemory(task.slot, TestTask.free.address, bytes.span)
    func replyAndReceive() throws(CallFailure) -> WaitOutcome {
      try bed.server.replyAndReceive(task.slot, endpoint, message: TestTask.free.address, mayWait: true)
    }
    #expect(task.map(container, 0, 1, TestTask.free, [.read]) == nil)
    for _ in 0..<2 {
      #expect(throws: CallFailure.fault) { try replyAndReceive() }
      #expect(bed.server.waitOutcome(client.slot) == .waiting)
    }
    #expect(task.map(container, 0, 1, TestTask.free, [.read, .write]) == nil)
    #expect(try replyAndReceive() == .waiting)
    #expect(bed.server.waitOutcome(client.slot) == .finished(nil))
    bed.check()
  }
}
