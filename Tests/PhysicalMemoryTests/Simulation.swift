// A random walk: operations made by chance from what the model has, done to the server and to the model, and compared.

import CGuestABI
import GuestMemory
import PhysicalMemory
import Testing

/// How a walk is mixed and how large its world is.
struct SimulationSettings: Sendable {
  var frames = 700
  var steps = 1500
  var mostTasks = 3
  /// Zeroed frames kept ahead.
  var stock = 40
}

struct Simulation {
  let seed: UInt64
  let settings: SimulationSettings
  private let bed: Testbed
  private let image: ImageNumber
  private var model: SimulationModel
  private var random: SeededGenerator
  private var tasks: [TaskName: TestTask] = [:]
  private var lastTask = 0
  private var done: [SimulatedOperation] = []

  init(seed: UInt64, _ settings: SimulationSettings = SimulationSettings()) throws {
    self.seed = seed
    self.settings = settings
    bed = try Testbed(frames: settings.frames, stock: settings.stock, isChecked: false)
    image = try bed.load()
    model = SimulationModel(allocatable: bed.statistics.allocatableFrames)
    random = SeededGenerator(state: seed)
  }

  /// The whole walk, and the end of every task: then all must be as it was.
  mutating func run() throws {
    let before = bed.balance
    for _ in 0..<settings.steps { try step(chooseOperation()) }
    for name in tasks.keys.sorted(by: { $0.number < $1.number }) { try step(.end(name)) }
    try require(bed.balance == before, "what the walk left behind: \(bed.balance), not \(before)")
  }

  private mutating func step(_ operation: SimulatedOperation) throws {
    done.append(operation)
    let actual = perform(operation)
    let expected = expect(operation, actual)
    try require(actual == expected, "the server says \(actual), the model \(expected)")
    let violations = bed.violations
    try require(violations == [], violations.joined(separator: "; "))
    // The model does not know tables: the walk must keep to a world where the reserve is enough for them.
    try require(bed.statistics.allocatableFrames == model.allocatable, "the walk needs more tables than are reserved")
  }

  private func require(_ condition: Bool, _ text: String) throws {
    let last = done.suffix(15).map { "  \($0)" }.joined(separator: "\n")
    try #require(condition, "seed \(seed), step \(done.count): \(text)\n\(last)")
  }

  // MARK: The model's side

  /// What the model makes of an operation. Handles are the server's choice, as long as they are new.
  private mutating func expect(_ operation: SimulatedOperation, _ actual: SimulatedResult) -> SimulatedResult {
    switch operation {
    case .start(let name, let guaranteed, let hasContract, let mayUseExtra, _):
      return model.start(name, guaranteed: guaranteed, hasContract: hasContract, mayUseExtra: mayUseExtra)
    case .end(let name): model.end(name)
    case .create(let name):
      guard case .counted(let result) = actual, result.error == nil, let task = model.tasks[name],
        task.handles[result.count] == nil, !task.stale.contains(result.count)
      else { return .done }
      model.create(name, result.count)
      return actual
    case .destroy(let name, let handle): return model.destroy(name, handle)
    case .allocate(let name, let handle, let ids, let flags):
      return .counted(model.allocate(name, handle, ids, flags))
    case .deallocate(let name, let handle, let ids, let flags):
      return .counted(model.deallocate(name, handle, ids, flags))
    case .map(let name, let handle, let ids, let page, let flags): return model.map(name, handle, ids, page, flags)
    case .unmap(let name, let page, let count): return model.unmap(name, page, count)
    case .load(let name, let address, let access): return model.load(name, address, access)
    case .store(let name, let address, let byte): return model.store(name, address, byte)
    case .describe(let name, let page): return model.describe(name, page)
    case .account(let name): return model.account(name)
    case .zeroAhead, .releaseClosedSpaces: break
    }
    return .done
  }

  // MARK: The server's side

