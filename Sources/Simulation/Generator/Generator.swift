// Chooses random operations from the model's state: most are valid, and some are wrong in each way that a call can be
// wrong. Each walk has its own mix, in which some kinds of calls are frequent and others absent, so that failures which
// need many calls of one kind are found too.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// A source of random operations with a mix of its own.
final class Generator: OperationSource {
  /// Kinds of operations, each with a frequency.
  enum Kind: Int, CaseIterable {
    case load, store, read, write, check, createContainer, destroy, allocate, deallocate, map, unmap, mapping, sample,
      copy
    case releaseData, releasePages, recoverPages, expiredPages, createFilled, share, revoke, lock, unlock, pin, unpin,
      beginTransfer, endTransfer,
      createEndpoint, call, receive, reply
    case replyAndReceive, registerName, lookUpName, drop, policy, allocatePlaced,
      defragment

    /// Relative frequency, out of about a thousand.
    var weight: Int {
      switch self {
      case .load: 120
      case .store: 150
      case .read: 15
      case .write: 12
      case .check: 5
      case .createContainer: 14
      case .destroy: 7
      case .allocate: 60
      case .deallocate: 30
      case .map: 90
      case .unmap: 25
      case .mapping: 12
      case .sample: 12
      case .copy: 80
      case .releaseData: 15
      case .releasePages: 25
      case .recoverPages: 20
      case .expiredPages: 6
      case .createFilled: 14
      case .share: 25
      case .revoke: 7
      case .lock: 18
      case .unlock: 10
      case .pin: 18
      case .unpin: 10
      case .beginTransfer: 25
      case .endTransfer: 10
      case .createEndpoint: 10
      case .call: 45
      case .receive: 30
      case .reply: 25
      case .replyAndReceive: 15
      case .registerName: 12
      case .lookUpName: 20
      case .drop: 8
      case .policy: 25
      case .allocatePlaced: 45
      case .defragment: 2
      }
    }
  }

  let world: World
  var random: Randomness
  private var left: Int
  private var label = 0
  /// How often tasks return frames demanded of them, in percent.
  private let obedience: Int
  /// How often tasks request many frames at once, in percent.
  let hunger: Int
  /// How often the holder of control uses it, in percent.
  private let ambition: Int
  /// After this operation a task is told to end, which its next call with several steps notices; 0: no task is.
  private var stopLabel = 0
  /// Running sums of the weights by kind.
  private(set) var sums: [Int] = []

  init(world: World, random: Randomness, steps: Int) {
    self.world = world
    self.random = random
    left = steps
    obedience = self.random.one(of: [0, 10, 40]) ?? 10
    hunger = self.random.one(of: [0, 0, 10, 70]) ?? 0
    // Half of the walks have no policy, which excludes many other operations.
    ambition = self.random.one(of: [0, 0, 10, 30]) ?? 0
    var sum = 0
    for kind in Kind.allCases {
      var factor = self.random.one(of: [0, 1, 2, 2, 2, 2, 6]) ?? 1
      if kind == .policy, ambition == 0 { factor = 0 }
      sum += kind.weight * factor
      sums.append(sum)
    }
    if self.random.chance(50) { stopLabel = self.random.number(20...max(20, steps)) }
  }

  func next(_ model: borrowing Model) -> Operation? {
    guard left > 0 else { return nil }
    left -= 1
    label += 1
    return Operation(label, choose(model))
  }

  private func choose(_ model: borrowing Model) -> Action {
    if label == 1 { return .loadImage(random.number(below: 3)) }
    let tasks = model.tasks
    if stopLabel > 0, label >= stopLabel, let task = random.one(of: tasks), task.isRunning {
      // Tries again later, in case that task ends before it makes such a call.
      stopLabel = label + 50
      return .stop(task.name, steps: random.number(0...6))
    }
    let isIdle = tasks.allSatisfy { $0.isEnding || $0.isWaiting }
    if tasks.isEmpty || random.chance(isIdle ? 20 : hasSuperpages ? 25 : 5) { return chooseForMachine(model) }
    for _ in 0..<4 {
      guard let task = random.one(of: tasks), !task.isEnding, !task.isStarting else { continue }
      if let action = chooseForFrames(model, task) { return action }
      guard !task.isDropped, task.pending == nil else { continue }
      guard task.isWaiting else {
        let isPolicy = task.hasControl && random.chance(ambition)
        return .task(task.name, isPolicy ? choosePolicyCall(model, task) : chooseCall(model, task))
      }
      if case .finished = task.wait { return .task(task.name, random.chance(95) ? .wake : .stopWaiting) }
      if random.chance(isIdle ? 30 : 6) { return .task(task.name, random.chance(90) ? .stopWaiting : .wake) }
    }
    return .pass(microseconds: UInt64(random.number(1...20)))
  }

