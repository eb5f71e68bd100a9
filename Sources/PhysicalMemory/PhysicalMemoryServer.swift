// The physical memory server's public face: every operation, each taking the server's lock for bounded work.
//
//      PhysicalMemoryServer ── lock ──▶ ServerState ──▶ MachineOperations ──▶ page tables, zaps, frames

internal import CGuestABI
public import GuestMemory

public final class PhysicalMemoryServer: Sendable {
  private let state: ServerLock

  /// - Parameters:
  ///   - frameCount: frames of the pool.
  ///   - reserved: frames at the pool's start that the machine keeps for itself, frame 0 included.
  ///   - taskCapacity: tasks at a time.
  ///   - reclaim: how frames are taken back from tasks that have more than their guarantee.
  ///   - stock: frames to keep zeroed ahead; `zeroAhead` is asked for when half of them are left.
  ///   - blocks: the same for superpages, in blocks of 512 frames; `nextBlock` is asked for. A small pool has fewer.
  ///   - departures: where to wait for the ends of visits; nil: `hurry` ends them at once.
  ///   - measuresHolds: tell in `statistics` how long the lock is held.
  /// - Throws: when there is no address space for the metadata: 32 bytes a frame, used as frames are touched.
  public init(
    frameCount: Int, reserved: Int, taskCapacity: Int, stock: Int, blocks: Int = 0,
    reclaim: ReclaimRules = ReclaimRules(), operations: sending any MachineOperations,
    departures: (any Departures)? = nil, measuresHolds: Bool = false
  ) throws(ReservationError) {
    state = ServerLock(
      try ServerState(
        frameCount: frameCount, reserved: reserved, taskCapacity: taskCapacity, stock: stock, blocks: blocks,
        reclaim: reclaim, operations: operations), departures: departures, isMeasured: measuresHolds)
  }

