// The naive model: what the server should do, as plainly as it can be said. Sums over everything, whole pages of bytes,
// rights worked out anew at each access.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

struct Model: ~Copyable {
  struct Image {
    let program: Program
    /// Of the pages from the file, segment by segment.
    let contents: [[ModelContent]]
    let container: ModelContainer
  }

  let world: World
  var now: UInt64
  /// In the order they began; those that are ending too.
  var tasks: [ModelTask] = []
  /// By the label of what loaded them.
  var images: [Int: Image] = [:]
  var tables: ModelTables
  var machineFrames = 0
  var names: [[UInt8]: ModelEndpoint] = [:]
  var callCount: UInt64 = 0
  var copiesOnWrite: UInt64 = 0
  /// How many pages of data there are: as many frames are in use.
  private(set) var contentCount = 0
  /// Whom the server has to wake in this step.
  var woken: [TaskName] = []
  private var freeSlots: [UInt32] = []
  private var slotsUsed: UInt32 = 0
  private var lastID: UInt64 = 0

  init(world: World, now: UInt64) {
    self.world = world
    self.now = now
    tables = ModelTables(frames: world.frames, kept: world.tablesKept)
  }

  func task(_ name: TaskName) -> ModelTask? {
    for task in tasks where task.name == name { return task }
    return nil
  }

  func task(_ slot: TaskSlot) -> ModelTask? { tasks.first { $0.slot == slot } }

  // MARK: Accounts

  func allocated(_ task: ModelTask) -> Int { task.containers.reduce(0) { $0 + $1.frames.count } }
  func claim(_ task: ModelTask) -> Int { max(task.guaranteed, allocated(task)) }

  var claimed: Int {
    var sum = 0
    for task in tasks { sum += claim(task) }
    return sum
  }

  /// Frames that tasks can have.
  var allocatable: Int {
    var frames = world.frames - world.reserved - tables.reserved - machineFrames
    for image in images.values { frames -= image.program.filePages }
    for task in tasks { frames -= task.extraTables }
    return frames
  }

  var unclaimed: Int { allocatable - claimed }

  /// Frames that nobody has at the moment.
  var free: Int { world.frames - world.reserved - tables.used - contentCount }

  func headroom(_ task: ModelTask, extra: Bool) -> Int {
    let promised = max(0, task.guaranteed - allocated(task))
    return task.mayUseExtra && (extra || !task.hasContract) ? promised + unclaimed : promised
  }

  // MARK: Tables

  /// Makes the tables that a page lacks. False: there is no frame for one, not even one kept for a task that has ended.
  mutating func makeTables(_ task: ModelTask, _ page: PageNumber) -> Bool {
    if tables.has(1, task.slot, page) { return true }
    for _ in 0..<2 {
      if linkTables(task, page) { return true }
      tables.releaseClosed()
    }
    return false
  }

  private mutating func linkTables(_ task: ModelTask, _ page: PageNumber) -> Bool {
    for level in [3, 2, 1] where !tables.has(level, task.slot, page) {
      guard takeTable(task) else { return false }
      tables.add(level, task.slot, page)
    }
    return true
  }

  /// Within its quota a task takes what is set aside, else what nobody claims.
  private mutating func takeTable(_ task: ModelTask) -> Bool {
    let taken = tasks.reduce(0) { $0 + $1.reservedTables }
    let isExtra = task.reservedTables >= 32 + claim(task) / 256 || taken >= tables.reserved
    guard free > 0, !isExtra || unclaimed > 0 else { return false }
    tables.used += 1
    if isExtra { task.extraTables += 1 } else { task.reservedTables += 1 }
    return true
  }

  private mutating func openSpace(_ task: ModelTask) -> Bool {
    if let kept = tables.reopen(task.slot) {
      task.reservedTables += kept
      return true
    }
    guard takeTable(task) else { return false }
    tables.open(task.slot)
    return true
  }

