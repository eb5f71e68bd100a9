// The public interface of the physical memory server. Each operation holds the server's lock for bounded work.
//
//      PhysicalMemoryServer ── lock ──▶ ServerState ──▶ MachineOperations ──▶ page tables, zaps, frames

internal import CGuestABI
public import GuestMemory

/// The physical memory server of one machine. All methods may be called from any thread; each takes the server's lock.
public final class PhysicalMemoryServer: Sendable {
  private let state: ServerLock

  /// - Parameters:
  ///   - frameCount: frames in the pool.
  ///   - reserved: frames at the start of the pool that the machine keeps for itself, frame 0 included.
  ///   - taskCapacity: the largest number of tasks that exist at the same time.
  ///   - stock: zeroed frames to keep ready. The server calls `wantZeroedFrames` when fewer than half are left.
  ///   - blocks: zeroed blocks of 512 frames to keep ready for superpages. A small pool keeps fewer.
  ///   - reclaim: how frames are taken back from tasks that have more than their guarantee.
  ///   - operations: how the server acts on the machine.
  ///   - departures: waits for visits to end; nil: `hurry` ends a visit before it returns.
  ///   - measuresHolds: report in `statistics` how long the lock is held.
  /// - Throws: `ReservationError` when the host has no address space for the metadata: 32 bytes a frame, backed by
  ///   memory as frames are touched.
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

  /// Runs one bounded step with the lock held.
  @inline(__always)
  func withState<Result: ~Copyable, Failure: Error>(
    _ body: (inout ServerState) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    try state.withLock { (state) throws(Failure) in try body(&state) }
  }

  /// A task's call is over, and changes no container any more. Takes no frames, so it waits for none.
  func endChanges(of task: TaskSlot) { state.withLock(needed: 0) { $0.endChanges(of: task) } }

  // MARK: Programs and tasks

  /// Creates a task and reserves its first frames. Blocks while other tasks give frames back, and, if there is a policy
  /// server, until it has decided or a short deadline has passed.
  /// - Parameters:
  ///   - image: the program, from `loadImage`.
  ///   - parameters: the task's name, entitlement, stack and arguments.
  ///   - wait: blocks until a time of the machine's clock (nanoseconds), or until `wake` is called for the task.
  /// - Returns: the slot, and the task's id, which is never reused.
  /// - Throws: `.contentGone` when the image is not loaded, `.noMemory` when the guarantee or the frames cannot be had.
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

  /// Ends a task and takes back everything it held. The task must not run any more.
  /// - Parameters:
  ///   - task: the task to end.
  ///   - wait: called while another task holds one of its containers; blocks until a time of the machine's clock
  ///     (nanoseconds), or until `wake` is called for the task.
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

  // MARK: Waiting for frames
  // A call that throws `.waitForFrames` has changed nothing. Repeat it once `frameWait` is `.ready`, and call
  // `endRequest` after the last attempt, whether it succeeded or not.

  /// The state of the task's request for frames.
  public func frameWait(_ task: TaskSlot) -> FrameWait { state.withLock { $0.frameWait(task) } }
  /// Ends the task's request for frames. Does nothing if it has none.
  public func endRequest(_ task: TaskSlot) { state.withLock { $0.endRequest(task) } }

  /// The number of frames that the task's pm_return_pages handler is to give back; 0: no demand is pending. Reading it
  /// clears it.
  public func takeReturnRequest(_ task: TaskSlot) -> Int { state.withLock { $0.takeReturnRequest(task) } }

  // MARK: Faults

  /// Serves a page fault of a running task.
  /// - Parameters:
  ///   - task: the task at fault.
  ///   - page: the page at fault.
  ///   - access: what the task tried to do.
  /// - Returns: whether to retry, to wait, or to deliver the fault to the task.
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

  // MARK: Information about a task

  /// The mapping at an address, as pm_mapping reports it (R27).
  /// - Throws: `.noEntry` where nothing is mapped, or where the frame is no longer allocated; `.invalid` for an address
  ///   outside the task's half.
  public func mappingInformation(_ task: TaskSlot, address: GuestAddress) throws(CallFailure) -> MappingInformation {
    try state.withLock { (state) throws(CallFailure) in
      try state.mappingInformation(task, address: address)
    }
  }

  /// The task's entitlement and counters, in frames, as pm_task_info reports them (R14).
  public func taskInformation(_ task: TaskSlot) -> TaskInformation {
    state.withLock { $0.taskInformation(task) }
  }

  // MARK: The task's memory

  /// Checks that the task itself could read `count` bytes, and fills in the pages.
  /// - Throws: `.fault` where it could not, `.waitForFrames` when other tasks must give frames back first.
  public func checkReadable(_ task: TaskSlot, _ address: GuestAddress, _ count: UInt64) throws(CallFailure) {
    guard count <= PM_USER_END, ServerState.isUserRange(address, Int(count)) else { throw .fault }
    // One step a part: each page may have to be filled in.
    var done: UInt64 = 0
    repeat {
      let part = min(count - done, 1 << 16)
      let at = GuestAddress(address.rawValue + done)
      try withState { (state) throws(CallFailure) in try state.checkReadable(task, at, Int(part)) }
      done += part
    } while done < count
  }

  /// Reads the task's memory with the task's own rights.
  /// - Throws: `.fault` where the task itself could not read, `.waitForFrames` when other tasks must give frames back
  ///   first.
  public func readMemory(_ task: TaskSlot, _ address: GuestAddress, into buffer: inout [UInt8]) throws(CallFailure) {
    try state.withLock { (state) throws(CallFailure) in try state.readMemory(task, address, into: &buffer) }
  }