  /// One bounded step, with the lock held.
  @inline(__always)
  func withState<Result: ~Copyable, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    try state.withLock { (state) throws(Failure) in try body(&state) }
  }

  /// The same, with no pin left whose time is up.
  func withCurrentPins<Result, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    while true {
      let result = try withState { (state) throws(Failure) -> sending Result? in
        guard state.expirePins() else { return nil }
        return try body(&state)
      }
      if let result { return result }
    }
  }

  /// Carries out a task's call in bounded steps, the lock released between them, until a step says that there are no more.
  /// A call can be long, and a task that is to end is not waited for: this looks before each step.
  /// - Returns: false: the task is to end. The caller leaves, or undoes in steps, what was planned, so that everything is
  ///   in order for `endTask`, and throws `.stopped`.
  func steps<Failure: Error>(
    of task: TaskSlot, _ step: (inout ServerState) throws(Failure) -> Bool
  ) throws(Failure) -> Bool {
    while true {
      let hasMore = try withState { (state) throws(Failure) -> sending Bool? in
        state.events.mustStop(task) ? nil : try step(&state)
      }
      guard let hasMore else { return false }
      if !hasMore { return true }
    }
  }

  // MARK: Programs and tasks

  /// Makes a task. Where its first frames are to be taken back from others, that takes as long as those may take; where
  /// there is a policy server, until it has decided, but not long.
  /// - Parameter wait: called meanwhile; returns at a time of the machine's clock, or when `wake` is called for the task.
  public func createTask(
    _ image: ImageNumber, _ parameters: TaskParameters, wait: (TaskSlot, _ until: UInt64) -> Void = { _, _ in }
  ) throws(CallFailure) -> (slot: TaskSlot, id: TaskID) {
    let (task, id) = try state.withLock { (state) throws(CallFailure) in
      try state.createTask(image, parameters)
    }
    while true {
      do throws(CallFailure) {
        var plan = try state.withLock { (state) throws(CallFailure) in try state.startTask(task) }
        while try state.withLock({ (state) throws(CallFailure) in try state.continueStarting(&plan) }) {}
        endRequest(task)
        while let until = state.withLock({ $0.policyWait(task) }) { wait(task, until) }
        return (task, id)
      } catch {
        guard error == .waitForFrames else {
          endTask(task)
          throw error
        }
        while case .waiting(let until) = frameWait(task) { wait(task, until) }
      }
    }
  }

  /// Takes back everything the task held. It must not run any more.
  /// - Parameter wait: called while another task holds one of its containers; returns at a time of the machine's
  ///   clock, or when `wake` is called for the task.
  public func endTask(_ task: TaskSlot, wait: (_ until: UInt64) -> Void = { _ in }) {
    state.withLock { $0.beginEnding(task) }
    while true {
      switch state.withLock({ $0.continueEnding(task) }) {
      case .more: continue
      case .wait(let deadline): wait(deadline)
      case .done: return
      }
    }
  }

  // MARK: Frames that others must give back first. A call that throws `.waitForFrames` has changed nothing: it is made
  // again when `frameWait` is `.ready`, and `endRequest` follows it, however it came out.

  public func frameWait(_ task: TaskSlot) -> FrameWait { state.withLock { $0.frameWait(task) } }
  public func endRequest(_ task: TaskSlot) { state.withLock { $0.endRequest(task) } }

  /// What the task's pm_return_pages handler is to be told now, in frames; 0: nothing.
  public func takeReturnRequest(_ task: TaskSlot) -> Int { state.withLock { $0.takeReturnRequest(task) } }

  // MARK: Faults

  /// Serves a fault of a running task.
  public func fault(_ task: TaskSlot, _ page: PageNumber, _ access: Access) -> FaultOutcome {
    state.withLock(needed: GracePeriods.framesOfAFault) { state in
      let outcome = state.serveFault(task, page, access)
      switch outcome {
      case .served: state.spaces.attach(task, page)
      case .spurious: if !state.spaces.attach(task, page) { return state.judgeSpurious(task, page) }
      case .notMapped, .forbidden, .noMemory: state.countDelivered(task)
      case .unexplained, .locked, .waitForFrames: break
      }
      return outcome
    }
  }

  // MARK: What calls tell, for others than the task

  public func mappingInformation(_ task: TaskSlot, address: GuestAddress) throws(CallFailure) -> MappingInformation {
    try state.withLock { (state) throws(CallFailure) in
      try state.mappingInformation(task, address: address)
    }
  }

  public func taskInformation(_ task: TaskSlot) -> TaskInformation {
    state.withLock { $0.taskInformation(task) }
  }

  // MARK: The task's memory

  /// PM_EFAULT where the task itself could not read all of it.
  public func checkReadable(_ task: TaskSlot, _ address: GuestAddress, _ count: UInt64) throws(CallFailure) {
    guard count <= PM_USER_END, ServerState.isUserRange(address, Int(count)) else { throw .fault }
    // Each page may have to be filled in.
    var done: UInt64 = 0
    repeat {
      let part = min(count - done, 1 << 16)
      let at = GuestAddress(address.rawValue + done)
      try withState { (state) throws(CallFailure) in try state.checkReadable(task, at, Int(part)) }
      done += part
    } while done < count
  }

  public func readMemory(_ task: TaskSlot, _ address: GuestAddress, into buffer: inout [UInt8]) throws(CallFailure) {
    try state.withLock { (state) throws(CallFailure) in try state.readMemory(task, address, into: &buffer) }
  }

  public func writeMemory(_ task: TaskSlot, _ address: GuestAddress, _ bytes: Span<UInt8>) throws(CallFailure) {
    try state.withLock { (state) throws(CallFailure) in try state.writeMemory(task, address, bytes) }
  }

  /// Where the last call that answered PM_EFAULT got stuck, and why; nil: outside the task's half. Asked once.
  public func takePointerFault(_ task: TaskSlot) -> (address: UInt64, access: Access, outcome: FaultOutcome)? {
    state.withLock { $0.tasks[task].pointerFault.take() }.map { ($0.address.rawValue, $0.access, $0.outcome) }
  }

  // MARK: The machine's own

  /// A zeroed frame for the machine itself, for good; nil when none is left.
  public func takeMachineFrame() -> FrameNumber? {
    state.withLock { state in
      if let frame = state.takeMachineFrame() { return frame }
      state.releaseClosedSpaces()
      return state.takeMachineFrame()
    }
  }

  /// The same for the sake of a task, from others with extra frames if need be. `wait` as in `createTask`.
  public func takeMachineFrame(for task: TaskSlot, wait: (_ until: UInt64) -> Void) -> FrameNumber? {
    if let frame = takeMachineFrame() { return frame }
    defer { endRequest(task) }
    while true {
      do throws(CallFailure) {
        return try state.withLock { (state) throws(CallFailure) in try state.takeMachineFrame(for: task) }
      } catch {
        guard error == .waitForFrames else { return nil }
        while case .waiting(let until) = frameWait(task) { wait(until) }
      }
    }
  }

  /// Takes such a frame back after all; nothing may refer to it.
  public func giveMachineFrame(_ frame: FrameNumber) { state.withLock { $0.giveMachineFrame(frame) } }

  /// Takes back the page tables kept for tasks that have ended.
  public func releaseClosedSpaces() {
    while state.withLock({ state in
      let before = state.tables.used
      state.releaseClosedSpaces()
      return state.tables.used < before
    }) {}
  }

  /// Waits until all frames that have been given back so far, or were left by moves, are nobody's to see.
  func waitForGracePeriod() { state.waitForGracePeriod() }

  /// One step of ending grace periods, for who was asked to by `watchGracePeriods`: tasks that run on and on are told to
  /// leave the machine.
  /// - Returns: false: there is nothing more to be done.
  public func watchGracePeriods() -> Bool { state.withLock(needed: 0) { $0.watchGracePeriods() } }

  /// Clears a few free frames and puts them in stock, up to `target` frames.
  /// - Returns: the frames, so that the caller can populate them; empty when there is nothing to do.
  public func zeroAhead(target: Int) -> [FrameRun] { state.withLock { $0.zeroAhead(target: target) } }

  /// A block of free frames to make a huge page of the host of; `zeroBlock` follows. Nobody is kept from taking its frames
  /// meanwhile.
  /// - Returns: nil when there is nothing to do.
  public func nextBlock() -> FrameRun? { state.withLock { $0.nextBlock() } }

  /// The same, but no more than what is asked for lately is worth.
  public func nextWantedBlock() -> FrameRun? { state.withLock { $0.nextWantedBlock() } }

  /// Clears a few frames of such a block, and puts it in stock when all are zero.
  /// - Returns: false: there is more to be done.
  public func zeroBlock(_ block: FrameRun) -> Bool { state.withLock { $0.zeroBlock(block) } }

  /// Makes a superpage of the region of 512 pages that `page` is in, if its frames are adjacent and aligned, all there and
  /// the task's alone, and it was not one in vain lately. About a millisecond, with the lock held; every task finds its
  /// translations flushed, so this is for regions that stay.
  /// - Parameter collapse: makes the frames a huge page of the host, without the lock; false: it cannot.
  /// - Returns: whether there is a new superpage.
  public func promote(_ task: TaskSlot, _ page: PageNumber, collapse: (FrameRun) -> Bool) -> Bool {
    guard let block = state.withLock({ $0.promotableBlock(task, page) }), collapse(block) else { return false }
    // The lock was released: all of it is looked at again.
    return state.withLock { $0.promoteIfPossible(task, page) }
  }

  /// Begins a pass over the frames that have stayed free since the last one began; `giveBackIdleFrames` does it.
  public func beginIdlePass() {
    state.withLock { state in
      state.shrinkBlockStock()
      state.pool.beginIdlePass()
    }
  }

  /// Gives the memory of a few of them back to the host.
  /// - Returns: how many frames; 0: the pass is over.
  public func giveBackIdleFrames() -> Int { state.withLock { $0.giveBackIdleFrames() } }

  /// For measurements: books a frame for a task and takes it back, so many times, as an allocation does.
  public func bookFrames(_ task: TaskSlot, times: Int) {
    state.withLock { state in
      for _ in 0..<times where state.headroom(task, extra: false) > 0 {
        guard (try? state.charge(task, 1)) != nil else { return }
        state.uncharge(task, 1)
      }
    }
  }

  /// For tests: unmaps some frame for everyone, as the server may at any time.
  public func revokeSomeFrame(_ random: UInt64) -> Bool { state.withLock { $0.revokeSomeFrame(random) } }

  public var statistics: ServerStatistics { state.withLock { $0.currentStatistics } }

  /// Everything that must always hold, checked from both ends. Costs a walk over all there is.
  /// - Returns: a sentence for each violation.
  public func checkInvariants() -> [String] { state.withLock { $0.violations() } }
}