  /// Actions of tasks that wait for frames, that owe frames, or that missed a deadline.
  private func chooseForFrames(_ model: borrowing Model, _ task: ModelTask) -> Action? {
    if task.isDropped { return random.chance(60) ? .end(task.name, pause: random.number(0...10)) : nil }
    if task.pending != nil {
      if random.chance(model.isWaitingForFrames(task) ? 25 : 80) { return .task(task.name, .wake) }
      return random.chance(5) ? .task(task.name, .stopWaiting) : nil
    }
    guard task.demanded > 0 else { return nil }
    if random.chance(15) { return .work(task.name, microseconds: UInt64(random.number(1...4000))) }
    guard random.chance(obedience), !task.isWaiting else { return nil }
    if random.chance(20) { return .task(task.name, .takeReturnRequest) }
    let handle = chooseHandle(model, task, .own)
    let it = container(model, task, handle)
    let ids = (it?.frames.keys.sorted() ?? []).prefix(random.number(1...40))
    guard let first = ids.first else { return nil }
    if random.chance(50) { return .task(task.name, .releasePages(handle, Array(ids), at: chooseResult(task, 160))) }
    return .task(
      task.name, .deallocate(handle, start: first, count: UInt32(ids.count), at: chooseResult(task), flags: 3))
  }

  private func chooseForMachine(_ model: borrowing Model) -> Action {
    if model.tasks.count < world.tasks, random.chance(model.tasks.count < 2 ? 90 : 20) { return chooseStart(model) }
    if hasSuperpages, random.chance(75) { return chooseForSuperpages(model) }
    let tasks = model.tasks
    switch random.number(below: 100) {
    case 0..<(hunger > 10 ? 3 : 12):
      guard let task = random.one(of: tasks) else { return chooseStart(model) }
      return .end(task.name, pause: random.chance(50) ? 0 : random.number(1...30))
    case ..<43: return .pass(microseconds: UInt64(random.number(1...40)))
    case 43..<45:
      guard let task = random.one(of: tasks) else { return chooseStart(model) }
      return .work(task.name, microseconds: UInt64(random.number(1...6000)))
    case 45..<58: return .zeroAhead(random.number(0...world.frames / 4))
    case 58..<63: return .releaseClosedSpaces
    case 63..<66: return random.chance(60) ? .takeMachineFrame : .giveMachineFrame
    case 66..<70: return .loadImage(random.number(below: Programs.all.count))
    case 70..<75: return .unloadImage(chooseImage(model))
    case 75..<82: return .moveSomeFrame(UInt64(random.number(below: world.frames)))
    case 82..<88:
      return .defragment(steps: random.one(of: [1, 1, 2, 5, 1000]) ?? 1, block: random.one(of: [8, 16, 64]) ?? 16)
    default: return .revokeSomeFrame(UInt64(random.number(below: world.frames)))
    }
  }

  private func chooseImage(_ model: borrowing Model) -> Int { random.one(of: model.images.keys.sorted()) ?? 1 }

  private func chooseStart(_ model: borrowing Model) -> Action {
    var guaranteed = random.chance(50) ? 0 : random.number(1...90)
    if random.chance(3) { guaranteed = random.one(of: [-1, .min, .max, world.frames]) ?? 0 }
    return .start(
      image: chooseImage(model), guaranteed: guaranteed, contract: random.chance(40), extra: random.chance(80),
      around: random.one(of: [0, 0, hasSuperpages ? 0 : 1, hasSuperpages ? 0 : 1, 1, 4, 9]) ?? 1,
      keepsMappings: random.chance(80))
  }

  // MARK: Handles

  /// Kinds of handles that a call needs.
  enum Wanted {
    case own, weak, container, endpoint, receiver, control, any
  }

  private static func matches(_ target: ModelTarget?, _ wanted: Wanted) -> Bool {
    switch (target, wanted) {
    case (nil, _): false
    case (.container, .own), (.container, .container), (.weak, .weak), (.weak, .container): true
    case (.endpoint(_, let mayReceive), .receiver): mayReceive
    case (.endpoint(_, let mayReceive), .endpoint): !mayReceive
    case (.control, .control), (_, .any): true
    default: false
    }
  }

  /// Mostly a handle of the wanted kind, sometimes any number.
  func chooseHandle(_ model: borrowing Model, _ task: ModelTask, _ wanted: Wanted) -> HandleArgument {
    let chance = random.number(below: 100)
    if chance < 2 { return .number(UInt32(random.number(below: 8))) }
    if chance < 3 { return .number(UInt32(truncatingIfNeeded: random.next())) }
    if chance < 5, let dropped = random.one(of: task.handles.dropped) { return .name(dropped.name) }
    let holder = chance < 6 ? random.one(of: model.tasks) ?? task : task
    return find(holder, chance < 8 ? .any : wanted) ?? .number(0)
  }

  private func find(_ task: ModelTask, _ wanted: Wanted) -> HandleArgument? {
    var found: HandleArgument?
    var count = 0
    let entries = task.handles.entries
    for index in entries.indices where Self.matches(entries[index].target, wanted) {
      // The task's initial container holds little of interest.
      if index == 2, wanted == .own || wanted == .container, !random.chance(20) {
        if found == nil { found = .number(UInt32(PM_CAP_CONTAINER)) }
        continue
      }
      count += 1
      if random.number(below: count) > 0 { continue }
      found = index <= 2 ? .number(UInt32(index)) : entries[index].name.map { .name($0) }
    }
    return found
  }

  /// The container that a handle names; nil: it names none.
  func container(_ model: borrowing Model, _ task: ModelTask, _ handle: HandleArgument) -> ModelContainer? {
    var number: UInt32?
    switch handle {
    case .number(let it): number = it
    case .name(let name): number = task.handles.number(name)
    }
    switch number.flatMap({ task.handles[$0] }) {
    case .container(let container), .weak(let container, _, _): return container
    default: return nil
    }
  }
}
