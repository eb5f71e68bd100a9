// A walk: a sequence of operations, each performed on the server and on the model, with everything compared.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

/// A difference between server and model, or a violated invariant.
package struct Disagreement: Error, Sendable {
  package let text: String
  /// Index of the operation, from 0.
  package let step: Int

  /// The text without its numbers, which identifies the same failure in another list.
  package var kind: String { String(text.filter { !$0.isHexDigit }) }
}

/// A source of operations; nil ends the walk.
protocol OperationSource: AnyObject {
  func next(_ model: borrowing Model) -> Operation?
}

/// A list as a source of operations.
final class OperationList: OperationSource {
  private let operations: [Operation]
  private var position = 0

  init(_ operations: [Operation]) { self.operations = operations }

  func next(_ model: borrowing Model) -> Operation? {
    guard position < operations.count else { return nil }
    position += 1
    return operations[position - 1]
  }
}

/// Counts of events that are rare in walks.
package struct Figures: CustomStringConvertible {
  var demands = 0
  var drops = 0
  var expired = 0
  var recovered = 0
  var waits = 0
  var served = 0
  var commits = 0
  var refused = 0
  /// Transfers: started, and ended after their frames' pins.
  var transfers = 0
  var outlasting = 0
  var placed = 0
  var unplaced = 0
  var obstacles = 0
  var starved = 0
  var movedForPlacements = 0
  var moved = 0
  var passes = 0
  var withdrawals = 0
  var superpages = 0
  var promoted = 0
  var gathered = 0
  var givenUp = 0
  /// Grace periods watched, and visits that had to be ended.
  var watched = 0
  var hurried = 0
  /// Calls stopped between two steps.
  var stopped = 0

  package init() {}

  package mutating func add(_ other: Figures) {
    demands += other.demands
    drops += other.drops
    expired += other.expired
    recovered += other.recovered
    waits += other.waits
    served += other.served
    commits += other.commits
    refused += other.refused
    transfers += other.transfers
    outlasting += other.outlasting
    placed += other.placed
    unplaced += other.unplaced
    obstacles += other.obstacles
    starved += other.starved
    movedForPlacements += other.movedForPlacements
    moved += other.moved
    passes += other.passes
    withdrawals += other.withdrawals
    superpages += other.superpages
    promoted += other.promoted
    gathered += other.gathered
    givenUp += other.givenUp
    watched += other.watched
    hurried += other.hurried
    stopped += other.stopped
  }

  package var description: String {
    "\(waits) calls waited for frames, \(withdrawals) more for page tables, \(served) succeeded; \(demands) demands, "
      + "\(drops) tasks dropped; \(recovered) frames recovered, \(expired) expired; \(commits) commits, "
      + "\(refused) refused; \(transfers) transfers, \(outlasting) longer than a pin; "
      + "\(placed) placements, \(unplaced) refused, \(obstacles) by an obstacle, \(starved) for lack of frames; "
      + "\(moved) frames moved, \(movedForPlacements) of them for placements, \(passes) passes of defragmentation; "
      + "\(superpages) superpages mapped, \(promoted) promoted, \(gathered) gathered, \(givenUp) gatherings given up; "
      + "\(watched) grace periods watched, \(hurried) visits hurried; \(stopped) calls given up"
  }
}

