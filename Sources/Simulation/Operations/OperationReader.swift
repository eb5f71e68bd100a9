// Reads what `OperationText` writes.

internal import PhysicalMemory

/// A line that is not an operation.
package struct UnreadableOperation: Error, CustomStringConvertible {
  package let line: Int
  package let problem: String
  package var description: String { "line \(line) \(problem)" }
}

/// A world and a list of operations, as a text file holds them.
package struct OperationFile {
  package var world = World()
  package var operations: [Operation] = []

  package init(world: World, operations: [Operation]) {
    self.world = world
    self.operations = operations
  }

  /// Skips empty lines and lines that start with #. The world's line is optional.
  package init(text: String) throws(UnreadableOperation) {
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      if line.allSatisfy(\.isWhitespace) || line.hasPrefix("#") { continue }
      var reader = FieldReader(line)
      do throws(FieldReader.Problem) {
        if line.hasPrefix("world") { world = try World(&reader) } else { operations.append(try Operation(&reader)) }
        guard reader.isAtEnd else { throw FieldReader.Problem(text: "has extra fields") }
      } catch {
        throw UnreadableOperation(line: index + 1, problem: error.text)
      }
    }
  }

  package var text: String { ([world.text] + operations.map(\.text)).joined(separator: "\n") + "\n" }
}

/// The fields of a line in order. The text before an = is a comment.
struct FieldReader {
  struct Problem: Error {
    let text: String
  }

  private var fields: ArraySlice<Substring>

  init(_ line: Substring) { fields = line.split(separator: " ")[...] }

  var isAtEnd: Bool { fields.isEmpty }

  mutating func word() throws(Problem) -> Substring {
    guard let field = fields.popFirst() else { throw Problem(text: "lacks a field") }
    guard let sign = field.firstIndex(of: "=") else { return field }
    return field[field.index(after: sign)...]
  }

  /// The part of the next field before its =, without taking the field.
  var key: Substring? { fields.first.map { $0.prefix { $0 != "=" } } }

  mutating func number<Number: FixedWidthInteger>() throws(Problem) -> Number {
    let word = try word()
    let number = word.hasPrefix("0x") ? Number(word.dropFirst(2), radix: 16) : Number(word)
    guard let number else { throw Problem(text: "has '\(word)' instead of a number") }
    return number
  }

  mutating func flag() throws(Problem) -> Bool {
    let word = try word()
    guard let flag = Bool(String(word)) else { throw Problem(text: "has '\(word)', not true or false") }
    return flag
  }

  mutating func access() throws(Problem) -> Access {
    switch try word() {
    case "read": .read
    case "write": .write
    case "execute": .execute
    case let word: throw Problem(text: "has '\(word)' instead of an access")
    }
  }

  mutating func task() throws(Problem) -> TaskName {
    let word = try word()
    guard word.first == "t", let label = Int(word.dropFirst()) else { throw Problem(text: "has '\(word)', not a task") }
    return TaskName(label)
  }

  mutating func handle() throws(Problem) -> HandleArgument { try Self.handle(try word()) }

  private static func handle(_ word: Substring) throws(Problem) -> HandleArgument {
    if word.first == "#", let number = UInt32(word.dropFirst()) { return .number(number) }
    let parts = word.dropFirst().split(separator: ".")
    if word.first == "h", parts.count <= 2, let label = parts.first.flatMap({ Int($0) }),
      let index = parts.count == 1 ? 0 : Int(parts[1])
    {
      return .name(HandleName(label, index))
    }
    throw Problem(text: "has '\(word)', not a handle")
  }

  private mutating func list() throws(Problem) -> [Substring] {
    let word = try word()
    guard word.hasPrefix("["), word.hasSuffix("]") else { throw Problem(text: "has '\(word)', not a list") }
    return word.dropFirst().dropLast().split(separator: ",")
  }

  mutating func ids() throws(Problem) -> [UInt32] {
    try list().map { (word) throws(Problem) in
      guard let id = UInt32(word) else { throw Problem(text: "has '\(word)', not an id") }
      return id
    }
  }