  /// For the machine itself, for good.
  mutating func takeMachineFrame() -> Bool {
    guard unclaimed > 0 else {
      tables.releaseClosed()
      return false
    }
    if free == 0 { tables.releaseClosed() }
    guard free > 0 else { return false }
    tables.used += 1
    machineFrames += 1
    return true
  }

  mutating func giveMachineFrame() {
    tables.used -= 1
    machineFrames -= 1
  }

  // MARK: Contents

  /// Takes a frame; where none is free, one of the tables kept for tasks that have ended.
  mutating func makeContent(_ bytes: [UInt8]) -> ModelContent {
    if free == 0 { tables.releaseClosed() }
    return ModelContent(bytes)
  }

  /// What an id names from now on; nil: it is not in use.
  mutating func set(_ container: ModelContainer, _ id: UInt32, _ frame: ModelFrame?) {
    if case .content(let content) = frame {
      if content.sharers == 0 { contentCount += 1 }
      content.sharers += 1
    }
    let old = container.frames[id]
    container.frames[id] = frame
    if case .content(let content) = old {
      content.sharers -= 1
      if content.sharers == 0 { contentCount -= 1 }
    }
  }

  /// A page of its own for an id that shares one.
  mutating func makePrivate(_ container: ModelContainer, _ id: UInt32) {
    guard case .content(let content) = container.frames[id], content.sharers > 1 else { return }
    copiesOnWrite += 1
    set(container, id, .content(makeContent(content.bytes)))
  }

  // MARK: Programs

  mutating func loadImage(_ label: Int, _ program: Program) throws(ServerError) {
    guard program.isGood else { throw .invalid }
    guard unclaimed >= program.filePages else { throw .noMemory }
    let container = ModelContainer(owner: nil)
    var id: UInt32 = 0
    var contents: [[ModelContent]] = []
    for segment in program.segments {
      contents.append((0..<segment.filePages).map { makeContent(segment.page($0)) })
      for content in contents[contents.count - 1] {
        set(container, id, .content(content))
        id += 1
      }
    }
    images[label] = Image(program: program, contents: contents, container: container)
  }

  mutating func unloadImage(_ label: Int) throws(ServerError) {
    guard let image = images[label] else { throw .contentGone }
    guard !tasks.contains(where: { $0.image == label }) else { throw .busy }
    empty(image.container)
    images[label] = nil
  }

  mutating func empty(_ container: ModelContainer) {
    for id in Array(container.frames.keys) { set(container, id, nil) }
    container.isLive = false
  }

  // MARK: Tasks

  private func canBook(_ guaranteed: Int, _ frames: Int, extra: Bool) -> Bool {
    guard guaranteed >= 0, guaranteed <= unclaimed else { return false }
    return frames <= guaranteed + (extra ? unclaimed - guaranteed : 0)
  }

  mutating func start(
    _ name: TaskName, image label: Int, _ parameters: TaskParameters, around: Around
  ) throws(ServerError) -> ModelTask {
    guard let image = images[label] else { throw .contentGone }
    let frames = image.program.pages + Program.stackPages
    if !canBook(parameters.guaranteed, frames, extra: parameters.mayUseExtra) {
      tables.releaseClosed()
      guard canBook(parameters.guaranteed, frames, extra: parameters.mayUseExtra) else { throw .noMemory }
    }
    guard tasks.count < world.tasks else { throw .noMemory }
    let slot = TaskSlot(freeSlots.popLast() ?? slotsUsed)
    slotsUsed = max(slotsUsed, slot.rawValue + 1)
    lastID += 1
    let task = ModelTask(
      name: name, slot: slot, id: TaskID(lastID), image: label, parameters, around: around)
    let container = ModelContainer(owner: name)
    container.handle = UInt32(PM_CAP_CONTAINER)
    _ = task.handles.insert(.task, HandleName(name.label, 1))
    _ = task.handles.insert(.container(container), HandleName(name.label, 2))
    task.containers = [container]
    for id in 0..<UInt32(frames) { set(container, id, .empty) }
    tasks.append(task)
    var isOpen = openSpace(task)
    if !isOpen {
      tables.releaseClosed()
      isOpen = openSpace(task)
    }
    guard isOpen else {
      forget(task)
      throw .noMemory
    }
    guard fill(task, container, image) else {
      tables.close(slot)
      forget(task)
      throw .noMemory
    }
    return task
  }

