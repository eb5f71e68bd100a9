// What the processor says of itself to this process, apart from what KVM says of the guests' one.

internal import CKVM

public enum HostProcessor {
  /// Whether instructions are carried out by QEMU's translator (`-accel tcg`), which differs from hardware in places.
  /// Source: CPUID leaves 1 (ECX bit 31) and 0x40000000.
  public static let isEmulatedByQEMU = ckvm_cpu_is_tcg() != 0
}