  private mutating func perform(_ operation: SimulatedOperation) -> SimulatedResult {
    switch operation {
    case .start(let name, let guaranteed, let hasContract, let mayUseExtra, let around):
      let parameters = TaskParameters(
        guaranteed: guaranteed, mayUseExtra: mayUseExtra, hasContract: hasContract, faultAround: around)
      do {
        tasks[name] = try bed.start(image, parameters)
      } catch {
        return .failed(error as? ServerError ?? .inputOutput)
      }
    case .end(let name): tasks.removeValue(forKey: name)?.end()
    case .zeroAhead(let target): while !bed.server.zeroAhead(target: target).isEmpty {}
    case .releaseClosedSpaces: bed.server.releaseClosedSpaces()
    case .create(let name), .destroy(let name, _), .allocate(let name, _, _, _), .deallocate(let name, _, _, _),
      .map(let name, _, _, _, _), .unmap(let name, _, _), .load(let name, _, _), .store(let name, _, _),
      .describe(let name, _), .account(let name):
      if let task = tasks[name] { return perform(operation, task) }
    }
    return .done
  }

  private func perform(_ operation: SimulatedOperation, _ task: TestTask) -> SimulatedResult {
    switch operation {
    case .create:
      switch task.createContainer() {
      case .success(let handle): return .counted(.ok(handle))
      case .failure(let error): return .failed(error)
      }
    case .destroy(_, let handle): return result(task.destroy(handle))
    case .allocate(_, let handle, let ids, let flags):
      return .counted(task.allocate(handle, ids.start, ids.count, flags))
    case .deallocate(_, let handle, let ids, let flags):
      return .counted(task.deallocate(handle, ids.start, ids.count, flags))
    case .map(_, let handle, let ids, let page, let flags):
      return result(task.map(handle, ids.start, ids.count, page, flags))
    case .unmap(_, let page, let count): return result(task.unmap(page, count))
    case .load(_, let address, let access):
      switch task.read(address, access) {
      case .success(let byte): return .byte(byte)
      case .failure(let unserved): return .unserved(unserved.outcome)
      }
    case .store(_, let address, let byte): return task.write(address, byte).map { .unserved($0) } ?? .done
    case .describe(_, let page):
      switch task.mapping(page) {
      case .success(let found):
        return .mapping(container: found.container, frame: found.frame, requested: found.requested)
      case .failure(let error): return .failed(error)
      }
    case .account:
      let found = task.information
      return .account(guaranteed: found.guaranteed, allocated: found.allocated, available: found.available)
    case .start, .end, .zeroAhead, .releaseClosedSpaces: return .done
    }
  }

  private func result(_ error: ServerError?) -> SimulatedResult { error.map { .failed($0) } ?? .done }

  // MARK: Chance

  private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

