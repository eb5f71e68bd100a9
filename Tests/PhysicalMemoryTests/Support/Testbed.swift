// A server on a model machine, a program, and tasks of it that make calls. Every step is followed by a check of all
// invariants, from both sides: the server's own, and what the machine observed.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Simulation
import Testing

struct Testbed {
  let machine: ModelMachine
  let server: PhysicalMemoryServer
  /// False: the test checks after each of its own steps.
  private let isChecked: Bool

  init(
    frames: Int = 1024, reserved: Int = 1, tasks: Int = 16, stock: Int = 0, blocks: Int = 0,
    tablesKept: Int = 16, reclaim: ReclaimRules = ReclaimRules(leastDemand: 32), isChecked: Bool = true
  ) throws {
    self.isChecked = isChecked
    machine = ModelMachine(frameCount: max(1 << 14, frames), tablesKept: tablesKept)
    server = try PhysicalMemoryServer(
      frameCount: frames, reserved: reserved, taskCapacity: tasks, stock: stock, blocks: blocks, reclaim: reclaim,
      operations: machine)
  }

  /// All violations that the server and the machine report.
  var violations: [String] { server.checkInvariants() + machine.violations }

  func check(_ sourceLocation: SourceLocation = #_sourceLocation) {
    if isChecked { #expect(violations == [], sourceLocation: sourceLocation) }
  }

  var statistics: ServerStatistics { server.statistics }

  /// The figures that must be restored when everything has been given back.
  var balance: Balance {
    let statistics = server.statistics
    return Balance(
      free: statistics.freeFrames + statistics.tableFrames, claimed: statistics.claimedFrames,
      contents: statistics.contents, containers: statistics.containers, tasks: statistics.tasks,
      leaves: machine.leafCount)
  }

  // MARK: Programs and tasks

  func load(
    _ segments: [ImageSegment] = SampleProgram.segments, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> ImageNumber {
    defer { check(sourceLocation) }
    return try server.loadImage(segments)
  }

  func start(
    _ image: ImageNumber, _ parameters: TaskParameters = TaskParameters(),
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> TestTask {
    defer { check(sourceLocation) }
    let (slot, id) = try server.createTask(image, parameters) { _, until in machine.advance(to: until) }
    return TestTask(bed: self, slot: slot, id: id)
  }

  /// A task of the sample program.
  func start(
    _ parameters: TaskParameters = TaskParameters(), sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> TestTask {
    try start(try load(sourceLocation: sourceLocation), parameters, sourceLocation: sourceLocation)
  }
}

/// Tables count as free, since a space is kept for the slot's next task.
struct Balance: Equatable {
  var free: Int
  var claimed: Int
  var contents: Int
  var containers: Int
  var tasks: Int
  var leaves: Int
}

/// Text, constants, data and bss, each page with different bytes.
enum SampleProgram {
  static let text = PageNumber(0x400)
  static let textPages = 3
  static let data = PageNumber(0x410)
  /// One page and a half of bytes from the file, then zeros.
  static let dataPages = 5
  static let dataBytes = 6144
  /// The offset of the data's bytes in its first page.
  static let dataOffset = 256
  static let dataFilePages = 2
  static let stackPages = Int(PM_STACK_PAGES)
  static let pages = textPages + dataPages + stackPages
  static let filePages = textPages + dataFilePages

  /// The ids of text, data and stack in a task's initial container.
  static let firstDataID: UInt32 = 3
  static let firstStackID: UInt32 = 8

  static func textByte(_ offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: offset / 7 + 1) | 1 }
  static func dataByte(_ offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: offset / 5 + 3) | 1 }

  static var segments: [ImageSegment] {
    let textBytes = (0..<textPages * 4096).map(textByte)
    let dataBytes = (0..<dataBytes).map(dataByte)
    return [
      ImageSegment(
        start: text, pageCount: textPages, isWritable: false, isExecutable: true, bytes: textBytes[...], offset: 0),
      ImageSegment(
        start: data, pageCount: dataPages, isWritable: true, isExecutable: false, bytes: dataBytes[...],
        offset: dataOffset),
    ]
  }
}
