// /dev/kvm: the host's capabilities, and new virtual machines.
// Source: Documentation/virt/kvm/api.rst, "System ioctls".

internal import CKVM
internal import Glibc
public import SystemPackage

public final class KVMDevice: Sendable {
  let descriptor: Int32

  /// Opens /dev/kvm. ENOENT: this kernel has no KVM; EACCES: no permission.
  public init() throws(Errno) {
    // SAFETY: the path is a literal.
    descriptor = unsafe ckvm_open("/dev/kvm", O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else { throw Errno(rawValue: -descriptor) }
  }

  deinit { close(descriptor) }

  /// 12 on every supported kernel.
  public var apiVersion: Int { Int(ckvm_ioctl_value(descriptor, CKVM_GET_API_VERSION, 0)) }

  /// The value of a capability: 0 if it is missing, else 1 or a value of its own.
  public func capability(_ capability: Capability) -> Int {
    max(0, Int(ckvm_ioctl_value(descriptor, CKVM_CHECK_EXTENSION, UInt(capability.rawValue))))
  }

  /// Whether KVM can give guests protection keys: leaf 7, ECX bit 3.
  public var hasProtectionKeys: Bool { ((try? supportedCPUID())?.leaf(7, 0)?.ecx ?? 0) & 1 << 3 != 0 }

  /// Bytes of a vCPU's shared run area.
  func runAreaSize() throws(KVMError) -> Int {
    Int(try check(ckvm_ioctl_value(descriptor, CKVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"))
  }

  /// The CPUID leaves that KVM can offer to a guest.
  func supportedCPUID() throws(KVMError) -> CPUIDTable {
    let table = CPUIDTable()
    try check(unsafe ckvm_ioctl(descriptor, CKVM_GET_SUPPORTED_CPUID, table.pointer), "KVM_GET_SUPPORTED_CPUID")
    return table
  }
}

/// Capabilities that this project checks, by the kernel's numbers (KVM_CAP_…).
public enum Capability: Int32, CaseIterable, Sendable {
  case userMemory = 3
  case extendedCPUID = 7
  case recommendedVCPUs = 9
  case memorySlots = 10
  case xsave = 55
  case extendedControlRegisters = 56
  case tscFrequency = 61
  case maximumVCPUs = 66
  case syncRegisters = 74
  case immediateExit = 136

  public var name: String {
    switch self {
    case .userMemory: "KVM_CAP_USER_MEMORY"
    case .extendedCPUID: "KVM_CAP_EXT_CPUID"
    case .recommendedVCPUs: "KVM_CAP_NR_VCPUS"
    case .memorySlots: "KVM_CAP_NR_MEMSLOTS"
    case .xsave: "KVM_CAP_XSAVE"
    case .extendedControlRegisters: "KVM_CAP_XCRS"
    case .tscFrequency: "KVM_CAP_GET_TSC_KHZ"
    case .maximumVCPUs: "KVM_CAP_MAX_VCPUS"
    case .syncRegisters: "KVM_CAP_SYNC_REGS"
    case .immediateExit: "KVM_CAP_IMMEDIATE_EXIT"
    }
  }
}

// SAFETY: owns one allocation of header plus `capacity` entries, freed in deinit; KVM writes at most `nent`.
@safe
final class CPUIDTable: Sendable {
  static let capacity = 256
  nonisolated(unsafe) let pointer: UnsafeMutablePointer<kvm_cpuid2>

  init() {
    let size = MemoryLayout<kvm_cpuid2>.size + Self.capacity * MemoryLayout<kvm_cpuid_entry2>.stride
    let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    unsafe memset(memory, 0, size)
    unsafe pointer = unsafe memory.bindMemory(to: kvm_cpuid2.self, capacity: 1)
    unsafe pointer.pointee.nent = UInt32(Self.capacity)
  }

  deinit { unsafe pointer.deallocate() }
}
