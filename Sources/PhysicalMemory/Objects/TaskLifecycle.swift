// Making a task out of a loaded image, and taking everything back when it ends.

internal import CGuestABI
internal import GuestMemory

/// What a new task is to have.
public struct TaskParameters: Sendable {
  /// What a policy server knows it by (R14); longer than PM_NAME_MAXIMUM bytes, it is cut off. Empty: a machine puts the
  /// program's name in its place.
  public var name: String
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
    name: String = "", guaranteed: Int = 0, mayUseExtra: Bool = true, hasContract: Bool = false,
    faultAround: FaultAround = .automatic,
    keepsMappings: Bool = true
  ) {
    self.name = name
    self.keepsMappings = keepsMappings
    self.guaranteed = guaranteed
    self.mayUseExtra = mayUseExtra
    self.hasContract = hasContract
    self.faultAround = faultAround
  }
}

/// A task whose first pages are being given to it, in bounded steps.
struct StartPlan {
  let task: TaskSlot
  /// The segment, the next of its pages from the file, and the id of its first page.
  fileprivate var segment = 0
  fileprivate var page = 0
  fileprivate var id: FrameID = 0
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
  private static let handlesInOneStep = 512
  /// Pages of an image given to a new task in one step; one that is copied counts as so many.
  private static let pagesStartedInOneStep = 1024
  private static let workOfCopy = 16

  /// Makes a task that has nothing but what it is promised; `startTask` is to follow.
  mutating func createTask(_ image: ImageNumber, _ parameters: TaskParameters) throws(CallFailure) -> (TaskSlot, TaskID)
  {
    guard images.contains(image) else { throw .contentGone }
    var entitlement = Entitlement()
    entitlement.mayUseExtra = parameters.mayUseExtra
    if !promise(&entitlement, parameters, frameCount(image)) {
      releaseClosedSpaces()
      guard promise(&entitlement, parameters, frameCount(image)) else { throw .noMemory }
    }
    let task = try insertTask(image, parameters, entitlement)
    images[image].taskCount += 1
    statistics.tasksCreated += 1
    return (task, tasks[task].id)
  }

  /// What a task needs to begin.
  private func frameCount(_ image: ImageNumber) -> Int { images[image].pageCount + Int(PM_STACK_PAGES) }

  /// Promises a new task what its launch asks for; once there is a policy, at least what it begins with. False, and
  /// nothing changed: that cannot be had, or is too little to begin with.
  private mutating func promise(_ entitlement: inout Entitlement, _ parameters: TaskParameters, _ frameCount: Int)
    -> Bool
  {
    let hasContract = parameters.hasContract || policy.isControlled
    let guaranteed =
      parameters.hasContract ? parameters.guaranteed : max(parameters.guaranteed, hasContract ? frameCount : 0)
    guard ledger.set(&entitlement, guaranteed: guaranteed, hasContract: hasContract) else { return false }
    if ledger.headroom(entitlement, extra: true, lendable: lendable) >= frameCount { return true }
    dissolve(&entitlement)
    return false
  }

  /// Opens a new task's address space and charges what it begins with: all that may have to wait. `continueStarting` fills
  /// it. On an error but `.waitForFrames` the task is to be ended.
  mutating func startTask(_ task: TaskSlot) throws(CallFailure) -> StartPlan {
    let image = tasks[task].image
    let frameCount = frameCount(image)
    try makeRoomInBuffer(for: task, task)
    try openSpace(task)
    for segment in images[image].segments { try makeTables(task, for: segment.start) }
    try makeTables(task, for: PageNumber(containing: PM_STACK_TOP).advanced(by: -Int(PM_STACK_PAGES)))
    returnSetAside(task)
    guard headroom(task, extra: true) >= frameCount else { throw .noMemory }
    try charge(task, frameCount)
    containers[tasks[task].initialContainer.slot].frames.fill(0, count: frameCount, .empty)
    return StartPlan(task: task)
  }

  /// The task with an empty initial container; on an error what it was promised is taken back.
  private mutating func insertTask(
    _ image: ImageNumber, _ parameters: TaskParameters, _ entitlement: Entitlement
  ) throws(CallFailure) -> TaskSlot {
    var entitlement = entitlement
    // The owner's slot is known only once the task is in the table, whose record needs the container.
    guard tasks.count < tasks.capacity, let slot = tasks.nextIndex else {
      dissolve(&entitlement)
      throw .noMemory
    }
    let container: ContainerReference
    do throws(CallFailure) {
      container = try makeContainer(owner: slot)
      containers[container.slot].handle = .initialContainer
    } catch {
      dissolve(&entitlement)
      throw error
    }
    let record = TaskRecord(
      id: nextTaskID(), name: Array(parameters.name.utf8.prefix(Int(PM_NAME_MAXIMUM))), initialContainer: container,
      image: image, faultAround: parameters.faultAround, keepsMappings: parameters.keepsMappings,
      entitlement: entitlement)
    guard tasks.insert(record) == slot else { preconditionFailure("the task table changed its mind") }
    let task = slot
    surplusPlaces.begin(task)
    furtherReferences.begin(task)
    releasedEmpties.begin(task)
    fillPolicyEntry(task, guaranteed: entitlement.guaranteed, extra: entitlement.mayUseExtra)
    return task
  }

