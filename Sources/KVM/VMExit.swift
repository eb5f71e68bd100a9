// Why KVM_RUN returned, as one closed enum.
// Source: Documentation/virt/kvm/api.rst, "The kvm_run structure".

public enum VMExit: Equatable, Sendable {
  /// A byte was written to an I/O port.
  case portWrite(port: UInt16)
  /// A port was read; nothing here does that.
  case portRead(port: UInt16)
  /// A signal, or `immediate_exit`: look at the mailbox.
  case interrupted
  /// The vCPU can take an interrupt now, as asked for.
  case interruptWindow
  case halt
  /// A triple fault.
  case shutdown
  /// An access to guest-physical memory that no slot holds.
  case memoryMappedIO(address: UInt64, isWrite: Bool)
  /// CPUID was carried out, and its results are in the registers, but the instruction pointer is still at it: on SVM
  /// without NRIPS, KVM fetches an instruction a second time to learn its length, and the page had gone meanwhile.
  /// Source: __svm_skip_emulated_instruction in arch/x86/kvm/svm/svm.c.
  case identifiedOnly
  /// KVM could not emulate an instruction.
  case internalError(suberror: UInt32)
  case failedEntry(reason: UInt64)
  case unknown(reason: UInt32)
}