  mutating func idArgument() throws(Problem) -> IDArgument {
    if key == "from" { return .from(try number()) }
    return .list(try ids(), at: try number())
  }

  mutating func placement() throws(Problem) -> PlacementArgument {
    PlacementArgument(
      below: try number(), alignment: try number(), boundary: try number(), fixed: try number(),
      contiguous: try number(), reserved: try number())
  }

  mutating func message() throws(Problem) -> MessageArgument {
    let handles = try list().map { (word) throws(Problem) in try Self.handle(word) }
    return MessageArgument(handles: handles, moves: try number())
  }

  mutating func reply() throws(Problem) -> ReplyArgument {
    key == "call" ? .call(try number()) : .number(try number())
  }
}

extension World {
  init(_ reader: inout FieldReader) throws(FieldReader.Problem) {
    _ = try reader.word()
    frames = try reader.number()
    reserved = try reader.number()
    tasks = try reader.number()
    stock = try reader.number()
    tablesKept = try reader.number()
    if !reader.isAtEnd { timeLimit = try reader.number() }
    if !reader.isAtEnd { blocks = try reader.number() }
  }
}

extension Operation {
  init(_ reader: inout FieldReader) throws(FieldReader.Problem) {
    self.init(try reader.number(), try Action(&reader))
  }
}

extension Action {
  init(_ reader: inout FieldReader) throws(FieldReader.Problem) {
    let name = try reader.word()
    switch name {
    case "loadImage": self = .loadImage(try reader.number())
    case "unloadImage": self = .unloadImage(try reader.number())
    case "start":
      self = .start(
        image: try reader.number(), guaranteed: try reader.number(), contract: try reader.flag(),
        extra: try reader.flag(), around: try reader.number(), keepsMappings: try reader.flag())
    case "end": self = .end(try reader.task(), pause: try reader.number())
    case "stop": self = .stop(try reader.task(), steps: try reader.number())
    case "pass": self = .pass(microseconds: try reader.number())
    case "work": self = .work(try reader.task(), microseconds: try reader.number())
    case "zeroAhead": self = .zeroAhead(try reader.number())
    case "releaseClosedSpaces": self = .releaseClosedSpaces
    case "takeMachineFrame": self = .takeMachineFrame
    case "giveMachineFrame": self = .giveMachineFrame
    case "revokeSomeFrame": self = .revokeSomeFrame(try reader.number())
    case "moveSomeFrame": self = .moveSomeFrame(try reader.number())
    case "defragmentSteps": self = .defragment(steps: try reader.number(), block: try reader.number())
    case "readyBlocks": self = .readyBlocks(try reader.number())
    case "gather": self = .gather(steps: try reader.number())
    case "promote": self = .promote(try reader.task(), page: try reader.number())
    default: self = .task(try reader.task(), try Call(name, &reader))
    }
  }
}

