// The machine: one KVM virtual machine whose memory is the frame pool, its server, and its vCPUs.
//
//      Machine ── launch ──▶ PhysicalMemoryServer.createTask ──▶ VCPUPool ──▶ VCPURunner ──▶ VCPULoop
//      VCPULoop: enter ──▶ ExitDecoder ──▶ PageFaultHandler | CallHandler ──▶ PhysicalMemoryServer

internal import CGuestABI
internal import Glibc
package import GuestMemory
internal import KVM
public import PhysicalMemory
internal import SystemPackage
import Synchronization

/// A KVM virtual machine with its memory server, vCPUs and devices. `shutDown` must be called before the last reference
/// goes.
public final class Machine: Sendable {
  /// As given at creation.
  public let configuration: MachineConfiguration
  /// The memory server of this machine.
  public let server: PhysicalMemoryServer
  /// Frequency of the time-stamp counter that tasks read, in kHz.
  let timestampFrequency: UInt64
  let virtualMachine: VirtualMachine
  let supervisor: SupervisorArea
  let roots: RootTable
  /// How vCPU threads wait for one another.
  let waiting: WaitingThreads
  let devices: Devices
  let consoles = ConsoleThreads()
  private let signals: TaskSignals
  private let device: KVMDevice
  private let memory: PoolMemory
  private let vcpus = VCPUPool()
  private let preparation = FramePreparation()
  private let revoker = Revoker()
  private let mover = Revoker()
  private let idleMemory = IdleMemory()
  private let defragmentation = BackgroundDefragmentation()
  private let tasks = TaskList()
  /// Held during shutdown.
  private let ending = Mutex(())

  /// Makes the machine and starts its background threads. `shutDown` must be called before the last reference goes.
  /// - Parameter configuration: its `memory` must be within `leastMemory` and `mostMemory`.
  /// - Throws: `MachineError.noKVM`, `.missingCapability`, `.kvm`, `.system` or `.noAddressSpace`.
  public init(_ configuration: MachineConfiguration = MachineConfiguration()) throws(MachineError) {
    precondition((MachineConfiguration.leastMemory...MachineConfiguration.mostMemory).contains(configuration.memory))
    self.configuration = configuration
    let frameCount = configuration.memory >> 12
    device = try Self.openDevice()
    do throws(Errno) {
      memory = try PoolMemory(frameCount: frameCount)
    } catch {
      throw .system("making the pool", error)
    }
    do throws(KVMError) {
      virtualMachine = try VirtualMachine(device)
      try virtualMachine.setMemory(hostAddress: memory.guestWindowAddress, byteCount: UInt64(memory.byteCount))
    } catch {
      throw .kvm(error)
    }
    timestampFrequency = virtualMachine.timestampFrequency
    VirtualCPUHandle.installKickHandler()
    supervisor = SupervisorArea(memory)
    roots = RootTable(capacity: SupervisorArea.maximumVCPUs)
    signals = TaskSignals(capacity: SupervisorArea.maximumVCPUs)
    let preparation = preparation
    let operations = GuestPageTables(
      memory: memory, machine: virtualMachine, capacity: SupervisorArea.maximumVCPUs, roots: roots, signals: signals,
      wantZeroedFrames: { preparation.wake() })
    do {
      server = try PhysicalMemoryServer(
        frameCount: frameCount, reserved: SupervisorArea.reservedFrames, taskCapacity: SupervisorArea.maximumVCPUs,
        stock: configuration.stock, blocks: configuration.blocks, reclaim: configuration.reclaim,
        operations: operations, departures: MachineDepartures(virtualMachine.departures),
        measuresHolds: configuration.measuresHolds)
    } catch {
      throw Self.noAddressSpace(error)
    }
    let waiting = WaitingThreads()
    self.waiting = waiting
    let (memory, server, signals) = (memory, server, signals)
    devices = Devices(
      configuration.disks.enumerated().map { number, disk in
        BlockDevice(number, disk, pool: memory, server: server, signals: signals, waiting: waiting)
      })
    if configuration.isPopulated { try populate() }
    try startThreads()
  }

  private static func noAddressSpace(_ error: ReservationError) -> MachineError {
    var limit = rlimit()
    // SAFETY: writes to a local variable that outlives the call. glibc's constant is an enumeration of another type.
    let isLimited =
      unsafe getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 && limit.rlim_cur < UInt64(Int.max)
    return .noAddressSpace(bytes: error.byteCount, limit: isLimited ? Int(limit.rlim_cur) : nil)
  }

  private static func openDevice() throws(MachineError) -> KVMDevice {
    let device: KVMDevice
    do throws(Errno) { device = try KVMDevice() } catch { throw .noKVM(error) }
    guard device.apiVersion == 12 else { throw .missingCapability("API version 12") }
    for capability in [Capability.userMemory, .immediateExit, .extendedCPUID, .xsave] {
      guard device.capability(capability) > 0 else { throw .missingCapability(capability.name) }
    }
    guard device.capability(.syncRegisters) & 3 == 3 else { throw .missingCapability(Capability.syncRegisters.name) }
    return device
  }

