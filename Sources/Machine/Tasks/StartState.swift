// The system registers that every task runs with, and how a vCPU first gets them.

internal import CKVM
internal import GuestMemory
internal import KVM

/// The initial system registers and MSRs of a vCPU.
enum StartState {
  private static let cr0: UInt64 = 0x8005_0033  // PG AM WP NE ET MP PE
  private static let cr4: UInt64 = 1 << 5 | 1 << 9 | 1 << 10  // PAE OSFXSR OSXMMEXCPT
  private static let cr4InstructionPrevention: UInt64 = 1 << 11  // UMIP
  private static let cr4FSGSBase: UInt64 = 1 << 16
  private static let cr4XSave: UInt64 = 1 << 18
  private static let cr4ProtectionKeys: UInt64 = 1 << 22
  /// LME LMA NXE, without SCE: `syscall` is an invalid instruction if the processor uses this value. A KVM that runs
  /// tasks with the host's own EFER sends `syscall` to `SupervisorArea.systemCallEntry`, and the task ends the same
  /// way.
  private static let efer: UInt64 = 1 << 8 | 1 << 10 | 1 << 11

  /// The registers for the fresh vCPU `index`. Fields that this machine does not set keep their reset values.
  static func template(
    _ fresh: borrowing VirtualCPU, index: Int, machine: VirtualMachine, protectionKeys: Bool
  ) -> kvm_sregs {
    var registers = fresh.systemRegisters
    var code = kvm_segment()
    code.limit = ~0
    code.selector = SupervisorArea.userCode
    code.present = 1
    code.type = 11
    code.dpl = 3
    code.s = 1
    code.l = 1
    code.g = 1
    var data = code
    data.selector = SupervisorArea.userData
    data.type = 3
    data.l = 0
    data.db = 1
    registers.cs = code
    registers.ss = data
    // Null selectors, as the host's threads have: tasks then see the same on a KVM that exposes the thread's own
    // selectors.
    var null = kvm_segment()
    null.unusable = 1
    registers.ds = null
    registers.es = null
    registers.fs = null
    registers.gs = null
    registers.cr0 = cr0
    registers.cr4 = cr4
    if machine.extendedFeatures != 0 { registers.cr4 |= cr4XSave }
    if machine.hasFSGSBase { registers.cr4 |= cr4FSGSBase }
    if machine.hasInstructionPrevention { registers.cr4 |= cr4InstructionPrevention }
    if protectionKeys { registers.cr4 |= cr4ProtectionKeys }
    registers.efer = efer
    registers.gdt.base = SupervisorArea.gdtAddress
    registers.gdt.limit = SupervisorArea.gdtLimit
    registers.idt.base = SupervisorArea.idtAddress
    registers.idt.limit = 0xfff
    registers.tr = taskRegister(index)
    return registers
  }

  /// Sets the MSRs of a fresh vCPU once: no task can change them.
  static func setModelSpecificRegisters(_ cpu: borrowing VirtualCPU, processorNumber: UInt32) throws(KVMError) {
    let (lstar, sfmask, tscAux): (UInt32, UInt32, UInt32) = (0xc000_0082, 0xc000_0084, 0xc000_0103)
    try cpu.setModelSpecificRegister(lstar, to: SupervisorArea.systemCallEntry)
    // Masks TF: a debug trap would otherwise precede the fault that reports the `syscall`.
    try cpu.setModelSpecificRegister(sfmask, to: 1 << 8)
    // A processor without RDTSCP and RDPID lacks this register.
    try? cpu.setModelSpecificRegister(tscAux, to: UInt64(processorNumber))
  }

  private static func taskRegister(_ index: Int) -> kvm_segment {
    var tr = kvm_segment()
    tr.base = SupervisorArea.tssAddress(index)
    tr.limit = SupervisorArea.tssLimit
    tr.selector = SupervisorArea.taskState
    // A busy TSS, as `ltr` leaves it and VMX requires it. QEMU's TCG consults the I/O bitmap of an available TSS only
    // (check_io in target/i386/tcg/seg_helper.c). SVM accepts either type.
    tr.type = HostProcessor.isEmulatedByQEMU ? 9 : 11
    tr.present = 1
    return tr
  }
}
