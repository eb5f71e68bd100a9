// The two wait levels of a task: its pm_return_pages handler may make waiting calls while the task's own wait goes on.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

@Suite struct WaitLevelTests {
  /// Two tasks, and endpoints of the second that the first has found by name.
  private struct Pair {
    let client: TestTask
    let server: TestTask
    let bed: Testbed
    /// Handles: the client's to call, the server's to receive.
    var endpoints: [(call: UInt32, receive: UInt32)] = []

    init(endpoints count: Int) throws {
      bed = try Testbed()
      client = try bed.start()
      server = try bed.start()
      for index in 0..<count {
        let name = [UInt8](repeating: UInt8(ascii: "a") + UInt8(index), count: 1) + [UInt8](repeating: 0, count: 63)
        try bed.server.createEndpoint(server.slot, result: TestTask.scratch)
        let receive = server.loadWord()
        try bed.server.writeMemory(server.slot, TestTask.scratch, name.span)
        try bed.server.registerName(server.slot, name: TestTask.scratch, endpoint: receive)
        try bed.server.writeMemory(client.slot, TestTask.scratch, name.span)
        let found = try bed.server.lookUpName(
          client.slot, name: TestTask.scratch, result: TestTask.scratch, mayWait: false)
        #expect(found == .finished(nil))
        endpoints.append((client.loadWord(), receive))
      }
    }
  }

  /// Addresses of the messages of the task itself and of its handler.
  static let own = PM_STACK_TOP - 512
  static let inner = PM_STACK_TOP - 1024

  private func write(_ task: TestTask, _ address: UInt64, words: UInt64, reply: UInt64 = 0) throws {
    var bytes = [UInt8](repeating: 0, count: 104)
    for byte in 0..<8 {
      bytes[byte] = UInt8(truncatingIfNeeded: words >> UInt64(8 * byte))
      bytes[96 + byte] = UInt8(truncatingIfNeeded: reply >> UInt64(8 * byte))
    }
    try task.server.writeMemory(task.slot, address, bytes.span)
  }

  private func word(_ task: TestTask, _ address: UInt64) throws -> UInt64 {
    var bytes = [UInt8](repeating: 0, count: 8)
    try task.server.readMemory(task.slot, address, into: &bytes)
    return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  @Test("R28: a reply reaches the level that made the call, in any order of replies", arguments: [false, true])
  func repliesByLevel(ownFirst: Bool) throws {
    let pair = try Pair(endpoints: 2)
    let (server, client, end) = (pair.bed.server, pair.client, pair.endpoints)
    try write(client, Self.own, words: 1)
    try write(client, Self.inner, words: 2)
    #expect(try server.call(client.slot, end[0].call, message: Self.own, mayWait: true) == .waiting)
    #expect(try server.call(client.slot, end[1].call, message: Self.inner, mayWait: true, at: .handler) == .waiting)
    for (endpoint, address) in zip(end, [Self.own, Self.inner]) {
      #expect(
        try server.receive(pair.server.slot, endpoint.receive, message: address, mayWait: false) == .finished(nil))
    }
    #expect(try word(pair.server, Self.own) == 1 && word(pair.server, Self.inner) == 2)
    let order: [(UInt64, WaitLevel)] =
      ownFirst
      ? [(Self.own, .task), (Self.inner, .handler)]
      : [(Self.inner, .handler), (Self.own, .task)]
    for (address, level) in order {
      #expect(server.waitOutcome(client.slot, at: level) == .waiting)
      let reply = try word(pair.server, address + 96)
      try write(pair.server, address, words: 10 + word(pair.server, address), reply: reply)
      try server.reply(pair.server.slot, message: address)
      #expect(throws: CallFailure.invalid) { try server.reply(pair.server.slot, message: address) }
      #expect(server.waitOutcome(client.slot, at: level) == .finished(nil))
    }
    #expect(try word(client, Self.own) == 11 && word(client, Self.inner) == 12)
    pair.bed.check()
  }

  @Test("R28: of two receivers on one endpoint the handler is served first, and the task's own wait goes on")
  func receiversOfOneEndpoint() throws {
    let pair = try Pair(endpoints: 1)
    let (server, client, end) = (pair.bed.server, pair.client, pair.endpoints[0])
    #expect(try server.receive(pair.server.slot, end.receive, message: Self.own, mayWait: true) == .waiting)
    #expect(
      try server.receive(pair.server.slot, end.receive, message: Self.inner, mayWait: true, at: .handler) == .waiting)
    for (number, level, address) in [(UInt64(1), WaitLevel.handler, Self.inner), (2, .task, Self.own)] {
      try write(client, Self.own, words: number)
      #expect(try server.call(client.slot, end.call, message: Self.own, mayWait: false) == .waiting)
      #expect(server.waitOutcome(pair.server.slot, at: level) == .finished(nil))
      #expect(try word(pair.server, address) == number)
      try server.reply(pair.server.slot, message: address)
      #expect(server.waitOutcome(client.slot) == .finished(nil))
    }
    pair.bed.check()
  }

  @Test("R28: a handler that stops waiting does not end the task's own wait")
  func stopWaiting() throws {
    let pair = try Pair(endpoints: 1)
    let (server, client, end) = (pair.bed.server, pair.client, pair.endpoints[0])
    try write(client, Self.own, words: 1)
    try write(client, Self.inner, words: 2)
    #expect(try server.call(client.slot, end.call, message: Self.own, mayWait: true) == .waiting)
    #expect(try server.call(client.slot, end.call, message: Self.inner, mayWait: true, at: .handler) == .waiting)
    #expect(server.stopWaiting(client.slot, at: .handler) == .timedOut)
    #expect(
      try server.receive(pair.server.slot, end.receive, message: Self.own, mayWait: false) == .finished(nil))
    #expect(try word(pair.server, Self.own) == 1)
    #expect(throws: CallFailure.timedOut) {
      try server.receive(pair.server.slot, end.receive, message: Self.inner, mayWait: false)
    }
    pair.bed.check()
  }

  @Test("R28 R30: both waits of a caller end with the called task, and leave every queue with the caller's end")
  func ends() throws {
    let pair = try Pair(endpoints: 2)
    let (server, client, end) = (pair.bed.server, pair.client, pair.endpoints)
    try write(client, Self.own, words: 1)
    for (endpoint, level) in zip(end, WaitLevel.allCases) {
      #expect(try server.call(client.slot, endpoint.call, message: Self.own, mayWait: true, at: level) == .waiting)
    }
    #expect(try server.receive(pair.server.slot, end[0].receive, message: Self.own, mayWait: false) == .finished(nil))
    pair.server.end()
    for level in WaitLevel.allCases {
      #expect(server.waitOutcome(client.slot, at: level) == .finished(.canceled))
    }
    pair.bed.check()
  }

  @Test("R28: a wait ends when the handler gives its endpoint away")
  func droppedEndpoint() throws {
    let pair = try Pair(endpoints: 1)
    let server = pair.bed.server
    let receive = pair.endpoints[0].receive
    #expect(try server.receive(pair.server.slot, receive, message: Self.own, mayWait: true) == .waiting)
    try server.dropCapability(pair.server.slot, receive)
    #expect(server.waitOutcome(pair.server.slot) == .finished(.canceled))
    pair.bed.check()
  }
}
