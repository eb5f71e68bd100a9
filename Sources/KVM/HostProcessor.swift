// The processor as this process sees it, as opposed to the one that KVM offers to guests.

internal import CKVM

public enum HostProcessor {
  /// Whether QEMU's translator (`-accel tcg`) executes instructions, which differs from hardware in places.
  /// Source: CPUID leaves 1 (ECX bit 31) and 0x40000000.
  public static let isEmulatedByQEMU = ckvm_cpu_is_tcg() != 0

  /// Whether programs of this host may execute WRPKRU: leaf 7, ECX bit 4 (OSPKE).
  public static let hasProtectionKeys = ckvm_cpuid(0).a >= 7 && ckvm_cpuid(7).c & 1 << 4 != 0

  /// Makes the calling thread's data selectors null, as at its start. A KVM without hardware support runs
  /// guests with the thread's selectors, so that a task would see those of the previous one.
  public static func clearSelectors() { ckvm_clear_selectors() }
}