  /// Takes back what a task was promised, which has no frames any more.
  private mutating func dissolve(_ entitlement: inout Entitlement) {
    precondition(entitlement.allocated == 0, "a task went and left frames")
    _ = ledger.set(&entitlement, guaranteed: 0, hasContract: false)
  }

  /// One step of filling the initial container: text as logical copies, data as copies, the rest and the stack empty.
  /// False: the task may begin.
  mutating func continueStarting(_ plan: inout StartPlan) throws(CallFailure) -> Bool {
    let task = plan.task
    let reference = tasks[task].initialContainer
    let image = tasks[task].image
    guard plan.segment < images[image].segments.count else {
      mapStack(task, reference, plan.id)
      presentToPolicy(task)
      return false
    }
    let segment = images[image].segments[plan.segment]
    var left = Self.pagesStartedInOneStep
    while plan.page < segment.filePages {
      guard left > 0 else { return true }
      let id = plan.id.advanced(by: plan.page)
      let source = containers[images[image].container].frames[segment.firstFrame.advanced(by: plan.page)]
      guard let number = source.content else { preconditionFailure("a page of an image without content") }
      contents.addSharers(number, 1)
      containers[reference.slot].frames.set(id, source)
      if segment.flags.contains(.write) { try makePrivate(ContainerFrame(container: reference.slot, id: id)) }
      plan.page += 1
      left -= segment.flags.contains(.write) ? Self.workOfCopy : 1
    }
    mapPart(task, segment.start, segment.pageCount, reference, plan.id, segment.flags)
    var page = segment.start
    let ahead = page.advanced(by: min(segment.filePages, Self.pagesMappedAhead))
    while let next = fillNext(task, page, to: ahead) { page = next }
    plan.id = plan.id.advanced(by: segment.pageCount)
    plan.segment += 1
    plan.page = 0
    return true
  }

  private mutating func mapStack(_ task: TaskSlot, _ container: ContainerReference, _ id: FrameID) {
    let top = PageNumber(containing: PM_STACK_TOP)
    let stack = top.advanced(by: -Int(PM_STACK_PAGES))
    mapPart(task, stack, Int(PM_STACK_PAGES), container, id, [.read, .write, .forceWrite, .lazy])
    _ = fillNext(task, top.advanced(by: -1), to: top)
  }

  private mutating func mapPart(
    _ task: TaskSlot, _ start: PageNumber, _ count: Int, _ container: ContainerReference, _ id: FrameID,
    _ flags: MappingFlags
  ) {
    installMapping(
      task,
      Mapping(
        start: start, count: UInt64(count), container: container, frame: id, flags: flags, isInitial: true))
  }

  // MARK: The end

  /// Nothing is served to the task from here on; `continueEnding` takes back what it held.
  mutating func beginEnding(_ task: TaskSlot) {
    tasks[task].isEnding = true
    endRequest(task)
    tasks[task].mappings.removeAll()
    stopAllWaits(task)
    countControls(task, -tasks[task].controls)
  }

  /// One step through the handles of a task that ends: its endpoints go, its containers are to go. False: there are more.
  private mutating func closeHandles(_ task: TaskSlot) -> Bool {
    let start = tasks[task].closedHandles
    let end = min(start + Self.handlesInOneStep, tasks[task].handles.entryCount)
    for entry in start..<end {
      switch tasks[task].handles.target(ofEntry: entry) {
      case .container(let reference) where isLive(reference): tasks[task].dying.append(reference.slot)
      case .endpoint(let reference, mayReceive: true): closeEndpoint(reference)
      default: break
      }
    }
    tasks[task].closedHandles = end
    return end == tasks[task].handles.entryCount
  }

  /// One bounded step: what others wait for, then leaves, then frames, then the address space. Containers that others hold
  /// locked or pinned stay until they let go, or their time is up.
  mutating func continueEnding(_ task: TaskSlot) -> EndingStep {
    guard expirePins(), endLocks(of: task), endPins(of: task) else { return .more }
    // Who waits for the task is told of its end when its locks and pins are gone.
    cancelReceived(task)
    guard closeHandles(task) else { return .more }
    let start = tasks[task].unmappedUpTo
    let end = PageNumber(containing: PM_USER_END)
    if tasks[task].hasSpace, let next = unmapPages(task, from: start, to: end) {
      tasks[task].unmappedUpTo = next
      return .more
    }
    tasks[task].unmappedUpTo = end
    if let container = tasks[task].dying.last {
      if let deadline = heldByOthers(container) {
        forgetDemands(task)
        return .wait(until: deadline)
      }
      containers[container].isDying = true
      if continueDestroying(container) { tasks[task].dying.removeLast() }
      return .more
    }
    let spaces = spaces
    if tasks[task].hasSpace { spaces.closeSpace(task) { giveTable($0) } }
    forgetDemands(task)
    var record = tasks.remove(at: task)
    dissolve(&record.entitlement)
    restore(record.extraTables)
    tables.taken -= record.reservedTables
    images[record.image].taskCount -= 1
    clearPolicyEntry(task)
    tellOfTasks()
    return .done
  }
}
