// What the server should do, as plainly as it can be said: an entry for each page and each id, data in dictionaries,
// sums over everything. It knows nothing of frames, tables, leaves and faults around faults.

import CGuestABI
import GuestMemory
import PhysicalMemory

struct SimulationModel {
  /// Data, shared by all virtual frames that name it.
  struct Content {
    var bytes: [Int: UInt8] = [:]
    /// The page of the program it began as, if any.
    var page: (segment: Int, index: Int)?
    /// The image itself counts as one.
    var sharers = 1
  }

  struct VirtualFrame {
    /// nil: never touched.
    var content: Int?
  }

  struct Container {
    let owner: TaskName
    let handle: UInt32
    var frames: [UInt32: VirtualFrame] = [:]
  }

  struct Mapping {
    let container: Int
    let id: UInt32
    let flags: MappingFlags
  }

  struct Task {
    let guaranteed: Int
    let hasContract: Bool
    let mayUseExtra: Bool
    /// Live containers by handle.
    var handles: [UInt32: Int] = [:]
    /// Handles that were good once.
    var stale: [UInt32] = []
    var mappings: [PageNumber: Mapping] = [:]
  }

  /// Frames that tasks can have, all tables within their reserve.
  let allocatable: Int
  private(set) var tasks: [TaskName: Task] = [:]
  private(set) var containers: [Int: Container] = [:]
  private var contents: [Int: Content] = [:]
  private var lastNumber = 0
  /// The contents of the program's text, which all tasks share.
  private let text: [Int]

  init(allocatable: Int) {
    self.allocatable = allocatable
    text = Array(1...SampleProgram.textPages)
    lastNumber = SampleProgram.textPages
    for page in 0..<SampleProgram.textPages { contents[page + 1] = Content(page: (0, page)) }
  }

  private mutating func nextNumber() -> Int {
    lastNumber += 1
    return lastNumber
  }

  // MARK: Accounts

  func allocated(_ task: TaskName) -> Int {
    containers.values.filter { $0.owner == task }.reduce(0) { $0 + $1.frames.count }
  }

  private var unclaimed: Int { tasks.reduce(allocatable) { $0 - max($1.value.guaranteed, allocated($1.key)) } }

  func headroom(_ name: TaskName, extra: Bool) -> Int {
    guard let task = tasks[name] else { return 0 }
    let promised = max(0, task.guaranteed - allocated(name))
    return task.mayUseExtra && (extra || !task.hasContract) ? promised + unclaimed : promised
  }

  func account(_ name: TaskName) -> SimulatedResult {
    .account(
      guaranteed: tasks[name]?.guaranteed ?? 0, allocated: allocated(name), available: headroom(name, extra: true))
  }

  // MARK: Tasks and containers

  /// Whether a task can begin, with its image and stack in its first container.
  mutating func start(_ name: TaskName, guaranteed: Int, hasContract: Bool, mayUseExtra: Bool) -> SimulatedResult {
    let room = guaranteed + (mayUseExtra ? max(0, unclaimed - guaranteed) : 0)
    guard guaranteed >= 0, guaranteed <= unclaimed, SampleProgram.pages <= room else { return .failed(.noMemory) }
    tasks[name] = Task(guaranteed: guaranteed, hasContract: hasContract, mayUseExtra: mayUseExtra)
    let container = create(name, TestTask.container)
    for page in 0..<SampleProgram.textPages {
      contents[text[page]]?.sharers += 1
      containers[container]?.frames[UInt32(page)] = VirtualFrame(content: text[page])
    }
    for page in 0..<SampleProgram.dataPages {
      let id = SampleProgram.firstDataID + UInt32(page)
      var frame = VirtualFrame()
      if page < SampleProgram.dataFilePages {
        let number = nextNumber()
        contents[number] = Content(page: (1, page))
        frame.content = number
      }
      containers[container]?.frames[id] = frame
    }
    for page in 0..<SampleProgram.stackPages {
      containers[container]?.frames[SampleProgram.firstStackID + UInt32(page)] = VirtualFrame()
    }
    show(name, container, 0, SampleProgram.textPages, SampleProgram.text, [.read, .execute, .lazy])
    let data: MappingFlags = [.read, .write, .forceWrite, .lazy]
    show(name, container, SampleProgram.firstDataID, SampleProgram.dataPages, SampleProgram.data, data)
    let stack = PageNumber(containing: PM_STACK_TOP).advanced(by: -SampleProgram.stackPages)
    show(name, container, SampleProgram.firstStackID, SampleProgram.stackPages, stack, data)
    return .done
  }