  private mutating func chooseOperation() -> SimulatedOperation {
    guard let name = tasks.keys.sorted(by: { $0.number < $1.number }).randomElement(using: &random), !chance(2) else {
      return chooseForTheMachine()
    }
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<3: return .create(name)
    case 3..<5: return .destroy(name, chooseHandle(name))
    case 5..<17:
      let handle = chooseHandle(name)
      return .allocate(
        name, handle, chooseIDs(handle), AllocationFlags(rawValue: UInt32.random(in: 0..<8, using: &random)))
    case 17..<25:
      let handle = chooseHandle(name)
      return .deallocate(
        name, handle, chooseIDs(handle), DeallocationFlags(rawValue: UInt32.random(in: 0..<4, using: &random)))
    case 25..<40:
      let flags = MappingFlags(rawValue: UInt32.random(in: 0..<(chance(3) ? 64 : 32), using: &random))
      let handle = chooseHandle(name)
      return .map(name, handle, chooseFrames(name, handle), choosePage(), flags)
    case 40..<45: return .unmap(name, choosePage(), count: UInt32.random(in: 0..<20, using: &random))
    case 45..<68:
      let access = ([.read, .read, .read, .execute] as [Access]).randomElement(using: &random) ?? .read
      return .load(name, address: chooseAddress(name), access)
    case 68..<93: return .store(name, address: chooseAddress(name), UInt8.random(in: 0...255, using: &random))
    case 93..<96: return .describe(name, PageNumber(containing: chooseAddress(name)))
    default: return .account(name)
    }
  }

  private mutating func chooseForTheMachine() -> SimulatedOperation {
    let names = tasks.keys.sorted { $0.number < $1.number }
    if names.isEmpty || (names.count < settings.mostTasks && chance(50)) {
      lastTask += 1
      let around = [.automatic, .fixed(1), .fixed(8)].randomElement(using: &random) ?? FaultAround.automatic
      let guaranteed = chance(50) ? 0 : Int.random(in: -5...settings.frames, using: &random)
      let hasContract = guaranteed > 0 && chance(70)
      return .start(
        TaskName(number: lastTask), guaranteed: guaranteed, hasContract: hasContract, mayUseExtra: chance(70),
        around: around)
    }
    if chance(40), let name = names.randomElement(using: &random) { return .end(name) }
    return chance(80) ? .zeroAhead(target: Int.random(in: 0...settings.frames, using: &random)) : .releaseClosedSpaces
  }

  /// Mostly a good handle; at times one that is stale, another task's, or nothing.
  private mutating func chooseHandle(_ name: TaskName) -> UInt32 {
    let task = model.tasks[name]
    if chance(3) { return UInt32.random(in: 0...8, using: &random) }
    if chance(3), let stale = task?.stale.randomElement(using: &random) { return stale }
    return task?.handles.keys.sorted().randomElement(using: &random) ?? TestTask.container
  }

  /// Ids for allocating. Those of the stack stay as they are: results are stored there.
  private mutating func chooseIDs(_ handle: UInt32) -> SimulatedOperation.IDs {
    let count = UInt32.random(in: 0...(chance(10) ? 400 : 12), using: &random)
    if chance(4) {
      return SimulatedOperation.IDs(start: .max - UInt32.random(in: 0...12, using: &random), count: count)
    }
    let free: ClosedRange<UInt32> = handle == TestTask.container ? 40...80 : 0...60
    if handle == TestTask.container, chance(30) {
      let start = UInt32.random(in: 0..<SampleProgram.firstStackID, using: &random)
      return SimulatedOperation.IDs(start: start, count: min(count, SampleProgram.firstStackID - start))
    }
    return SimulatedOperation.IDs(start: UInt32.random(in: free, using: &random), count: count)
  }

  /// Ids for mapping: a stretch from an id in use on, mostly not longer than there is.
  private mutating func chooseFrames(_ name: TaskName, _ handle: UInt32) -> SimulatedOperation.IDs {
    guard let container = model.tasks[name]?.handles[handle], let frames = model.containers[container]?.frames,
      let start = frames.keys.sorted().randomElement(using: &random), !chance(5)
    else { return chooseIDs(handle) }
    var count: UInt32 = 1
    while count < 14, start < .max - count, frames[start + count] != nil, !chance(10) { count += 1 }
    return SimulatedOperation.IDs(start: start, count: chance(5) ? count + 1 : count)
  }

  /// Where mappings go: around the border of two tables at every level but the highest, over the image, and where none
  /// may be. Few regions, so that the reserve is enough for the tables of all tasks.
  private mutating func choosePage() -> PageNumber {
    if chance(2) { return PageNumber([0, PM_USER_END >> 12, 1 << 40, .max >> 12].randomElement(using: &random) ?? 0) }
    let border: UInt64 = 1 << 18
    let areas = [border - 6, border - 40, border + 100, SampleProgram.text.rawValue, SampleProgram.data.rawValue]
    return PageNumber((areas.randomElement(using: &random) ?? border) + UInt64.random(in: 0..<12, using: &random))
  }

  private mutating func chooseAddress(_ name: TaskName) -> UInt64 {
    let pages = (model.tasks[name]?.mappings ?? [:]).keys
    var page = choosePage()
    if chance(85), let mapped = pages.sorted().randomElement(using: &random) { page = mapped }
    let offset = [0, 4095, 300, 2048].randomElement(using: &random) ?? 0
    let address = page.address + UInt64(offset)
    // Not over the word where results are stored.
    return page == PageNumber(containing: TestTask.scratch) ? page.address : address
  }
}
