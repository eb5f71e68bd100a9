// Who decides about memory (R7–R14): the control capability, and the buffer that the server shares with its holder.
// What a commit does is in PolicyCommit.swift.
//
// The life of control:
//  1. free: nobody asked for it. Memory is given first come, first served.
//  2. held: somewhere there is a handle that names it. Its holders may map the buffer, one at a time, and commit.
//  3. gone: the last handle was dropped, or ended with its task. The policy committed last stays in force for good.
//
// The buffer is a container of the server's own, whose frames tasks cannot have while it exists. Its holder sees it
// through a mapping as of a weak capability: a new epoch takes it away.

internal import CGuestABI
internal import GuestMemory

struct PolicyState {
  /// pm_get_control has succeeded, which it does once.
  var wasTaken = false
  /// A policy has been committed: from then on every task has a contract.
  var isControlled = false
  /// Handles that name control, in all tables.
  var controls = 0
  /// The buffer's container; from the first pm_get_policy_buffer until there is no control any more.
  var buffer: ContainerReference?
  /// Who mapped the buffer last, for as long as it holds control.
  var holder: TaskSlot?
  /// Tasks have come or gone since the holder was told so.
  var hasNews = false

  static let entryBytes = MemoryLayout<pm_policy_entry>.size
  static let entriesPerFrame = 4096 / entryBytes
}

extension ServerState {
  // MARK: Control (R9, R10)

  mutating func takeControl(_ task: TaskSlot) throws(CallFailure) -> Handle {
    guard !policy.wasTaken else { throw .notPermitted }
    guard let handle = tasks[task].handles.insert(.control) else { throw .noMemory }
    policy.wasTaken = true
    countControls(task, 1)
    return handle
  }

  /// PM_EINVAL for a handle that names nothing, PM_EPERM for one that names something else.
  func checkControl(_ task: TaskSlot, _ handle: Handle) throws(CallFailure) {
    guard let target = tasks[task].handles[handle] else { throw .invalid }
    guard target == .control else { throw .notPermitted }
  }

  /// A task has got handles that name control, or has lost some. With the last one it loses the buffer too.
  mutating func countControls(_ task: TaskSlot, _ change: Int) {
    tasks[task].controls += change
    policy.controls += change
    if tasks[task].controls == 0, policy.holder == task {
      takeBufferAway()
      policy.holder = nil
      releaseLaunches()
    }
    if policy.controls == 0, let buffer = policy.buffer {
      policy.buffer = nil
      destroy(buffer.slot)
    }
  }

  // MARK: The buffer (R11–R13)

  /// Maps the buffer, in place of what was mapped there, and takes it from whoever has it. Makes it, if there is none.
  mutating func mapPolicyBuffer(
    _ task: TaskSlot, _ handle: Handle, address: GuestAddress, result: GuestAddress
  ) throws(CallFailure) {
    try checkControl(task, handle)
    try checkWritable(task, result, 4)
    _ = try PageRange(address: address, count: 1)
    let buffer = try makeBuffer(for: task)
    let frames = containers[buffer.slot].frames.count
    let pages = try PageRange(address: address, count: UInt64(frames))
    guard hasRoomForMappings(task, pages, new: 1) else { throw .noMemory }
    try makeTables(task, for: pages.start)
    try makeTables(task, for: pages.end.advanced(by: -1))
    try store(UInt32(frames * PolicyState.entriesPerFrame), task, result)
    // Nothing can fail from here on.
    takeBufferAway()
    var page = pages.start
    while let next = unmapPages(task, from: page, to: pages.end) { page = next }
    while !removeMappings(task, from: pages.start, to: pages.end) {}
    installMapping(
      task,
      // The server never forgets it: its holder could not map it again as it does its own containers.
      Mapping(
        start: pages.start, count: pages.count, container: buffer, frame: 0, flags: [.read, .write, .lazy],
        epoch: containers[buffer.slot].epoch, isInitial: true))
    policy.holder = task
  }

  /// The first buffer shows what there is, and guarantees nothing (R12).
  private mutating func makeBuffer(for task: TaskSlot) throws(CallFailure) -> ContainerReference {
    if let buffer = policy.buffer { return buffer }
    let buffer = try makeContainer(owner: .server)
    policy.buffer = buffer
    var slots: [TaskSlot] = []
    tasks.forEachIndex { slots.append($0) }
    do throws(CallFailure) {
      try makeRoomInBuffer(for: task, slots.last ?? TaskSlot(0))
    } catch {
      policy.buffer = nil
      destroy(buffer.slot)
      throw error
    }
    for slot in slots { fillPolicyEntry(slot, guaranteed: 0, extra: true) }
    return buffer
  }

