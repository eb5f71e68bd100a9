// The server's state itself, for tests of single steps and of changes between them.

import CGuestABI
import GuestMemory
import Simulation
import Testing

@testable import PhysicalMemory

/// The server's state itself, without the lock, and one task in it.
struct OpenServer: ~Copyable {
  let machine: ModelMachine
  var state: ServerState
  let task: TaskSlot

  init(frames: Int, _ segments: [ImageSegment] = SampleProgram.segments) throws {
    // Construct every fallible part first: a partly initialized value cannot free its parts.
    let machine = ModelMachine()
    var state = try ServerState(frameCount: frames, reserved: 1, taskCapacity: 4, stock: 0, operations: machine)
    let image = try Self.load(segments, &state)
    let task = try Self.start(image, &state)
    self.machine = machine
    self.state = state
    self.task = task
  }

  private static func load(_ segments: [ImageSegment], _ state: inout ServerState) throws -> ImageNumber {
    var plan = try state.planLoading(segments)
    while true {
      if let image = try state.continueLoading(&plan) { return image }
    }
  }

  private static func start(_ image: ImageNumber, _ state: inout ServerState) throws -> TaskSlot {
    let task = try state.createTask(image, TaskParameters()).0
    var plan = try state.startTask(task)
    while try state.continueStarting(&plan) {}
    return task
  }

  mutating func allocate(_ handle: Handle, _ count: UInt32, _ flags: AllocationFlags = []) throws -> AllocationPlan {
    try state.planAllocation(task, handle, FrameIDRange(start: 0, count: count), flags)
  }

  /// A container whose frames are mapped eagerly at each of `pages`.
  mutating func container(_ count: UInt32, shownAt pages: [PageNumber]) throws -> Handle {
    let handle = try state.createContainer(task)
    var plan = try allocate(handle, count)
    while state.continueAllocation(&plan) {}
    for page in pages {
      let range = try FrameIDRange(start: 0, count: count)
      let pages = try PageRange(address: GuestAddress(page.address), count: UInt64(count))
      let mapping = try state.checkMapping(task, handle, range, pages, [.read, .write])
      var next: PageNumber? = page
      while let page = next { next = try state.prepareEager(task, mapping, page) }
      state.installMapping(task, mapping)
      next = page
      while let page = next { next = state.fillNext(task, page, to: mapping.end) }
    }
    return handle
  }

  /// Another task, and its weak capability to a container.
  mutating func client(of handle: Handle) throws -> (task: TaskSlot, weak: Handle) {
    let client = try Self.start(ImageNumber(0), &state)
    let weak = try state.share(task, handle, remote: 0)
    guard let target = state.tasks[task].handles[weak],
      let given = state.tasks[client].handles.insert(target)
    else { throw CallFailure.noMemory }
    return (client, given)
  }

  /// Releases ids and their contents (R31).
  mutating func releaseAll(_ task: TaskSlot, _ handle: Handle, _ ids: Range<UInt32>) throws {
    var plan = try state.planRelease(task, handle, ids.map { FrameID($0) })
    while state.continueRelease(&plan) {}
    #expect(plan.error == nil)
  }

  mutating func lock(_ client: (task: TaskSlot, weak: Handle)) -> CallFailure? {
    do throws(CallFailure) {
      _ = try state.lock(client.task, client.weak, microseconds: 1_000_000)
      return nil
    } catch {
      return error
    }
  }

  /// Checks that no step exceeded its budget by much: only the walk along one frame's places may finish.
  func expectShortSteps(_ sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(state.step.longest <= 3 * Step.most, sourceLocation: sourceLocation)
  }

  mutating func check(_ sourceLocation: SourceLocation = #_sourceLocation) {
    let violations = state.violations()
    #expect(violations == [], sourceLocation: sourceLocation)
    #expect(machine.violations == [], sourceLocation: sourceLocation)
  }
}

// MARK: Frames and contents

extension OpenServer {
  /// The frames of the contents of a container's ids.
  func frame(_ handle: Handle, _ id: UInt32) throws -> Int {
    guard case .container(let container) = state.tasks[task].handles[handle],
      let number = state.containers[container.slot].frames[FrameID(id)].content
    else { throw CallFailure.noEntry }
    return Int(state.contents[number].frame.rawValue)
  }

