// One vCPU, confined to the thread that runs it.
//
// Registers are passed in the run area (KVM_CAP_SYNC_REGS): KVM stores them at every exit, and loads those
// marked as changed at the next KVM_RUN. That costs nothing measurable, while a vCPU ioctl costs microseconds.
// Source: Documentation/virt/kvm/api.rst, "vcpu ioctls" and 4.15 ff.

public import CKVM
internal import Glibc
internal import SystemPackage

// SAFETY: `run` points into the mapping that `handle` owns and keeps. Only the thread that owns this value reads
// or writes registers through it, and only while KVM_RUN is not in progress.
@safe
public struct VirtualCPU: ~Copyable {
  public let handle: VirtualCPUHandle
  private let descriptor: Int32
  private let run: UnsafeMutablePointer<kvm_run>

  /// `index`: unique in the machine for good, below KVM_CAP_MAX_VCPUS. If this throws it may be retried.
  public init(_ machine: VirtualMachine, index: Int) throws(KVMError) {
    let created = unsafe try Self.create(machine, index: index)
    descriptor = unsafe created.descriptor
    unsafe run = unsafe created.run
    handle = unsafe VirtualCPUHandle(
      run: run, byteCount: machine.runAreaSize, departures: machine.departures)
    unsafe run.pointee.kvm_valid_regs = CKVM_SYNC_REGS | CKVM_SYNC_SREGS
  }

  deinit { close(descriptor) }