  private func populate() throws(MachineError) {
    do throws(Errno) {
      try memory.populate(FrameRun(start: FrameNumber(0), count: memory.frameCount))
    } catch {
      throw .system("populating the pool", error)
    }
  }

  private func startThreads() throws(MachineError) {
    do throws(Errno) {
      try preparation.start(server: server, memory: memory, target: configuration.stock)
      if let interval = configuration.revocationInterval {
        try revoker.start(interval: max(1, interval), seed: monotonicNanoseconds()) { [server] in
          _ = server.revokeSomeFrame($0)
        }
      }
      if let interval = configuration.moveInterval {
        try mover.start(interval: max(1, interval), seed: monotonicNanoseconds()) { [server] in
          _ = server.moveSomeFrame($0)
        }
      }
      if configuration.defragmentation != .never {
        let promote: @Sendable (TaskSlot, PageNumber) -> Bool = { [server, memory] task, page in
          server.promote(task, page) { block in (try? memory.collapse(block)) != nil }
        }
        try defragmentation.start(
          server: server, mode: configuration.defragmentation, promote: configuration.blocks > 0 ? promote : nil)
      }
      if configuration.framesGivenBackASecond > 0, !configuration.isPopulated {
        try idleMemory.start(server: server, limit: configuration.framesGivenBackASecond)
      }
      try devices.start()
    } catch {
      devices.stop()
      defragmentation.stop()
      idleMemory.stop()
      mover.stop()
      revoker.stop()
      preparation.stop()
      throw .system("pthread_create", error)
    }
  }

  /// Fills the stock of zeroed, populated frames; for measurements.
  public func prepareFrames() {
    FramePreparation.fillStock(server: server, memory: memory, target: configuration.stock)
    // If the host has no huge pages, there are no superpages.
    try? FramePreparation.readyBlocks(server: server, memory: memory, next: server.nextBlock)
  }

  /// Makes a superpage of the region of 512 pages at `page`, backed by a huge page of the host, if its frames are in
  /// order. Takes several milliseconds.
  /// - Returns: whether the region is a superpage now.
  package func promote(_ slot: TaskSlot, _ page: PageNumber) -> Bool {
    server.promote(slot, page) { block in (try? memory.collapse(block)) != nil }
  }

  /// Whether the host can back the pool with huge pages.
  package var hasHugePages: Bool {
    let memory = try? PoolMemory(frameCount: PoolMemory.framesPerBlock)
    return (try? memory?.collapse(FrameRun(start: FrameNumber(0), count: PoolMemory.framesPerBlock))) != nil
  }

  // The processor features that tasks see.

  package var processorFeatures: UInt32 { virtualMachine.processorFeatures }
  package var extendedFeatures: UInt64 { virtualMachine.extendedFeatures }
  package var userCodeSelector: UInt32 { UInt32(SupervisorArea.userCode) }

  /// For measurements: the cost of checking a task's entitlement and charging a frame, while the server holds `tasks`
  /// tasks.
  /// - Returns: nanoseconds, one mean for each of `rows` runs; nil if that many tasks cannot be created.
  package func entitlementCosts(_ program: Program, tasks: Int, rows: Int) -> [Double]? {
    var slots: [TaskSlot] = []
    defer { for slot in slots { server.endTask(slot) } }
    while slots.count < tasks, let task = try? server.createTask(program.number, TaskParameters()) {
      slots.append(task.slot)
    }
    guard let slot = slots.last, slots.count == tasks else { return nil }
    let length = 10_000
    return (0..<rows).map { _ in
      let start = monotonicNanoseconds()
      server.bookFrames(slot, times: length)
      return Double(monotonicNanoseconds() - start) / Double(length)
    }
  }

  /// For measurements: drops KVM's translations of all frames, 4,096 at a time, as a revocation would.
  /// - Returns: nanoseconds.
  package func zapEverything() -> UInt64 {
    let start = monotonicNanoseconds()
    for first in stride(from: 0, to: memory.frameCount, by: 4096) {
      memory.zap(FrameRun(start: FrameNumber(UInt32(first)), count: min(4096, memory.frameCount - first)))
    }
    return monotonicNanoseconds() - start
  }

  /// For measurements: makes KVM forget all translations, with nothing else running.
  /// - Returns: nanoseconds; nil if KVM lacks memory for it.
  package func flushEverything() -> UInt64? {
    let start = monotonicNanoseconds()
    guard (try? virtualMachine.flushTranslations(unusedAddress: UInt64(memory.byteCount))) != nil else { return nil }
    return monotonicNanoseconds() - start
  }

  /// For measurements: moves all contents out of the pool's first half.
  /// - Returns: frames moved, and nanoseconds.
  package func moveEverything() -> (frames: Int, nanoseconds: UInt64) {
    var position = 0
    var frames = 0
    let start = monotonicNanoseconds()
    while position < memory.frameCount / 2, let moved = server.moveNextFrames(&position) { frames += moved }
    return (frames, monotonicNanoseconds() - start)
  }