  mutating func end(_ name: TaskName) {
    for (number, container) in containers where container.owner == name { remove(number) }
    tasks[name] = nil
  }

  @discardableResult
  mutating func create(_ name: TaskName, _ handle: UInt32) -> Int {
    let number = nextNumber()
    containers[number] = Container(owner: name, handle: handle)
    tasks[name]?.handles[handle] = number
    return number
  }

  private mutating func remove(_ container: Int) {
    for id in (containers[container]?.frames ?? [:]).keys { release(container, id) }
    containers[container] = nil
  }

  mutating func destroy(_ name: TaskName, _ handle: UInt32) -> SimulatedResult {
    guard let container = tasks[name]?.handles[handle] else { return .failed(.invalid) }
    guard handle != TestTask.container else { return .failed(.notPermitted) }
    remove(container)
    tasks[name]?.handles[handle] = nil
    tasks[name]?.stale.append(handle)
    return .done
  }

  // MARK: Virtual frames

  private func isUsed(_ container: Int, _ id: UInt32) -> Bool { containers[container]?.frames[id] != nil }

  private mutating func release(_ container: Int, _ id: UInt32) {
    guard let frame = containers[container]?.frames.removeValue(forKey: id), let number = frame.content else { return }
    contents[number]?.sharers -= 1
    if contents[number]?.sharers == 0 { contents[number] = nil }
  }

  private static func ids(_ ids: SimulatedOperation.IDs) -> ClosedRange<UInt32>? {
    let last = UInt64(ids.start) + UInt64(ids.count)
    return ids.count > 0 && last <= 1 << 32 ? ids.start...UInt32(last - 1) : nil
  }

  mutating func allocate(
    _ name: TaskName, _ handle: UInt32, _ asked: SimulatedOperation.IDs, _ flags: AllocationFlags
  ) -> CallResult {
    guard let ids = Self.ids(asked), let container = tasks[name]?.handles[handle] else {
      return .failed(.invalid, asked.count)
    }
    var left = headroom(name, extra: flags.contains(.extra))
    var error: ServerError?
    var done: [UInt32] = []
    for id in ids {
      let used = isUsed(container, id)
      if used, !flags.contains(.squash) { error = .exists }
      if !used, left == 0 { error = .noMemory }
      if error != nil { break }
      left -= used ? 0 : 1
      done.append(id)
    }
    if error != nil, !flags.contains(.partial) { done = [] }
    for id in done {
      release(container, id)
      containers[container]?.frames[id] = VirtualFrame()
    }
    return CallResult(error: error, count: UInt32(done.count))
  }

  mutating func deallocate(
    _ name: TaskName, _ handle: UInt32, _ asked: SimulatedOperation.IDs, _ flags: DeallocationFlags
  ) -> CallResult {
    guard let ids = Self.ids(asked), let container = tasks[name]?.handles[handle] else {
      return .failed(.invalid, asked.count)
    }
    var error: ServerError?
    var done: [UInt32] = []
    for id in ids {
      if isUsed(container, id) {
        done.append(id)
      } else if !flags.contains(.squash) {
        error = .noEntry
        break
      }
    }
    if error != nil, !flags.contains(.partial) { done = [] }
    for id in done { release(container, id) }
    return CallResult(error: error, count: UInt32(done.count))
  }

  // MARK: Mappings

  private mutating func show(
    _ name: TaskName, _ container: Int, _ id: UInt32, _ count: Int, _ page: PageNumber, _ flags: MappingFlags
  ) {
    for offset in 0..<count {
      tasks[name]?.mappings[page.advanced(by: offset)] = Mapping(
        container: container, id: id + UInt32(offset), flags: flags)
    }
  }

  private static func isUserRange(_ page: PageNumber, _ count: UInt32) -> Bool {
    count > 0 && page.rawValue >= PM_USER_START >> 12 && page.rawValue + UInt64(count) <= PM_USER_END >> 12
  }