  private static func create(
    _ machine: VirtualMachine, index: Int
  ) throws(KVMError) -> (descriptor: Int32, run: UnsafeMutablePointer<kvm_run>) {
    let descriptor = try machine.makeVCPU(index: index)
    do throws(KVMError) {
      try check(unsafe ckvm_ioctl(descriptor, CKVM_SET_CPUID2, machine.cpuid.pointer), "KVM_SET_CPUID2")
      try setExtendedFeatures(machine.extendedFeatures, descriptor)
      let area = unsafe mmap(nil, machine.runAreaSize, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
      guard let area = unsafe area, unsafe area != MAP_FAILED else {
        throw KVMError(call: "mmap of a vCPU", errno: Errno(rawValue: errno))
      }
      return unsafe (descriptor, area.bindMemory(to: kvm_run.self, capacity: 1))
    } catch {
      machine.keepUnfinished(descriptor, index: index)
      throw error
    }
  }

  // MARK: Registers at the last exit

  public var registers: kvm_regs {
    unsafeAddress { unsafe UnsafePointer(ckvm_sync_regs(run)) }
    nonmutating unsafeMutableAddress { unsafe ckvm_sync_regs(run) }
  }

  public var systemRegisters: kvm_sregs {
    unsafeAddress { unsafe UnsafePointer(ckvm_sync_sregs(run)) }
    nonmutating unsafeMutableAddress { unsafe ckvm_sync_sregs(run) }
  }

  /// Makes the next KVM_RUN load the general registers from `registers`.
  @inline(__always)
  public func useChangedRegisters() { unsafe run.pointee.kvm_dirty_regs |= CKVM_SYNC_REGS }

  /// Makes the next KVM_RUN load the system registers from `systemRegisters`.
  @inline(__always)
  public func useChangedSystemRegisters() { unsafe run.pointee.kvm_dirty_regs |= CKVM_SYNC_SREGS }

  // MARK: Running

  /// Runs the guest until it exits.
  @inline(__always)
  public func enter() throws(KVMError) -> VMExit {
    handle.visits.begin()
    let result = ckvm_run(descriptor)
    handle.visits.end()
    if result < 0 {
      guard result == -EINTR || result == -EAGAIN else {
        throw KVMError(call: "KVM_RUN", errno: Errno(rawValue: -result))
      }
      handle.setImmediateExit(false)
      return .interrupted
    }
    if unsafe run.pointee.exit_reason == UInt32(KVM_EXIT_IO) {
      let port = unsafe run.pointee.io.port
      return unsafe run.pointee.io.direction == UInt8(KVM_EXIT_IO_OUT)
        ? .portWrite(port: port) : .portRead(port: port)
    }
    return rareExit()
  }

  private func rareExit() -> VMExit {
    switch unsafe Int32(bitPattern: run.pointee.exit_reason) {
    case KVM_EXIT_IRQ_WINDOW_OPEN: .interruptWindow
    case KVM_EXIT_HLT: .halt
    case KVM_EXIT_SHUTDOWN: .shutdown
    case KVM_EXIT_MMIO:
      unsafe .memoryMappedIO(address: run.pointee.mmio.phys_addr, isWrite: run.pointee.mmio.is_write != 0)
    case KVM_EXIT_INTERNAL_ERROR: internalError
    case KVM_EXIT_FAIL_ENTRY:
      unsafe .failedEntry(reason: run.pointee.fail_entry.hardware_entry_failure_reason)
    default: unsafe .unknown(reason: run.pointee.exit_reason)
    }
  }

  /// After a failed emulation the processor's own exit reason follows a word of flags, which is zero without the
  /// instruction's bytes. Source: prepare_emulation_failure_exit in arch/x86/kvm/x86.c, Linux 5.17 and later.
  private var internalError: VMExit {
    let error = unsafe run.pointee.internal
    let svmIdentification: UInt64 = 0x72
    let isIdentification =
      error.suberror == UInt32(KVM_INTERNAL_ERROR_EMULATION) && error.ndata > 1 && error.data.0 == 0
      && error.data.1 == svmIdentification
    return isIdentification ? .identifiedOnly : .internalError(suberror: error.suberror)
  }

  /// Completes the last exit without running the guest: KVM advances past an `out` only at the next entry,
  /// and stores a string read from a port only then, through the address space of that moment.
  /// - Throws: also EBUSY, if it does not complete.
  public func completePendingExit() throws(KVMError) {
    for _ in 0..<16 {
      handle.setImmediateExit(true)
      if case .interrupted = try enter() { return }
    }
    throw KVMError(call: "KVM_RUN", errno: .resourceBusy)
  }

  // MARK: Interrupts

  /// Queues an external interrupt; only if `isReadyForInterrupt`.
  public func queueInterrupt(vector: UInt8) throws(KVMError) {
    var interrupt = kvm_interrupt()
    interrupt.irq = UInt32(vector)
    try check(unsafe ckvm_ioctl(descriptor, CKVM_INTERRUPT, &interrupt), "KVM_INTERRUPT")
  }

  /// At the last exit.
  public var isReadyForInterrupt: Bool { unsafe run.pointee.ready_for_interrupt_injection != 0 }

  /// Requests `.interruptWindow` as soon as the guest can take an interrupt.
  public func requestInterruptWindow(_ wanted: Bool) {
    unsafe run.pointee.request_interrupt_window = wanted ? 1 : 0
  }

  // MARK: Set-up and reset, never in a hot path

  /// Reads the system registers by ioctl into `systemRegisters`: the initial ones of a fresh vCPU.
  public func readSystemRegisters() throws(KVMError) {
    try check(unsafe ckvm_ioctl(descriptor, CKVM_GET_SREGS, ckvm_sync_sregs(run)), "KVM_GET_SREGS")
  }

  /// - Throws: also EINVAL, if KVM does not know the register.
  public func setModelSpecificRegister(_ index: UInt32, to value: UInt64) throws(KVMError) {
    let call = "KVM_SET_MSRS"
    guard try check(ckvm_set_msr(descriptor, index, value), call) == 1 else {
      throw KVMError(call: call, errno: .invalidArgument)
    }
  }

  /// Clears the task's vector, floating-point and debug registers and pending events. Every XSAVE component has its
  /// power-on value then, except PKRU, which KVM does not change.
  public func resetForNextTask() throws(KVMError) {
    requestInterruptWindow(false)
    var state = kvm_xsave()
    Self.setInitialExtendedState(&state)
    try check(unsafe ckvm_ioctl(descriptor, CKVM_SET_XSAVE, &state), "KVM_SET_XSAVE")
    var debug = kvm_debugregs()
    debug.dr6 = 0xffff_0ff0
    debug.dr7 = 0x400
    try check(unsafe ckvm_ioctl(descriptor, CKVM_SET_DEBUGREGS, &debug), "KVM_SET_DEBUGREGS")
    try forgetPendingEvents()
  }

  /// Removes queued exceptions and interrupts.
  public func forgetPendingEvents() throws(KVMError) {
    var events = kvm_vcpu_events()
    try check(unsafe ckvm_ioctl(descriptor, CKVM_SET_VCPU_EVENTS, &events), "KVM_SET_VCPU_EVENTS")
  }

  /// FCW = 0x37F and MXCSR = 0x1F80: Intel SDM volume 1, 13.6 "initial configuration". X87 and SSE are marked as in use
  /// (XSTATE_BV at byte 512); otherwise a kernel on a CPU without XSAVES keeps the last task's MXCSR: it copies
  /// MXCSR only for components in use (copy_uabi_to_xstate), and XRSTOR loads it for all (13.8.1).
  private static func setInitialExtendedState(_ state: inout kvm_xsave) {
    state.region.0 = 0x37f
    state.region.6 = 0x1f80
    state.region.128 = 0b11
  }

  private static func setExtendedFeatures(_ mask: UInt64, _ descriptor: Int32) throws(KVMError) {
    guard mask != 0 else { return }
    var registers = kvm_xcrs()
    registers.nr_xcrs = 1
    registers.xcrs.0.xcr = 0
    registers.xcrs.0.value = mask
    try check(unsafe ckvm_ioctl(descriptor, CKVM_SET_XCRS, &registers), "KVM_SET_XCRS")
  }
}
