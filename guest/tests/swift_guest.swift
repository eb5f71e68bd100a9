// A task in Embedded Swift: the language's demands on the library, and the Physmem module. The cases are listed in
// swift_guest.c.

import Physmem

/// Prints where a check failed, and ends the task with 1.
func check(_ condition: Bool, _ what: StaticString, line: Int = #line) {
  guard !condition else { return }
  print("swift_guest.swift:\(line): failed: ", terminator: "")
  print(what)
  ThisTask.exit(1)
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

/// Runs a case; an uncaught error is a failure.
func run(_ body: () throws(PMError) -> Void) {
  if let error = error(of: body) {
    print("failed: \(error)")
    ThisTask.exit(1)
  }
}

let region: UInt = 0x1000_0000_0000

func byte(at address: UInt) -> UInt8 {
  unsafe UnsafePointer<UInt8>(bitPattern: address)!.pointee
}

func store(_ byte: UInt8, at address: UInt) {
  unsafe UnsafeMutablePointer<UInt8>(bitPattern: address)!.pointee = byte
}

// MARK: The language

class Shape {
  func area() -> Int { 0 }
}

final class Square: Shape {
  let side: Int
  init(side: Int) { self.side = side }
  override func area() -> Int { side * side }
}

final class Counted {
  nonisolated(unsafe) static var alive = 0
  init() { unsafe Counted.alive += 1 }
  deinit { unsafe Counted.alive -= 1 }
}

enum TooLarge: Error, Equatable { case by(Int) }

func limited(_ value: Int) throws(TooLarge) -> Int {
  guard value <= 100 else { throw .by(value - 100) }
  return value
}

@_cdecl("test_values")
public func testValues() {
  let squares = (0..<1000).map { $0 * $0 }
  check(squares.filter { $0 % 2 == 0 }.reduce(0, +) == 166_167_000, "sum of even squares")
  var shuffled = squares.reversed() + [3, -1]
  shuffled.sort()
  check(shuffled.first == -1 && shuffled.last == 998_001, "sorting")
  let shapes: [Shape] = [Square(side: 3), Shape(), Square(side: 4)]
  check(shapes.reduce(0) { $0 + $1.area() } == 25, "virtual methods")
  do throws(TooLarge) {
    _ = try limited(50)
    _ = try limited(142)
    check(false, "nothing was thrown")
  } catch {
    check(error == .by(42), "the error's value")
  }
  do {
    let some = (0..<100).map { _ in Counted() }
    unsafe check(Counted.alive == 100 && some.count == 100, "objects alive")
  }
  unsafe check(Counted.alive == 0, "objects freed")
  let ratio = squares.map(Double.init).reduce(0, +) / 3
  check(ratio > 110_944_499 && ratio < 110_944_501, "floating point")
}

@_cdecl("test_strings")
public func testStrings() {
  var text = ""
  for number in 0..<100 { text += "\(number)," }
  check(text.utf8.count == 290, "appending")
  check("caf\u{e9}" == "cafe\u{301}", "canonical equivalence")
  check("caf\u{e9}".count == 4 && "e\u{301}\u{1F1E9}\u{1F1EA}".count == 2, "characters")
  check("abc" < "abd" && "abc".hasPrefix("ab"), "order and prefix")
  let words = "the quick brown fox".split(separator: " ")
  check(words.count == 4 && words[1] == "quick", "splitting")
  check(Int("12345") == 12345 && Int("12x") == nil, "numbers from text")
}

@_cdecl("test_dictionaries")
public func testDictionaries() {
  run { () throws(PMError) in
    _ = [String: Int](dictionaryLiteral: ("warm", 1))
    let before = try ThisTask.info().allocated
    do {
      var numbers: [String: Int] = [:]
      for number in 0..<5000 { numbers["key \(number)"] = number }
      for number in stride(from: 0, to: 5000, by: 2) { numbers["key \(number)"] = nil }
      check(numbers.count == 2500 && numbers["key 4999"] == 4999 && numbers["key 4998"] == nil, "entries")
      check(Set(numbers.values).count == 2500, "a set of its values")
    }
    check(try ThisTask.info().allocated < before + 400, "memory is given back")
  }
}

// MARK: The server

@_cdecl("test_containers")
public func testContainers() {
  run { () throws(PMError) in
    let before = try ThisTask.info().allocated
    let container = try Container()
    try container.allocate(0..<10)
    check(try ThisTask.info().allocated == before + 10, "the charge")
    check(error { () throws(PMError) in try container.allocate(9..<12) } == .exists, "an id in use")
    check(error { () throws(PMError) in try container.allocate(5..<5) } == .invalid, "no frames")
    let part = container.allocatePart(of: 10..<4_000_000_000)
    check(part.error == .noMemory && part.count > 0, "as much as there is")
    try container.deallocate(10..<10 + part.count)
    check(error { () throws(PMError) in try container.deallocate(9..<11) } == .noEntry, "an id not in use")
    try container.deallocate(0..<20, ignoringUnused: true)
    check(try ThisTask.info().allocated == before, "the charge is gone")
    check(error { () throws(PMError) in try Container.initial.allocate(0..<1) } == .exists, "the initial container")
    check("\(PMError.noMemory)" == "PM_ENOMEM", "an error's name")
  }
}

@_cdecl("test_container_ends")
public func testContainerEnds() {
  run { () throws(PMError) in
    let before = try ThisTask.info().allocated
    for _ in 0..<100 {
      let container = try Container()
      try container.allocate(0..<7)
      try container.map(0..<7, at: region, rights: .write)
      store(1, at: region)
    }
    check(try ThisTask.info().allocated == before, "all are gone")
    check(error { () throws(PMError) in _ = try Mapping(at: region) } == .noEntry, "so is the mapping")
  }
}

/// The mapping at a writable address, with rights in force. The server may unmap a page at any time, and forget it if
/// it keeps no mappings, so the page is written until it is mapped.
private func mappingInForce(at address: UInt, writing byte: UInt8) throws(PMError) -> Mapping {
  for _ in 0..<1000 {
    store(byte, at: address)
    do throws(PMError) {
      let mapping = try Mapping(at: address)
      if !mapping.rights.isEmpty { return mapping }
    } catch {
      if error != .noEntry { throw error }
    }
  }
  return try Mapping(at: address)
}

@_cdecl("test_mappings")
public func testMappings() {
  run { () throws(PMError) in
    let container = try Container()
    try container.allocate(0..<4)
    try container.map(0..<4, at: region, rights: [.read, .write])
    check(try Mapping(at: region + 4096).physical == nil, "no frame before the first access")
    let mapping = try mappingInForce(at: region + 4096, writing: 7)
    check(mapping.frame == 1 && mapping.container == container.handle && mapping.physical != nil, "what is mapped")
    check(mapping.rights == [.read, .write] && mapping.requested == [.read, .write], "its rights")
    try container.map(0..<4, at: region * 2, rights: .read, lazily: false)
    check(byte(at: region * 2 + 4096) == 7, "the same frame elsewhere")
    try Mapping.remove(at: region, count: 4)
    check(error { () throws(PMError) in _ = try Mapping(at: region) } == .noEntry, "unmapped")
    let odd = error { () throws(PMError) in try container.map(0..<4, at: region + 1, rights: .read) }
    check(odd == .invalid, "not aligned")
    let unused = error { () throws(PMError) in try container.map(4..<5, at: region, rights: .read) }
    check(unused == .noEntry, "not in use")
  }
}

/// A reference to a container, for closures, which cannot capture it by value.
final class Pool {
  let container: Container
  init() throws(PMError) { container = try Container() }
}

@_cdecl("test_pager")
public func testPager() {
  run { () throws(PMError) in
    let pool = try Pool()
    try pool.container.allocate(0..<64)
    var faults: [Fault] = []
    try ThisTask.onFault { fault in
      faults.append(fault)
      let frame = UInt32((fault.address - region) / 4096)
      let page = region + UInt(frame) * 4096
      return error { () throws(PMError) in
        try pool.container.map(frame..<frame + 1, at: page, rights: .write)
      } == nil
    }
    for page in 0..<UInt(64) { store(UInt8(page), at: region + page * 4096 + page) }
    for page in 0..<UInt(64) { check(byte(at: region + page * 4096 + page) == UInt8(page), "what was stored") }
    check(faults.count == 64, "one fault a page")
    check(faults[5].address == region + 5 * 4097 && faults[5].access == .write && !faults[5].isPresent, "a fault")
    try ThisTask.onFault(nil)
  }
}

@_cdecl("test_refuses")
public func testRefuses() {
  run { () throws(PMError) in
    try ThisTask.onFault { _ in false }
    store(1, at: region)
  }
}

@_cdecl("test_time")
public func testTime() {
  let start = ThisTask.clock
  ThisTask.sleep(microseconds: 20_000)
  let slept = ThisTask.clock - start
  check(slept >= 19_000 && slept < 2_000_000, "a sleep of 20 milliseconds")
}

@_cdecl("test_exits")
public func testExits() { ThisTask.exit(42) }

@_cdecl("test_overflow")
public func testOverflow() {
  let most = ThisTask.clock | UInt64.max
  print("\(most + 1)")
}

@_cdecl("test_out_of_bounds")
public func testOutOfBounds() {
  let array = Array(repeating: 1, count: Int(ThisTask.clock % 2) + 1)
  print("\(array[2])")
}

@_cdecl("test_arguments")
public func testArguments() {
  check(ThisTask.arguments.count == 2 && ThisTask.arguments[1] == "arguments", "the arguments")
}
