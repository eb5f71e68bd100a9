// Making a task out of a loaded image, and taking everything back when it ends.

internal import CGuestABI
internal import GuestMemory

/// What a new task is to have.
public struct TaskParameters: Sendable {
  /// Frames it always gets.
  public var guaranteed: Int
  /// Whether it may have more than that.
  public var mayUseExtra: Bool
  /// False: first come, first served, until somebody decides (R8).
  public var hasContract: Bool
  public var faultAround: FaultAround
  /// Fill in a page again after the server has unmapped it. False: such a fault is the task's own (R27).
  public var keepsMappings: Bool

  public init(
    guaranteed: Int = 0, mayUseExtra: Bool = true, hasContract: Bool = false, faultAround: FaultAround = .automatic,
    keepsMappings: Bool = true
  ) {
    self.keepsMappings = keepsMappings
    self.guaranteed = guaranteed
    self.mayUseExtra = mayUseExtra
    self.hasContract = hasContract
    self.faultAround = faultAround
  }
}

/// What a step of ending a task came to.
enum EndingStep: Equatable {
  case more
  /// Somebody holds one of its containers; until this time at the latest.
  case wait(until: UInt64)
  case done
}

extension ServerState {
  /// Pages of each segment that get their leaves before the task begins; the rest comes by faults.
  private static let pagesMappedAhead = 64

  /// Makes a task with the image's segments and a stack in its initial container. Its address space holds the first
  /// pages of each segment and the stack's last one.
  mutating func createTask(_ image: UInt32, _ parameters: TaskParameters) throws(ServerError) -> (TaskSlot, TaskID) {
    guard images.contains(image) else { throw .contentGone }
    let frameCount = images[image].pageCount + Int(PM_STACK_PAGES)
    var entitlement = Entitlement()
    entitlement.mayUseExtra = parameters.mayUseExtra
    entitlement.hasContract = parameters.hasContract
    if !book(&entitlement, guaranteed: parameters.guaranteed, frameCount) {
      releaseClosedSpaces()
      guard book(&entitlement, guaranteed: parameters.guaranteed, frameCount) else { throw .noMemory }
    }
    let task = try insertTask(image, parameters, entitlement)
    images[image].taskCount += 1
    statistics.tasksCreated += 1
    do throws(ServerError) {
      try mapImage(task, image)
    } catch {
      endTaskAtOnce(task)
      throw error
    }
    return (task, tasks[task.rawValue].id)
  }

  /// Books a new task's guarantee and its first frames. False, and nothing changed: they are not to be had.
  private mutating func book(_ entitlement: inout Entitlement, guaranteed: Int, _ frameCount: Int) -> Bool {
    guard ledger.setGuarantee(&entitlement, guaranteed) else { return false }
    guard frameCount <= ledger.headroom(entitlement, extra: true) else {
      _ = ledger.setGuarantee(&entitlement, 0)
      return false
    }
    ledger.charge(&entitlement, frameCount)
    return true
  }

  /// The task with an empty initial container and address space; on an error the charge is taken back.
  private mutating func insertTask(
    _ image: UInt32, _ parameters: TaskParameters, _ entitlement: Entitlement
  ) throws(ServerError) -> TaskSlot {
    var entitlement = entitlement
    // The owner's slot is known only once the task is in the table, whose record needs the container.
    guard tasks.count < tasks.capacity, let slot = tasks.nextIndex else {
      uncharge(&entitlement)
      throw .noMemory
    }
    let container: ContainerReference
    do throws(ServerError) {
      container = try makeContainer(owner: TaskSlot(slot))
      containers[container.slot].handle = UInt32(PM_CAP_CONTAINER)
    } catch {
      uncharge(&entitlement)
      throw error
    }
    let record = TaskRecord(
      id: nextTaskID(), initialContainer: container, image: image, faultAround: parameters.faultAround,
      keepsMappings: parameters.keepsMappings, entitlement: entitlement)
    guard tasks.insert(record) == slot else { preconditionFailure("the task table changed its mind") }
    let task = TaskSlot(slot)
    let operations = operations
    var kept = operations.openSpace(task) { takeTable(for: task) }
    if kept == nil {
      releaseClosedSpaces()
      kept = operations.openSpace(task) { takeTable(for: task) }
    }
    guard let kept else {
      _ = containers.remove(at: container.slot)
      var record = tasks.remove(at: slot)
      uncharge(&record.entitlement)
      throw .noMemory
    }
    takeFromReserve(task, kept)
    return task
  }