  /// Makes the buffer larger, if a task's slot is beyond it. Its holder loses it then, and asks again (R13). The frames
  /// there are stay, with all that is in them.
  /// - Parameter task: for whose sake.
  mutating func makeRoomInBuffer(for task: TaskSlot, _ slot: TaskSlot) throws(CallFailure) {
    guard let buffer = policy.buffer else { return }
    let old = containers[buffer.slot].frames.count
    let needed = Int(slot.rawValue) / PolicyState.entriesPerFrame + 1
    guard needed > old else { return }
    guard withdraw(needed - old, for: task) else { throw lack(task, needed - old) }
    containers[buffer.slot].frames.fill(FrameID(UInt32(old)), count: needed - old, .empty)
    for id in old..<needed where makeResident(buffer.slot, FrameID(UInt32(id))) == nil {
      while releaseFrames(buffer.slot, UInt64(old)..<UInt64(needed)) != nil {}
      throw .noMemory
    }
    takeBufferAway()
    // Of those that begin there may be several already.
    var next = tasks.occupied(from: TaskSlot(UInt32(old * PolicyState.entriesPerFrame)))
    while let slot = next {
      let entitlement = tasks[slot].entitlement
      fillPolicyEntry(slot, guaranteed: entitlement.guaranteed, extra: entitlement.mayUseExtra)
      next = tasks.occupied(after: slot)
    }
  }

  /// Nobody has the buffer mapped any more.
  private mutating func takeBufferAway() {
    guard let slot = policy.buffer?.slot else { return }
    containers[slot].epoch = containers[slot].epoch == .max ? 1 : containers[slot].epoch + 1
    for id in 0..<UInt32(containers[slot].frames.count) {
      if let content = containers[slot].frames[FrameID(id)].content { revokeAll(contents[content].frame) }
    }
    finishRevocations()
  }

  /// A buffer has a few frames: this is one step.
  private mutating func destroy(_ container: ContainerSlot) {
    containers[container].isDying = true
    while !continueDestroying(container) {}
  }

  // MARK: Entries

  /// Where a slot's entry is; nil: there is no buffer, or it does not reach so far.
  @inline(__always)
  private func policyEntry(_ slot: TaskSlot) -> (frame: FrameNumber, offset: Int)? {
    guard let buffer = policy.buffer else { return nil }
    let index = Int(slot.rawValue)
    let word = containers[buffer.slot].frames[FrameID(UInt32(index / PolicyState.entriesPerFrame))]
    guard let content = word.content else { return nil }
    return (contents[content].frame, index % PolicyState.entriesPerFrame * PolicyState.entryBytes)
  }

  /// Keeps what a task's entry says of its frames current. One store, so that no reader sees half of it.
  @inline(__always)
  mutating func noteAllocated(_ task: TaskSlot) {
    guard let (frame, offset) = policyEntry(task) else { return }
    let allocated = UInt64(tasks[task].entitlement.allocated)
    let bytes = InlineArray<8, UInt8> { UInt8(truncatingIfNeeded: allocated >> UInt64(8 * $0)) }
    memory.write(frame, at: offset + 8, bytes.span)
  }

  /// Writes all of a task's entry, the policy server's fields too.
  mutating func fillPolicyEntry(_ task: TaskSlot, guaranteed: Int, extra: Bool) {
    writeServerFields(task)
    writeWords(
      task, at: 32,
      [UInt64(guaranteed), extra ? 1 : 0, UInt64(tasks[task].entitlement.swapQuota), 0])
  }

  /// Writes what of an entry is the server's, whatever its holder made of it.
  mutating func writeServerFields(_ task: TaskSlot) {
    let entitlement = tasks[task].entitlement
    writeWords(
      task, at: 0,
      [
        tasks[task].id.rawValue, UInt64(entitlement.allocated), UInt64(entitlement.guaranteed),
        UInt64(entitlement.swapped),
      ])
  }

  /// The slot is free.
  mutating func clearPolicyEntry(_ slot: TaskSlot) {
    writeWords(slot, at: 0, [0, 0, 0, 0])
    writeWords(slot, at: 32, [0, 0, 0, 0])
  }

  private func writeWords(_ slot: TaskSlot, at offset: Int, _ words: InlineArray<4, UInt64>) {
    guard let entry = policyEntry(slot) else { return }
    let bytes = InlineArray<32, UInt8> { UInt8(truncatingIfNeeded: words[$0 / 8] >> UInt64($0 % 8 * 8)) }
    memory.write(entry.frame, at: entry.offset + offset, bytes.span)
  }
}