extension Call {
  init(_ name: Substring, _ reader: inout FieldReader) throws(FieldReader.Problem) {
    switch name {
    case "load": self = .load(at: try reader.number(), count: try reader.number(), try reader.access())
    case "store": self = .store(at: try reader.number(), try reader.number())
    case "read": self = .read(at: try reader.number(), count: try reader.number())
    case "write": self = .write(at: try reader.number(), count: try reader.number(), try reader.number())
    case "check": self = .check(at: try reader.number(), count: try reader.number())
    case "createContainer": self = .createContainer(result: try reader.number())
    case "destroyContainer": self = .destroyContainer(try reader.handle())
    case "allocate":
      self = .allocate(
        try reader.handle(), start: try reader.number(), count: try reader.number(), at: try reader.number(),
        flags: try reader.number())
    case "allocatePlaced":
      self = .allocatePlaced(
        try reader.handle(), start: try reader.number(), count: try reader.number(), at: try reader.number(),
        flags: try reader.number(), try reader.placement(), in: try reader.number())
    case "deallocate":
      self = .deallocate(
        try reader.handle(), start: try reader.number(), count: try reader.number(), at: try reader.number(),
        flags: try reader.number())
    case "map":
      self = .map(
        try reader.handle(), start: try reader.number(), count: try reader.number(), at: try reader.number(),
        flags: try reader.number())
    case "unmap": self = .unmap(at: try reader.number(), count: try reader.number())
    case "mapping": self = .mapping(at: try reader.number())
    case "sample":
      self = .sample(
        at: try reader.number(), count: try reader.number(), flags: try reader.number(), result: try reader.number())
    case "copy":
      self = .copy(
        try reader.handle(), try reader.idArgument(), to: try reader.handle(), try reader.idArgument(),
        count: try reader.number(), frameError: try reader.number())
    case "releaseData": self = .releaseData(try reader.handle(), try reader.ids(), at: try reader.number())
    case "createFilled":
      let source = try reader.handle()
      var ids: IDArgument?
      if reader.key == "fresh" { _ = try reader.word() } else { ids = try reader.idArgument() }
      self = .createFilled(
        source, ids, count: try reader.number(), remote: try reader.handle(), result: try reader.number(),
        weak: try reader.number())
    case "releasePages": self = .releasePages(try reader.handle(), try reader.ids(), at: try reader.number())
    case "recoverPages":
      self = .recoverPages(
        try reader.handle(), try reader.ids(), at: try reader.number(), frameError: try reader.number())
    case "expiredPages":
      self = .expiredPages(try reader.handle(), try reader.ids(), at: try reader.number(), result: try reader.number())
    case "takeReturnRequest": self = .takeReturnRequest
    default: self = try Call(sharing: name, &reader)
    }
  }

  private init(sharing name: Substring, _ reader: inout FieldReader) throws(FieldReader.Problem) {
    switch name {
    case "share":
      self = .share(try reader.handle(), remote: try reader.handle(), result: try reader.number())
    case "revoke": self = .revoke(try reader.handle())
    case "lock": self = .lock(try reader.handle(), microseconds: try reader.number())
    case "unlock": self = .unlock(try reader.handle())
    case "pin":
      self = .pin(
        try reader.handle(), start: try reader.number(), count: try reader.number(), microseconds: try reader.number(),
        physical: try reader.number())
    case "unpin": self = .unpin(try reader.handle(), start: try reader.number(), count: try reader.number())
    case "beginTransfer":
      self = .beginTransfer(try reader.handle(), start: try reader.number(), count: try reader.number())
    case "endTransfer": self = .endTransfer(try reader.number())
    case "createEndpoint": self = .createEndpoint(result: try reader.number())
    case "call":
      self = .call(try reader.handle(), try reader.message(), at: try reader.number(), mayWait: try reader.flag())
    case "receive": self = .receive(try reader.handle(), at: try reader.number(), mayWait: try reader.flag())
    case "reply": self = .reply(try reader.reply(), try reader.message(), at: try reader.number())
    case "replyAndReceive":
      self = .replyAndReceive(
        try reader.handle(), try reader.reply(), try reader.message(), at: try reader.number(),
        mayWait: try reader.flag())
    case "wake": self = .wake
    case "stopWaiting": self = .stopWaiting
    case "registerName":
      self = .registerName(try reader.number(), at: try reader.number(), try reader.handle())
    case "lookUpName":
      self = .lookUpName(
        try reader.number(), at: try reader.number(), result: try reader.number(), mayWait: try reader.flag())
    case "drop": self = .drop(try reader.handle())
    case "getControl": self = .getControl(result: try reader.number())
    case "getPolicyBuffer":
      self = .getPolicyBuffer(try reader.handle(), at: try reader.number(), result: try reader.number())
    case "setPolicy":
      self = .setPolicy(
        at: try reader.number(),
        PolicyArgument(
          slot: try reader.number(), guaranteed: try reader.number(), extra: try reader.number(),
          swapQuota: try reader.number(), garbage: try reader.number()), isDirect: try reader.flag())
    case "policyCommit": self = .policyCommit(try reader.handle())
    case "defragment": self = .defragment(try reader.handle(), result: try reader.number())
    default: throw FieldReader.Problem(text: "has '\(name)', which is not an operation")
    }
  }
}
