// The system registers that every task runs with, and how a vCPU first gets them.

internal import CKVM
internal import GuestMemory
internal import KVM

enum StartState {
  private static let cr0: UInt64 = 0x8005_0033  // PG AM WP NE ET MP PE
  private static let cr4: UInt64 = 1 << 5 | 1 << 9 | 1 << 10  // PAE OSFXSR OSXMMEXCPT
  private static let cr4FSGSBase: UInt64 = 1 << 16
  private static let cr4XSave: UInt64 = 1 << 18
  /// LME LMA NXE. Not SCE: `syscall` has nowhere to go, and is an invalid instruction.
  private static let efer: UInt64 = 1 << 8 | 1 << 10 | 1 << 11

  /// For vCPU `index`, which is fresh: what this machine does not care about stays as it is there.
  static func template(_ fresh: borrowing VirtualCPU, index: Int, machine: VirtualMachine) -> kvm_sregs {
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
    registers.ds = data
    registers.es = data
    registers.fs = data
    registers.gs = data
    registers.cr0 = cr0
    registers.cr4 = cr4
    if machine.extendedFeatures != 0 { registers.cr4 |= cr4XSave }
    if machine.hasFSGSBase { registers.cr4 |= cr4FSGSBase }
    registers.efer = efer
    registers.gdt.base = SupervisorArea.gdtAddress
    registers.gdt.limit = SupervisorArea.gdtLimit
    registers.idt.base = SupervisorArea.idtAddress
    registers.idt.limit = 0xfff
    registers.tr = taskRegister(index)
    return registers
  }

  private static func taskRegister(_ index: Int) -> kvm_segment {
    var tr = kvm_segment()
    tr.base = SupervisorArea.tssAddress(index)
    tr.limit = SupervisorArea.tssLimit
    tr.selector = SupervisorArea.taskState
    // A busy TSS, as `ltr` leaves it, and as VMX wants it. QEMU's translator looks at the I/O bitmap of an available one
    // only (check_io in target/i386/tcg/seg_helper.c), and SVM takes either.
    tr.type = HostProcessor.isEmulatedByQEMU ? 9 : 11
    tr.present = 1
    return tr
  }
}