/// A walk: a server on a model machine, and the model beside it.
package final class Walk {
  package let world: World
  let machine: ModelMachine
  let server: PhysicalMemoryServer
  var model: Model
  let source: any OperationSource
  var images: [Int: ImageNumber] = [:]
  /// Device transfers under way.
  var transfers: [WalkTransfer] = []
  var transferCount = 0
  var outlastingCount = 0
  var written: [Place] = []
  private var emptied: [Place] = []
  private var machineFrames: [FrameNumber] = []
  /// The model's content in each frame.
  var owners: [ModelContent?]
  /// Number of task ends and starts that are waiting.
  var depth = 0
  private(set) var done: [Operation] = []
  package var operations: [Operation] { done }
  /// Tasks woken by the last step.
  var lastWoken: [TaskName] = []
  /// A failure found while an end waits within a call.
  var found: Disagreement?
  /// The current call or access lacks frames that other tasks must return.
  var isLacking = false
  /// Waits since then.
  var waits = 0
  /// The current pass of defragmentation.
  var pass: DefragmentationPass?
  var passesDone = 0
  var gathering: WalkGathering?
  var gatheringsGivenUp = 0
  var obstaclesMet = 0
  var movedForPlacements = 0
  /// Tasks told to end, which their calls notice between two steps.
  var stopped: Set<TaskName> = []
  /// A call was stopped in this way, and the walk is over.
  var isGivenUp = false

  init(_ world: World, _ source: any OperationSource) throws {
    self.world = world
    self.source = source
    machine = ModelMachine(
      frameCount: world.frames, tablesKept: world.tablesKept, keepsLog: true, sabotage: world.sabotage)
    server = try PhysicalMemoryServer(
      frameCount: world.frames, reserved: world.reserved, taskCapacity: world.tasks, stock: world.stock,
      blocks: world.blocks,
      reclaim: ReclaimRules(timeLimit: world.timeLimit * 1000, leastDemand: Model.leastDemand), operations: machine)
    model = Model(world: world, now: machine.now)
    owners = Array(repeating: nil, count: world.frames)
  }

  /// Performs all operations, then ends every task and checks that nothing is left.
  package func run() throws {
    while !isGivenUp, let operation = source.next(model) { try step(operation) }
    if isGivenUp { return }
    var label = Int.max
    while let task = model.tasks.last {
      try step(Operation(label, .end(task.name, pause: 0)))
      label -= 1
    }
    while server.watchGracePeriods() {}
    try same(server.waitingFrames, 0, "frames still waiting")
  }

  /// Counts of rare events.
  package var figures: Figures {
    let statistics = server.statistics
    var figures = Figures()
    figures.demands = Int(statistics.upcalls)
    figures.drops = Int(statistics.tasksDropped)
    figures.expired = Int(statistics.framesExpired)
    figures.recovered = model.recoveredCount
    figures.waits = model.reclaim.waitCount
    figures.withdrawals = model.reclaim.withdrawalCount
    figures.served = model.reclaim.servedCount
    figures.commits = model.policy.commitCount
    figures.refused = model.policy.refusedCount
    figures.transfers = transferCount
    figures.outlasting = outlastingCount
    figures.placed = model.placement.placed
    figures.unplaced = model.placement.refused
    figures.obstacles = obstaclesMet
    figures.starved = model.placement.starved
    figures.movedForPlacements = movedForPlacements
    figures.moved = Int(statistics.framesMoved)
    figures.passes = passesDone
    figures.superpages = Int(statistics.superpagesMapped)
    figures.promoted = Int(statistics.superpagesPromoted)
    figures.gathered = Int(statistics.superpagesGathered)
    figures.givenUp = gatheringsGivenUp
    figures.watched = machine.watches
    figures.hurried = machine.hurries
    figures.stopped = isGivenUp ? 1 : 0
    return figures
  }

  func fail(_ text: String) -> Disagreement { Disagreement(text: text, step: done.count - 1) }

  func step(_ operation: Operation) throws {
    done.append(operation)
    forgetWishes()
    visit(operation)
    do {
      try perform(operation)
    } catch {
      // The result of a stopped call is not predictable.
      if !isGivenUp { throw error }
    }
    if isGivenUp { try endAfterStop() } else { try checkAll() }
  }

  /// Puts tasks on visits at random, and ends visits. A task that makes a call is not on a visit.
  private func visit(_ operation: Operation) {
    var chance = Randomness(seed: 0x7173, operation.label)
    for task in model.tasks where chance.chance(40) {
      if chance.chance(70) { machine.enter(task.slot) } else { machine.leave(task.slot) }
    }
    if chance.chance(20) { _ = server.watchGracePeriods() }
    switch operation.action {
    case .task(let name, _), .end(let name, _): if let task = model.task(name) { machine.leave(task.slot) }
    default: break
    }
  }

  // MARK: Performing operations

  private func perform(_ operation: Operation) throws {
    switch operation.action {
    case .loadImage(let kind):
      let program = Programs.all[kind % Programs.all.count]
      var image: ImageNumber?
      let error = attempt { () throws(CallFailure) in
        image = try server.loadImage(program.segments.map(\.imageSegment))
      }
      try same(error, attempt { () throws(CallFailure) in try model.loadImage(operation.label, program) })
      images[operation.label] = image
    case .unloadImage(let label):
      guard let image = images[label] else { return }
      let error = attempt { () throws(CallFailure) in try server.unloadImage(image) }
      try same(error, attempt { () throws(CallFailure) in try model.unloadImage(label) })
      if error == nil { images[label] = nil }
    case .start(let label, let guaranteed, let contract, let extra, let around, let keepsMappings):
      let parameters = TaskParameters(
        guaranteed: guaranteed, mayUseExtra: extra, hasContract: contract,
        faultAround: around == 0 ? .automatic : .fixed(around), keepsMappings: keepsMappings)
      try start(TaskName(operation.label), label, parameters, around)
    case .end(let name, let pause):
      guard let task = model.task(name), !task.isEnding, !task.isStarting else { return }
      try end(task, pause: pause)
    case .stop(let name, let steps):
      guard let task = model.task(name), task.isRunning else { return }
      machine.stop(task.slot, afterSteps: steps)
      stopped.insert(name)
    case .pass(let microseconds):
      machine.advance(microseconds: microseconds)
      model.now = machine.now
    case .work(let name, let microseconds):
      guard let task = model.task(name) else { return }
      work(task, microseconds)
    case .zeroAhead(let target): while !server.zeroAhead(target: target).isEmpty {}
    case .releaseClosedSpaces:
      server.releaseClosedSpaces()
      model.tables.releaseClosed()
    case .takeMachineFrame:
      let frame = server.takeMachineFrame()
      guard (frame != nil) == model.takeMachineFrame() else { throw fail("a frame for the machine: \(frame as Any)") }
      if let frame { machineFrames.append(frame) }
    case .giveMachineFrame:
      guard let frame = machineFrames.popLast() else { return }
      server.giveMachineFrame(frame)
      model.giveMachineFrame()
    case .revokeSomeFrame(let random):
      machine.takeEmptied(into: &emptied)
      _ = server.revokeSomeFrame(random)
      machine.takeEmptied(into: &emptied)
      for place in emptied { if let task = model.task(place.slot) { model.forget(task, place.page) } }
    case .moveSomeFrame(let random): try moveSomeFrame(random)
    case .defragment(let steps, let blockFrames): try defragment(steps: steps, blockFrames: blockFrames)
    case .readyBlocks(let count): readyBlocks(count)
    case .gather(let steps): try gather(steps)
    case .promote(let name, let page):
      guard let task = model.task(name) else { return }
      try promote(task, PageNumber(page))
    case .task(let name, let call):
      // A task that waits or is ending makes no calls.
      guard let task = model.task(name), task.isRunning else { return }
      switch call {
      case .wake, .stopWaiting: guard task.isWaiting || task.pending != nil else { return }
      default: guard !task.isWaiting, task.pending == nil else { return }
      }
      if stopped.contains(name) { return try performStopping(call, task, operation.label) }
      try perform(call, task, operation.label)
    }
  }

  func attempt(_ body: () throws(CallFailure) -> Void) -> CallFailure? {
    // The model does not perform a call that the server stopped.
    if isGivenUp { return .stopped }
    do throws(CallFailure) {
      try body()
      return nil
    } catch {
      if error == .stopped { isGivenUp = true }
      return error
    }
  }

  func same(_ error: CallFailure?, _ expected: CallFailure?) throws {
    isLacking = error == .waitForFrames
    if error != expected { throw fail("the server says \(text(error)), the model \(text(expected))") }
  }

  func same(_ error: ServerError?, _ expected: CallFailure?) throws {
    try same(error.map { CallFailure.error($0) }, expected)
  }

  func text(_ error: CallFailure?) -> String { error.map { "\($0)" } ?? "ok" }
}

extension Walk {
  /// A walk through a list of operations.
  package convenience init(_ world: World, _ operations: [Operation]) throws {
    try self.init(world, OperationList(operations))
  }
}