  mutating func map(
    _ name: TaskName, _ handle: UInt32, _ asked: SimulatedOperation.IDs, _ page: PageNumber, _ flags: MappingFlags
  ) -> SimulatedResult {
    guard let ids = Self.ids(asked), Self.isUserRange(page, asked.count), flags.rawValue < 32,
      !flags.effectiveRights.isEmpty, let container = tasks[name]?.handles[handle]
    else { return .failed(.invalid) }
    guard ids.allSatisfy({ isUsed(container, $0) }) else { return .failed(.noEntry) }
    if flags.contains(.forceWrite), !flags.contains(.lazy) {
      for id in ids { makePrivate(container, id) }
    }
    show(name, container, asked.start, ids.count, page, flags)
    return .done
  }

  mutating func unmap(_ name: TaskName, _ page: PageNumber, _ count: UInt32) -> SimulatedResult {
    guard Self.isUserRange(page, count) else { return .failed(.invalid) }
    for offset in 0..<Int(count) { tasks[name]?.mappings[page.advanced(by: offset)] = nil }
    return .done
  }

  func describe(_ name: TaskName, _ page: PageNumber) -> SimulatedResult {
    guard let mapping = tasks[name]?.mappings[page], let container = containers[mapping.container],
      container.frames[mapping.id] != nil
    else { return .failed(.noEntry) }
    return .mapping(container: container.handle, frame: mapping.id, requested: mapping.flags)
  }

  // MARK: Accesses

  private enum Place {
    case frame(container: Int, id: UInt32, flags: MappingFlags)
    case nothing(SimulatedResult)
  }

  private func place(_ name: TaskName, _ address: UInt64, _ access: Access) -> Place {
    guard let mapping = tasks[name]?.mappings[PageNumber(containing: address)] else {
      return .nothing(.unserved(.notMapped))
    }
    guard mapping.flags.effectiveRights.contains(access.flag) else { return .nothing(.unserved(.forbidden)) }
    guard isUsed(mapping.container, mapping.id) else { return .nothing(.unserved(.notMapped)) }
    return .frame(container: mapping.container, id: mapping.id, flags: mapping.flags)
  }

  private func byte(_ number: Int, _ offset: Int) -> UInt8 {
    guard let content = contents[number] else { return 0 }
    if let byte = content.bytes[offset] { return byte }
    guard let page = content.page else { return 0 }
    return SampleProgram.byte(segment: page.segment, page.index << 12 + offset)
  }

  func load(_ name: TaskName, _ address: UInt64, _ access: Access) -> SimulatedResult {
    switch place(name, address, access) {
    case .nothing(let result): return result
    case .frame(let container, let id, _):
      guard let number = containers[container]?.frames[id]?.content else { return .byte(0) }
      return .byte(byte(number, Int(address & 4095)))
    }
  }

  mutating func store(_ name: TaskName, _ address: UInt64, _ byte: UInt8) -> SimulatedResult {
    switch place(name, address, .write) {
    case .nothing(let result): return result
    case .frame(let container, let id, let flags):
      if isShared(container, id), flags.isDisjoint(with: [.lazy, .forceWrite]) { return .unserved(.forbidden) }
      makePrivate(container, id)
      let number = containers[container]?.frames[id]?.content ?? nextNumber()
      contents[number, default: Content()].bytes[Int(address & 4095)] = byte
      containers[container]?.frames[id]?.content = number
      return .done
    }
  }

  private func isShared(_ container: Int, _ id: UInt32) -> Bool {
    guard let number = containers[container]?.frames[id]?.content else { return false }
    return (contents[number]?.sharers ?? 0) > 1
  }

  private mutating func makePrivate(_ container: Int, _ id: UInt32) {
    guard isShared(container, id), let old = containers[container]?.frames[id]?.content else { return }
    let number = nextNumber()
    contents[number] = contents[old]
    contents[number]?.sharers = 1
    contents[old]?.sharers -= 1
    containers[container]?.frames[id]?.content = number
  }
}

extension SampleProgram {
  /// What the program has at a byte of a segment.
  static func byte(segment: Int, _ offset: Int) -> UInt8 {
    if segment == 0 { return textByte(offset) }
    return (dataOffset..<(dataOffset + dataBytes)).contains(offset) ? dataByte(offset - dataOffset) : 0
  }
}
