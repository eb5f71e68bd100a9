// What the processor says of itself to this process, apart from what KVM says of the guests' one.

internal import CKVM

public enum HostProcessor {
  /// Whether instructions are carried out by QEMU's translator (`-accel tcg`), which differs from hardware in places.
  /// Source: CPUID leaves 1 (ECX bit 31) and 0x40000000.
  public static let isEmulatedByQEMU = ckvm_cpu_is_tcg() != 0

  /// Whether programs of this host may execute WRPKRU: leaf 7, ECX bit 4 (OSPKE).
  public static let hasProtectionKeys = ckvm_cpuid(0).a >= 7 && ckvm_cpuid(7).c & 1 << 4 != 0

  /// Makes the calling thread's data selectors null, as they were when it began. A KVM without hardware support runs
  /// guests with the thread's own ones, and a task finds there what the last one on the thread left.
  public static func clearSelectors() { ckvm_clear_selectors() }
}
