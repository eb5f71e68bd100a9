// The reasons for KVM_RUN to return, as one closed enum.
// Source: Documentation/virt/kvm/api.rst, "The kvm_run structure".

public enum VMExit: Equatable, Sendable {
  /// A byte was written to an I/O port.
  case portWrite(port: UInt16)
  /// A port was read; tasks cannot do that.
  case portRead(port: UInt16)
  /// A signal, or `immediate_exit`: check the mailbox.
  case interrupted
  /// The vCPU can take an interrupt now, as requested.
  case interruptWindow
  case halt
  /// A triple fault.
  case shutdown
  /// An access to guest-physical memory outside the slots.
  case memoryMappedIO(address: UInt64, isWrite: Bool)
  /// CPUID has executed, and its results are in the registers, but RIP still points at it: on SVM
  /// without NRIPS, KVM fetches an instruction a second time for its length, and the page was unmapped meanwhile.
  /// Source: __svm_skip_emulated_instruction in arch/x86/kvm/svm/svm.c.
  case identifiedOnly
  /// KVM could not emulate an instruction.
  case internalError(suberror: UInt32)
  case failedEntry(reason: UInt64)
  case unknown(reason: UInt32)
}
