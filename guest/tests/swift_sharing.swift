// Copies, sharing and messages in Embedded Swift. The cases are listed in swift_sharing.c.

import Physmem

/// Prints where a check failed, and ends the task with 1.
func check(_ condition: Bool, _ what: StaticString, line: Int = #line) {
  guard !condition else { return }
  print("swift_sharing.swift:\(line): failed: ", terminator: "")
  print(what)
  ThisTask.exit(1)
}

/// Runs a case; an uncaught error is a failure.
func run(_ body: () throws(PMError) -> Void) {
  do throws(PMError) {
    try body()
  } catch {
    print("failed: \(error)")
    ThisTask.exit(1)
  }
}

/// The error of a call that must fail with one.
func error(of body: () throws(PMError) -> Void) -> PMError? {
  do throws(PMError) {
    try body()
    return nil
  } catch {
    return error
  }
}

/// The same for a copy; nil if it succeeded.
func copyError(of body: () throws(CopyError) -> Void) -> CopyError? {
  do throws(CopyError) {
    try body()
    return nil
  } catch {
    return error
  }
}

let region: UInt = 0x1000_0000_0000
let otherRegion: UInt = 0x2000_0000_0000

func byte(_ page: UInt, in region: UInt) -> UInt8 {
  unsafe UnsafePointer<UInt8>(bitPattern: region + page * 4096)!.pointee
}

func store(_ byte: UInt8, _ page: UInt, in region: UInt) {
  unsafe UnsafeMutablePointer<UInt8>(bitPattern: region + page * 4096)!.pointee = byte
}

/// Frames that hold 100, 101, …, mapped at `region`.
func numbered(_ count: UInt32) throws(PMError) -> Container {
  let container = try Container()
  try container.allocate(0..<count)
  try container.map(0..<count, at: region, rights: .write)
  for page in 0..<UInt(count) { store(UInt8(100 + page), page, in: region) }
  return container
}

@_cdecl("test_copies")
public func testCopies() {
  run { () throws(PMError) in
    let source = try numbered(8)
    let copies = try Container()
    let made = copyError { () throws(CopyError) in
      try source.copy(0..<4, to: copies, at: 0)
      try source.copy([7, 6], to: copies, at: 4)
      try source.copy(0..<2, to: copies, at: [9, 8])
      try source.copy([5, 4], to: copies, at: [7, 6])
    }
    check(made == nil, "copies")
    try copies.map(0..<10, at: otherRegion, rights: .write)
    let expected: [UInt8] = [100, 101, 102, 103, 107, 106, 104, 105, 101, 100]
    for page in 0..<10 { check(byte(UInt(page), in: otherRegion) == expected[page], "what was copied") }
    store(1, 0, in: otherRegion)
    check(byte(0, in: region) == 100, "the source")

    let missing = copyError { () throws(CopyError) in try source.copy(6..<10, to: copies, at: 0) }
    check(missing == CopyError(.noEntry, frame: 8), "a frame that is not in use")
    let none = copyError { () throws(CopyError) in try source.copy(6..<6, to: copies, at: 0) }
    check(none == CopyError(.invalid, frame: nil), "no frames")

    try copies.releaseData([0, 1])
    check(byte(0, in: otherRegion) == 1 && byte(1, in: otherRegion) == 0, "released")
    check(byte(1, in: region) == 101, "the source of what was released")
  }
}

@_cdecl("test_made_of_copies")
public func testMadeOfCopies() {
  run { () throws(PMError) in
    let source = try numbered(4)
    let copies = try Container(copying: 1..<3, of: source)
    try copies.map(0..<2, at: otherRegion, rights: .read)
    check(byte(0, in: otherRegion) == 101 && byte(1, in: otherRegion) == 102, "copies")
    let failed = error { () throws(PMError) in _ = try Container(copying: 0..<5, of: source) }
    check(failed == .noEntry, "more than there are")

    var weak: WeakContainer?
    let fresh = try Container(count: 3, sharedAs: &weak)
    guard let weak = weak.take() else { return check(false, "a weak capability") }
    try weak.map(0..<3, at: otherRegion, rights: .write)
    store(9, 2, in: otherRegion)
    try fresh.map(0..<3, at: region, rights: .read)
    check(byte(2, in: region) == 9, "the same frames")
  }
}