  private mutating func uncharge(_ entitlement: inout Entitlement) {
    ledger.charge(&entitlement, -entitlement.allocated)
    _ = ledger.setGuarantee(&entitlement, 0)
  }

  /// Fills the initial container: text as logical copies, data as copies, the rest and the stack empty.
  private mutating func mapImage(_ task: TaskSlot, _ image: UInt32) throws(ServerError) {
    let reference = tasks[task.rawValue].initialContainer
    let container = reference.slot
    var id: UInt32 = 0
    let total = images[image].pageCount + Int(PM_STACK_PAGES)
    containers[container].frames.fill(0, count: total, .empty)
    for segment in images[image].segments {
      for page in 0..<UInt32(segment.filePages) {
        let source = containers[images[image].container].frames[segment.firstFrame + page]
        guard let number = source.content else { preconditionFailure("a page of an image without content") }
        contents.addSharers(number, 1)
        containers[container].frames.set(id + page, source)
        if segment.flags.contains(.write) { try makePrivate(ContainerFrame(container: container, id: id + page)) }
      }
      try mapPart(task, segment.start, segment.pageCount, reference, id, segment.flags)
      var page = segment.start
      let ahead = page.advanced(by: min(segment.filePages, Self.pagesMappedAhead))
      while let next = fillNext(task, page, to: ahead) { page = next }
      id += UInt32(segment.pageCount)
    }
    let top = PageNumber(containing: PM_STACK_TOP)
    let stack = top.advanced(by: -Int(PM_STACK_PAGES))
    try mapPart(task, stack, Int(PM_STACK_PAGES), reference, id, [.read, .write, .forceWrite, .lazy])
    _ = fillNext(task, top.advanced(by: -1), to: top)
  }

  private mutating func mapPart(
    _ task: TaskSlot, _ start: PageNumber, _ count: Int, _ container: ContainerReference, _ id: UInt32,
    _ flags: MappingFlags
  ) throws(ServerError) {
    try makeTables(task, for: start)
    installMapping(
      task,
      Mapping(
        start: start, count: UInt64(count), container: container, frame: id, flags: flags, isInitial: true))
  }

  // MARK: The end

  /// Nothing is served to the task from here on; `continueEnding` takes back what it held.
  mutating func beginEnding(_ task: TaskSlot) {
    tasks[task.rawValue].isEnding = true
    tasks[task.rawValue].mappings.removeAll()
    leaveSharing(task)
    leaveMessages(task)
    var owned: [UInt32] = []
    tasks[task.rawValue].handles.forEach { target in
      if case .container(let reference) = target, isLive(reference) { owned.append(reference.slot) }
    }
    tasks[task.rawValue].dying = owned
  }

  /// One bounded step: leaves first, then frames, then the address space. Containers that others hold locked or
  /// pinned stay until they let go, or their time is up.
  mutating func continueEnding(_ task: TaskSlot) -> EndingStep {
    let start = tasks[task.rawValue].unmappedUpTo
    let end = PageNumber(containing: PM_USER_END)
    if let next = unmapPages(task, from: start, to: end, limit: 2048) {
      tasks[task.rawValue].unmappedUpTo = next
      return .more
    }
    tasks[task.rawValue].unmappedUpTo = end
    if let container = tasks[task.rawValue].dying.last {
      if let deadline = heldByOthers(container, owner: task) { return .wait(until: deadline) }
      containers[container].isDying = true
      if continueDestroying(container) { tasks[task.rawValue].dying.removeLast() }
      return .more
    }
    let operations = operations
    operations.closeSpace(task) { giveTable($0) }
    var record = tasks.remove(at: task.rawValue)
    uncharge(&record.entitlement)
    ledger.restore(record.extraTables)
    tables.taken -= record.reservedTables
    images[record.image].taskCount -= 1
    return .done
  }

  mutating func endTaskAtOnce(_ task: TaskSlot) {
    beginEnding(task)
    while case .more = continueEnding(task) {}
  }
}
