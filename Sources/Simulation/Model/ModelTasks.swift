// The naive model of tasks: their start and their end.

internal import CGuestABI
internal import GuestMemory
internal import PhysicalMemory

extension Model {
  private func canPromise(_ guaranteed: Int, _ contract: Bool, _ frames: Int, extra: Bool) -> Bool {
    guard guaranteed >= 0, guaranteed <= unclaimed else { return false }
    if contract { return frames <= (extra ? max(guaranteed, lendable) : guaranteed) }
    return frames <= guaranteed + (extra ? unclaimed - guaranteed : 0)
  }

  private func frames(_ image: Image) -> Int { image.program.pages + Program.stackPages }

  /// Creates a task with an empty initial container; `begin` must follow.
  mutating func create(
    _ name: TaskName, image label: Int, _ parameters: TaskParameters, around: Around
  ) throws(CallFailure) -> ModelTask {
    guard let image = images[label] else { throw .contentGone }
    let contract = parameters.hasContract || policy.isControlled
    // Under a policy, a task is guaranteed at least the frames it starts with.
    let least = contract ? frames(image) : 0
    let guaranteed = parameters.hasContract ? parameters.guaranteed : max(least, parameters.guaranteed)
    if !canPromise(guaranteed, contract, frames(image), extra: parameters.mayUseExtra) {
      tables.releaseClosed()
      guard canPromise(guaranteed, contract, frames(image), extra: parameters.mayUseExtra) else { throw .noMemory }
    }
    guard tasks.count < world.tasks else { throw .noMemory }
    let slot = TaskSlot(freeSlots.popLast() ?? slotsUsed)
    slotsUsed = max(slotsUsed, slot.rawValue + 1)
    lastID += 1
    let task = ModelTask(
      name: name, slot: slot, id: TaskID(lastID), image: label, parameters, guaranteed: guaranteed,
      hasContract: contract, around: around)
    let container = ModelContainer(owner: name)
    container.handle = UInt32(PM_CAP_CONTAINER)
    _ = task.handles.insert(.task, HandleName(name.label, 1))
    _ = task.handles.insert(.container(container), HandleName(name.label, 2))
    task.containers = [container]
    tasks.append(task)
    fillEntry(task, guaranteed: guaranteed, extra: task.mayUseExtra)
    return task
  }

  /// Whether the frames to start with are available without reclaim.
  func canBeginAtOnce(image label: Int) -> Bool {
    guard let image = images[label] else { return true }
    return reclaim.requests.isEmpty && frames(image) + Program.mostTables < notAllocated
  }

  /// Builds the first pages of the address space. On any error but `.waitForFrames` the task is gone.
  mutating func begin(_ task: ModelTask) throws(CallFailure) {
    guard let image = images[task.image], let container = task.initialContainer else { throw .contentGone }
    do throws(CallFailure) {
      try openSpace(task)
      for segment in image.program.segments { try makeTables(task, segment.start) }
      try makeTables(task, Program.stack)
      guard headroom(task, extra: true) >= frames(image) else { throw .noMemory }
      try charge(task, frames(image))
      for id in 0..<UInt32(frames(image)) { set(container, id, .empty) }
      fill(task, container, image)
      task.hasFrames = true
      present(task)
    } catch {
      if error != .waitForFrames {
        beginEnd(task)
        _ = continueEnd(task)
      }
      throw error
    }
  }

  /// Adds the program's pages and the stack.
  private mutating func fill(_ task: ModelTask, _ container: ModelContainer, _ image: Image) {
    var id: UInt32 = 0
    for (segment, contents) in zip(image.program.segments, image.contents) {
      for (page, content) in contents.enumerated() {
        set(container, id + UInt32(page), .content(content))
        if segment.isWritable { makePrivate(container, id + UInt32(page)) }
      }
      show(task, container, id, segment.pages, at: segment.start, segment.flags, epoch: nil, isInitial: true)
      id += UInt32(segment.pages)
    }
    let flags: MappingFlags = [.read, .write, .forceWrite, .lazy]
    show(task, container, id, Program.stackPages, at: Program.stack, flags, epoch: nil, isInitial: true)
  }

  /// Removes the task and everything it owns.
  private mutating func forget(_ task: ModelTask) {
    for container in task.containers { empty(container) }
    tasks.removeAll { $0 === task }
    freeSlots.append(task.slot.rawValue)
    serveRequests()
  }

  /// Ends the task's calls and faults.
  mutating func beginEnd(_ task: ModelTask) {
    task.isEnding = true
    task.pending = nil
    endRequest(task)
    task.mappings = [:]
    leaveSharing(task)
    leaveMessages(task)
    loseControl()
  }

  /// Destroys containers, from the highest table entry down, until one is held by others.
  /// - Returns: the latest time at which that hold ends; nil: the task is gone.
  mutating func continueEnd(_ task: ModelTask) -> UInt64? {
    for entry in task.handles.entries.reversed() {
      guard case .container(let container) = entry.target, container.isLive else { continue }
      if let deadline = heldByOthers(container) {
        task.demands = []
        return deadline
      }
      empty(container)
      task.containers.removeAll { $0 === container }
    }
    tables.close(task.slot)
    forget(task)
    policy.clear(task.slot)
    tellOfTasks()
    return nil
  }
}