  mutating func release(_ handle: Handle, _ id: UInt32) throws {
    let slot = try state.ownedContainer(task, handle)
    _ = state.releaseFrames(slot, UInt64(id)..<UInt64(id) + 1)
  }

  /// A container of numbered pages at `start`; every third is unmapped and has no frame any more.
  mutating func scattered(_ count: UInt32, at start: PageNumber) throws -> Handle {
    let handle = try container(count, shownAt: [start])
    for id in 0..<count {
      if id % 3 == 1 {
        try release(handle, id)
      } else {
        #expect(machine.store(task, start.advanced(by: Int(id)).address, UInt8(truncatingIfNeeded: id + 1)))
      }
    }
    return handle
  }

  /// Checks that every page of `scattered` has its leaf and its number.
  func checkScattered(_ ids: Range<UInt32>, at start: PageNumber, _ sourceLocation: SourceLocation = #_sourceLocation) {
    for id in ids where id % 3 != 1 {
      let byte = machine.load(task, start.advanced(by: Int(id)).address)
      #expect(byte == UInt8(truncatingIfNeeded: id + 1), "page \(id)", sourceLocation: sourceLocation)
    }
  }
}

// MARK: Pins

extension OpenServer {
  /// The buffer for addresses: 4,096 of them.
  static let addresses = TestTask.free.advanced(by: 1 << 20)

  /// Maps the buffer for addresses into a task.
  mutating func showAddresses(_ task: TaskSlot) throws {
    let handle = try state.createContainer(task)
    let range = try FrameIDRange(start: 0, count: 8)
    var plan = try state.planAllocation(task, handle, range, [])
    while state.continueAllocation(&plan) {}
    let pages = try PageRange(address: GuestAddress(Self.addresses.address), count: 8)
    state.installMapping(task, try state.checkMapping(task, handle, range, pages, [.read, .write, .lazy]))
  }

  mutating func planPin(
    _ task: TaskSlot, _ handle: Handle, _ start: UInt32, _ count: UInt32, microseconds: UInt64 = 1000,
    physical: UInt64 = addresses.address
  ) throws(CallFailure) -> PinPlan {
    try state.planPin(
      task, handle, FrameIDRange(start: FrameID(start), count: count), microseconds: microseconds,
      physical: GuestAddress(physical))
  }

  /// Pins all frames of a call, with the addresses stored in a buffer that all tasks have.
  mutating func pin(
    _ task: TaskSlot, _ handle: Handle, _ start: UInt32, _ count: UInt32, microseconds: UInt64 = 1000,
    physical: UInt64 = PM_STACK_TOP - 512
  ) -> CallFailure? {
    while !state.expirePins() {}
    do throws(CallFailure) {
      var plan = try planPin(task, handle, start, count, microseconds: microseconds, physical: physical)
      while state.continuePin(&plan) {}
      return plan.error
    } catch {
      return error
    }
  }

  mutating func unpin(_ task: TaskSlot, _ handle: Handle, _ start: UInt32, _ count: UInt32) -> CallFailure? {
    while !state.expirePins() {}
    do throws(CallFailure) {
      var plan = try state.planUnpin(task, handle, FrameIDRange(start: FrameID(start), count: count))
      while state.continueUnpin(&plan) {}
      return plan.error
    } catch {
      return error
    }
  }

  /// The frames that the last pin stored at `addresses`.
  func storedFrames(_ task: TaskSlot, _ count: Int) -> [Int] {
    (0..<count).map { index in
      let at = Self.addresses.address + UInt64(8 * index)
      let address = (0..<8).reduce(UInt64(0)) {
        $0 | UInt64(machine.load(task, at + UInt64($1)) ?? 0) << UInt64(8 * $1)
      }
      return Int(address >> 12)
    }
  }

  /// The error of a call by the owner, or by `task`.
  mutating func error(_ body: (inout ServerState) throws(CallFailure) -> Void) -> CallFailure? {
    do throws(CallFailure) {
      try body(&state)
      return nil
    } catch {
      return error
    }
  }
}