  /// Writes the task's memory with the task's own rights: all bytes or none.
  /// - Throws: `.fault` where the task itself could not write, `.waitForFrames` when other tasks must give frames back
  ///   first.
  public func writeMemory(_ task: TaskSlot, _ address: GuestAddress, _ bytes: Span<UInt8>) throws(CallFailure) {
    try state.withLock { (state) throws(CallFailure) in try state.writeMemory(task, address, bytes) }
  }

  /// The address, access and cause of the task's last PM_EFAULT; nil: the address was outside the task's half. Reading
  /// it clears it.
  public func takePointerFault(_ task: TaskSlot) -> (address: UInt64, access: Access, outcome: FaultOutcome)? {
    state.withLock { $0.tasks[task].pointerFault.take() }.map { ($0.address.rawValue, $0.access, $0.outcome) }
  }

  // MARK: The machine's own frames and background work

  /// Takes a zeroed frame for the machine itself; nil when none is left.
  public func takeMachineFrame() -> FrameNumber? {
    state.withLock { state in
      if let frame = state.takeMachineFrame() { return frame }
      state.releaseClosedSpaces()
      return state.takeMachineFrame()
    }
  }

  /// Takes a machine frame on behalf of a task; other tasks may have to give back extra frames first.
  /// - Parameter wait: as in `createTask`.
  /// - Returns: nil when there is no frame for it.
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

  /// Gives back a machine frame. Nothing may refer to it any more.
  public func giveMachineFrame(_ frame: FrameNumber) { state.withLock { $0.giveMachineFrame(frame) } }

  /// Frees the page tables that were kept for slots of ended tasks.
  public func releaseClosedSpaces() {
    while state.withLock({ state in
      let before = state.tables.used
      state.releaseClosedSpaces()
      return state.tables.used < before
    }) {}
  }

  /// Waits for a grace period: until no vCPU can access the frames that were given back or vacated before the call.
  func waitForGracePeriod() { state.waitForGracePeriod() }

  /// One step of ending grace periods; `TaskEvents.watchGracePeriods` asks for it. Kicks vCPUs that stay in
  /// the machine for long.
  /// - Returns: false when no grace period is left.
  public func watchGracePeriods() -> Bool { state.withLock(needed: 0) { $0.watchGracePeriods() } }

  /// Prezeroes some free frames and puts them in stock, up to `target` frames.
  /// - Returns: the frames, so that the caller can populate them; empty when there is nothing to do.
  public func zeroAhead(target: Int) -> [FrameRun] { state.withLock { $0.zeroAhead(target: target) } }

  /// Chooses a block of free frames for the caller to back with a huge page of the host; `zeroBlock` follows. The
  /// frames stay allocatable meanwhile.
  /// - Returns: nil when there is nothing to do.
  public func nextBlock() -> FrameRun? { state.withLock { $0.nextBlock() } }

  /// As `nextBlock`, limited by the recent demand for superpages.
  public func nextWantedBlock() -> FrameRun? { state.withLock { $0.nextWantedBlock() } }

  /// Zeroes some frames of such a block, and puts the block in stock once all are zero.
  /// - Returns: false while more steps are needed.
  public func zeroBlock(_ block: FrameRun) -> Bool { state.withLock { $0.zeroBlock(block) } }

  /// Promotes the region of 512 pages that contains `page` to a superpage. Its frames must be adjacent, aligned,
  /// resident and private to the task, and the region must not be backing off after a split. Takes about a millisecond
  /// with the lock held and flushes the translations of all tasks, so use it only for long-lived regions.
  /// - Parameters:
  ///   - task: the task that maps the region.
  ///   - page: any page of the region.
  ///   - collapse: makes a huge page of the host from the frames, without the lock; false: it failed.
  /// - Returns: whether a superpage was made.
  public func promote(_ task: TaskSlot, _ page: PageNumber, collapse: (FrameRun) -> Bool) -> Bool {
    guard let block = state.withLock({ $0.promotableBlock(task, page) }), collapse(block) else { return false }
    // The lock was released: check everything again.
    return state.withLock { $0.promoteIfPossible(task, page) }
  }

  /// Begins a pass of free page reporting over the frames that have stayed free since the last pass began;
  /// `giveBackIdleFrames` carries it out.
  public func beginIdlePass() {
    state.withLock { state in
      state.shrinkBlockStock()
      state.pool.beginIdlePass()
    }
  }

  /// Gives the memory of some idle frames back to the host.
  /// - Returns: the number of frames; 0: the pass is over.
  public func giveBackIdleFrames() -> Int { state.withLock { $0.giveBackIdleFrames() } }

  /// For measurements: charges a frame to a task and uncharges it, `times` times, as an allocation does.
  public func bookFrames(_ task: TaskSlot, times: Int) {
    state.withLock { state in
      for _ in 0..<times where state.headroom(task, extra: false) > 0 {
        guard (try? state.charge(task, 1)) != nil else { return }
        state.uncharge(task, 1)
      }
    }
  }

  /// For tests: unmaps a random frame from all tasks, as the server may at any time.
  /// - Returns: whether a frame was unmapped.
  public func revokeSomeFrame(_ random: UInt64) -> Bool { state.withLock { $0.revokeSomeFrame(random) } }

  /// The server's counters since it began, and its current holdings.
  public var statistics: ServerStatistics { state.withLock { $0.currentStatistics } }

  /// Checks all invariants. Walks the whole state: for tests and simulation only.
  /// - Returns: a sentence for each violation.
  public func checkInvariants() -> [String] { state.withLock { $0.violations() } }
}