@_cdecl("test_weak")
public func testWeak() {
  run { () throws(PMError) in
    let container = try numbered(4)
    do {
      let weak = try container.share()
      check(try weak.pin(1..<3, microseconds: 1_000_000).count == 2, "addresses")
      let physical = try Mapping(at: region + 4096).physical
      check(try weak.pin(1..<3, microseconds: 1_000_000)[0] == physical, "the frame's address")
      check(error { () throws(PMError) in try container.deallocate(0..<4) } == .busy, "pinned")
      try weak.unpin(1..<3)
      try container.revoke()
      check(error { () throws(PMError) in try weak.map(0..<1, at: otherRegion, rights: .read) } == .canceled, "revoked")
    }
    // Leaked handles would run out.
    for _ in 0..<1000 { _ = try container.share() }
    check(try container.share().handle & 0xffff < 100, "handles are given back")
  }
}

// MARK: Demands for frames

/// Borrowed frames: ids of the initial container, from `firstBorrowed` on.
let firstBorrowed: UInt32 = 100_000
nonisolated(unsafe) var borrowed: UInt32 = 0
nonisolated(unsafe) var calls = 0

@_cdecl("swift_borrow")
public func borrow() {
  run { () throws(PMError) in
    try ThisTask.onReturnPages { count in
      unsafe calls += 1
      let end = unsafe firstBorrowed + borrowed
      unsafe borrowed -= UInt32(count)
      do throws(PMError) { try Container.initial.deallocate(end - UInt32(count)..<end) } catch { ThisTask.exit(2) }
    }
    let all = UInt32(try ThisTask.info().available)
    unsafe borrowed = all
    try Container.initial.allocate(firstBorrowed..<firstBorrowed + all, options: .extra)
  }
}

@_cdecl("swift_check_returned")
public func checkReturned() {
  run { () throws(PMError) in
    check(unsafe calls >= 1, "the closure was called")
    let first = unsafe firstBorrowed + borrowed
    check(try ThisTask.info().allocated >= UInt64(unsafe borrowed), "the rest is there")
    check(error { () throws(PMError) in try Container.initial.deallocate(first..<first + 1) } == .noEntry, "given back")
    try Container.initial.deallocate(firstBorrowed..<first)
    try ThisTask.onReturnPages(nil)
  }
}

@_cdecl("test_messages")
public func testMessages() {
  run { () throws(PMError) in
    let endpoint = try Endpoint()
    let taken = error { () throws(PMError) in try endpoint.register(as: "swift server") }
    if taken == nil { try serve(endpoint) } else { try beClient() }
  }
}

/// Adds up words, and then works on a container.
func serve(_ endpoint: borrowing Endpoint) throws(PMError) {
  var message = try endpoint.receive(timeout: 5_000_000)
  check(message.sender != 0, "a sender")
  var answer = message.emptied
  answer[word: 0] = message[word: 0] + message[word: 7]
  message = answer
  try endpoint.replyAndReceive(&message, timeout: 5_000_000)
  let weak = WeakContainer(handle: message[capability: 0])
  try weak.lock(microseconds: 5_000_000)
  try weak.map(0..<4, at: otherRegion, rights: .write)
  answer = message.emptied
  try Endpoint.reply(answer)
  ThisTask.sleep(microseconds: 20_000)
  for page in 0..<UInt(4) { store(byte(page, in: otherRegion) + 10, page, in: otherRegion) }
  try weak.unlock()
  message = try endpoint.receive(timeout: 5_000_000)
  try Endpoint.reply(message.emptied)
}

func beClient() throws(PMError) {
  let server = try Endpoint(named: "swift server", timeout: 5_000_000)
  var message = Message(words: 40)
  message[word: 7] = 2
  try server.call(&message, timeout: 5_000_000)
  check(message[word: 0] == 42, "a sum")
  let container = try numbered(4)
  message = Message(words: 1)
  let weak = try container.share(with: server.handle)
  message.move(weak.take(), at: 0)
  try server.call(&message)
  for page in 0..<UInt(4) { check(byte(page, in: region) == UInt8(110 + page), "what the server did") }
  message = Message()
  try server.call(&message, timeout: 5_000_000)
}
