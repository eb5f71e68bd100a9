// One task on one vCPU: run, decode, dispatch, resume, until the task ends.

internal import CGuestABI
internal import CKVM
internal import GuestMemory
internal import KVM
internal import PhysicalMemory

/// What the loop does after a handler.
enum Continuation {
  case resume
  case end(TaskEnd)
}

/// The loop of one task on its vCPU. Handlers of exits are extensions of it.
struct VCPULoop: ~Copyable {
  /// IF, and bit 1, which is always set.
  static let userFlags: UInt64 = 0x202

  var cpu: VirtualCPU
  let page: VCPUPage
  /// The system registers of every task on this vCPU, except CR3.
  let template: kvm_sregs
  let machine: Machine
  let task: GuestTask
  var handler = FaultHandlerState()
  var upcall = UpcallState()
  /// Number of pages filled in by the last fault, for `samples`.
  var samplePages = 0
  var samples = ExitSamples()

  init(cpu: consuming VirtualCPU, page: VCPUPage, template: kvm_sregs, machine: Machine, task: GuestTask) {
    self.cpu = cpu
    self.page = page
    self.template = template
    self.machine = machine
    self.task = task
  }

  /// Runs the task from its entry point to its end.
  mutating func run() -> TaskEnd {
    let reason = task.attach(cpu.handle)
    defer { task.detach() }
    if let reason { return .stopped(reason) }
    setStartRegisters()
    do throws(KVMError) {
      return task.isMeasured ? try measuredLoop() : try loop()
    } catch {
      return .failed("\(error)")
    }
  }

  /// Returns the vCPU, for the next task.
  consuming func finish() -> VirtualCPU { cpu }

  private mutating func loop() throws(KVMError) -> TaskEnd {
    while true {
      let exit = try cpu.enter()
      let event = ExitDecoder.decode(exit, cpu, page)
      if case .end(let end) = dispatch(event) { return end }
    }
  }

  /// Like `loop`, and records the time from the end of one exit's service to the end of the next.
  private mutating func measuredLoop() throws(KVMError) -> TaskEnd {
    samples = ExitSamples(start: task.launchTime)
    while true {
      let exit = try cpu.enter()
      let exitTime = monotonicNanoseconds()
      let event = ExitDecoder.decode(exit, cpu, page)
      let continuation = dispatch(event)
      samples.record(event, pages: samplePages, exit: exitTime, now: monotonicNanoseconds())
      if case .end(let end) = continuation {
        task.keep(samples)
        return end
      }
    }
  }

  @inline(__always)
  private mutating func dispatch(_ event: GuestEvent) -> Continuation {
    switch event {
    case .pageFault(let frame, let address): handlePageFault(frame, address)
    case .call: handleCall()
    case .rare(let event): dispatchRare(event)
    }
  }

  private mutating func dispatchRare(_ event: RareEvent) -> Continuation {
    switch event {
    case .exception(let vector, let frame):
      resume(after: frame)
      return .end(.died(report(.exception(vector: vector, errorCode: frame.errorCode))))
    case .kicked: return endIfStopped() ?? announceUpcall()
    case .interruptWindow:
      cpu.requestInterruptWindow(false)
      return announceUpcall()
    case .interrupt(let frame):
      resume(after: frame)
      if let failure = forgetDelivered() { return failure }
      return takeUpcall()
    case .failure(.identifiedOnly):
      // CPUID is two bytes long without prefixes, which compilers do not emit. It must not run again: its results have
      // overwritten its arguments.
      cpu.registers.rip &+= 2
      cpu.useChangedRegisters()
      return .resume
    case .failure(.portRead):
      // The I/O bitmap cannot permit writes to the call port without permitting reads.
      return .end(.died(report(.exception(vector: 13, errorCode: 0))))
    case .failure(let exit):
      return .end(.failed("the vCPU stopped: \(exit)"))
    }
  }

  /// The task's end, if its signal says that it must end.
  mutating func endIfStopped() -> Continuation? {
    switch task.stopReason {
    case nil: nil
    case .dropped(let missing): .end(.died(report(.dropped(missing: missing))))
    case .some(let reason): .end(.stopped(reason))
    }
  }

  /// Sets the registers as abi.h specifies for a new task, and clears all others.
  private mutating func setStartRegisters() {
    var registers = kvm_regs()
    registers.rip = task.entry
    registers.rsp = task.initialStack.pointer
    registers.rdi = UInt64(task.initialStack.argumentCount)
    registers.rsi = task.initialStack.arguments
    registers.rdx = machine.timestampFrequency
    if !task.keepsMappings { registers.rcx |= UInt64(PM_START_NO_MAPPING_CACHE) }
    if machine.configuration.revocationInterval != nil { registers.rcx |= UInt64(PM_START_REVOKES) }
    if machine.configuration.movesContents { registers.rcx |= UInt64(PM_START_MOVES) }
    registers.rflags = Self.userFlags
    cpu.registers = registers
    cpu.systemRegisters = template
    cpu.systemRegisters.cr3 = machine.roots[task.slot].address
    cpu.useChangedRegisters()
    cpu.useChangedSystemRegisters()
  }
}