  /// For measurements: moves the contents of one step.
  package func moveSome() {
    var position = 0
    _ = server.moveNextFrames(&position)
  }

  /// Returns the memory of all free frames to the host now; for measurements.
  /// - Returns: number of frames.
  @discardableResult
  public func giveBackFreeMemory() -> Int {
    // Frames freed recently are young in the first pass and old in the second.
    (0..<2).reduce(0) { sum, _ in sum + IdleMemory.pass(server: server, limit: .max) }
  }

  // MARK: Programs and tasks

  /// Launches a task of a loaded program.
  /// - Parameters:
  ///   - program: loaded by this machine.
  ///   - arguments: argv without its first element, which is the program's name.
  ///   - parameters: the task's entitlement and name.
  ///   - isMeasured: record how long each exit takes.
  ///   - console: receives the task's output.
  /// - Throws: `MachineError.argumentsTooLong`, `.tooManyTasks`, `.overcommitted`, `.guaranteeTooSmall`, `.tooSmall`,
  ///   `.noMemory`, `.kvm`, `.system` or `.shutDown`.
  public func launch(
    _ program: Program, arguments: [String] = [], parameters: TaskParameters = TaskParameters(),
    isMeasured: Bool = false, console: @escaping Console
  ) throws(MachineError) -> GuestTask {
    try launch(
      program, byteArguments: arguments.map { Array($0.utf8) }, parameters: parameters, isMeasured: isMeasured,
      console: console)
  }

  /// Launches a task with arguments that need not be UTF-8.
  /// - Parameters:
  ///   - program: loaded by this machine.
  ///   - byteArguments: argv without its first element, without NULs.
  ///   - parameters: the task's entitlement and name.
  ///   - isMeasured: record how long each exit takes.
  ///   - console: receives the task's output.
  /// - Throws: as the other `launch`.
  public func launch(
    _ program: Program, byteArguments: [[UInt8]], parameters: TaskParameters = TaskParameters(),
    isMeasured: Bool = false, console: @escaping Console
  ) throws(MachineError) -> GuestTask {
    let launchTime = monotonicNanoseconds()
    guard let stack = InitialStack([program.argument] + byteArguments) else {
      throw .argumentsTooLong(limit: InitialStack.maximumByteCount)
    }
    var named = parameters
    if named.name.isEmpty {
      named.name = String(decoding: program.argument.split(separator: UInt8(ascii: "/")).last ?? [], as: UTF8.self)
    }
    let (slot, id) = try createTask(program, named)
    do throws(CallFailure) {
      try server.writeMemory(slot, GuestAddress(stack.pointer), stack.bytes.span)
    } catch {
      server.endTask(slot)
      throw .noMemory("the arguments")
    }
    let task = GuestTask(
      id: id, slot: slot, program: program, initialStack: stack, console: console, signal: signals[slot],
      launchTime: launchTime, isMeasured: isMeasured, keepsMappings: parameters.keepsMappings)
    do throws(MachineError) {
      guard tasks.add(task) else { throw .shutDown }
      try vcpus.start(task, on: self)
    } catch {
      server.endTask(slot)
      tasks.remove(task)
      // A concurrent shutdown may be waiting for this task.
      task.finish(.failed("\(error)"))
      throw error
    }
    return task
  }

  private func createTask(
    _ program: Program, _ parameters: TaskParameters
  ) throws(MachineError) -> (slot: TaskSlot, id: TaskID) {
    do throws(CallFailure) {
      return try server.createTask(program.number, parameters) { slot, until in signals[slot].gate.wait(until: until) }
    } catch {
      let statistics = server.statistics
      let available = statistics.allocatableFrames - statistics.claimedFrames
      if statistics.tasks >= SupervisorArea.maximumVCPUs { throw .tooManyTasks(SupervisorArea.maximumVCPUs) }
      if parameters.guaranteed > available {
        throw .overcommitted(guaranteed: parameters.guaranteed, available: available)
      }
      let needed = program.image.frameCount
      if parameters.hasContract, !parameters.mayUseExtra, parameters.guaranteed < needed {
        throw .guaranteeTooSmall(name: program.name, needed: needed, guaranteed: parameters.guaranteed)
      }
      throw frameFailure(program.name, program.image, needed: needed, available: available)
    }
  }

  /// Removes a task that has ended. Called by its vCPU's thread.
  func taskEnded(_ task: GuestTask) { tasks.remove(task) }

  /// Stops every task, waits for their ends, and ends all threads. No task can be launched afterwards; the server's
  /// statistics can still be read. May be called repeatedly, from any thread except those that call consoles; each call
  /// returns when the shutdown is complete.
  public func shutDown() {
    ending.withLock { _ in
      let left = tasks.close()
      for task in left { task.stop(.machineEnd) }
      for task in left { _ = task.wait() }
      vcpus.close()
      consoles.close()
      devices.stop()
      defragmentation.stop()
      idleMemory.stop()
      mover.stop()
      revoker.stop()
      preparation.stop()
    }
  }
}