  /// The program's pages and the stack. False: there is no frame for a table.
  private mutating func fill(_ task: ModelTask, _ container: ModelContainer, _ image: Image) -> Bool {
    var id: UInt32 = 0
    for (segment, contents) in zip(image.program.segments, image.contents) {
      for (page, content) in contents.enumerated() {
        set(container, id + UInt32(page), .content(content))
        if segment.isWritable { makePrivate(container, id + UInt32(page)) }
      }
      guard makeTables(task, segment.start) else { return false }
      show(task, container, id, segment.pages, at: segment.start, segment.flags, epoch: nil, isInitial: true)
      id += UInt32(segment.pages)
    }
    guard makeTables(task, Program.stack) else { return false }
    let flags: MappingFlags = [.read, .write, .forceWrite, .lazy]
    show(task, container, id, Program.stackPages, at: Program.stack, flags, epoch: nil, isInitial: true)
    return true
  }

  /// The task and what it owns are no more.
  private mutating func forget(_ task: ModelTask) {
    for container in task.containers { empty(container) }
    tasks.removeAll { $0 === task }
    freeSlots.append(task.slot.rawValue)
  }

  /// It makes no calls any more, and nothing is served to it.
  mutating func beginEnd(_ task: ModelTask) {
    task.isEnding = true
    task.mappings = [:]
    leaveSharing(task)
    leaveMessages(task)
  }

  /// Takes back containers, the one with the highest entry of the table first, until one is held by others: until when
  /// at the latest. nil: the task is gone.
  mutating func continueEnd(_ task: ModelTask) -> UInt64? {
    for entry in task.handles.entries.reversed() {
      guard case .container(let container) = entry.target, container.isLive else { continue }
      if let deadline = heldByOthers(container) { return deadline }
      empty(container)
      task.containers.removeAll { $0 === container }
    }
    tables.close(task.slot)
    forget(task)
    return nil
  }
}

/// Page tables, as far as they take frames.
struct ModelTables {
  private struct Space {
    var isOpen = true
    var names: [TableName] = []
  }

  /// Set aside.
  let reserved: Int
  private let kept: Int
  var used = 0
  private var spaces: [TaskSlot: Space] = [:]
  /// Of spaces that were taken apart.
  private var retired = 0

  init(frames: Int, kept: Int) {
    reserved = max(32, frames / 64)
    self.kept = kept
  }

  /// A space kept for the slot: how many tables it has.
  mutating func reopen(_ slot: TaskSlot) -> Int? {
    spaces[slot]?.isOpen = true
    return spaces[slot].map { $0.names.count + 1 }
  }

  mutating func open(_ slot: TaskSlot) { spaces[slot] = Space() }

  mutating func close(_ slot: TaskSlot) {
    spaces[slot]?.isOpen = false
    if let space = spaces[slot], space.names.count + 1 > kept { retire(slot, space) }
  }

  private mutating func retire(_ slot: TaskSlot, _ space: Space) {
    retired += space.names.count + 1
    spaces[slot] = nil
  }

  mutating func releaseClosed() {
    for (slot, space) in spaces where !space.isOpen { retire(slot, space) }
    used -= retired
    retired = 0
  }

  func has(_ level: Int, _ slot: TaskSlot, _ page: PageNumber) -> Bool {
    spaces[slot]?.names.contains(TableName(level: level, page)) == true
  }

  mutating func add(_ level: Int, _ slot: TaskSlot, _ page: PageNumber) {
    spaces[slot]?.names.append(TableName(level: level, page))
  }
}
