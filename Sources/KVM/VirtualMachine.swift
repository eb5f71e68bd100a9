// One virtual machine: its memory slot and its vCPUs.
// Source: Documentation/virt/kvm/api.rst, "VM ioctls".

internal import CKVM
internal import Glibc
internal import SystemPackage
import Synchronization

public final class VirtualMachine: Sendable {
  let descriptor: Int32
  let runAreaSize: Int
  let cpuid: CPUIDTable
  /// Bit mask for XCR0: features that KVM supports and this machine offers to tasks.
  public let extendedFeatures: UInt64
  /// Whether tasks may set their FS and GS bases themselves.
  public let hasFSGSBase: Bool
  /// Whether SGDT, SIDT, SLDT, STR and SMSW can be forbidden to tasks (UMIP).
  public let hasInstructionPrevention: Bool
  /// Leaf 7, EBX, as offered to guests.
  public let processorFeatures: UInt32
  /// Counts the departures of vCPUs from KVM that `VirtualCPUHandle.hurry` requested.
  public let departures = VCPUDepartures()
  /// Descriptors of vCPUs whose set-up failed, by index. KVM creates an index only once: a retry reuses them.
  private let unfinished = Mutex<[Int: Int32]>([:])

  private static let memorySlot: UInt32 = 0
  private static let flushSlot: UInt32 = 1
  private static let settleSlot: UInt32 = 2
  /// KVM_MEM_LOG_DIRTY_PAGES.
  private static let logsWrites: UInt32 = 1
  /// An unused slot of one page; nil until it is first needed.
  private let settling = Mutex<kvm_userspace_memory_region?>(nil)

  public init(_ device: KVMDevice) throws(KVMError) {
    runAreaSize = try device.runAreaSize()
    cpuid = try device.supportedCPUID()
    extendedFeatures = cpuid.extendedFeatures
    processorFeatures = cpuid.leaf(7, 0)?.ebx ?? 0
    hasFSGSBase = processorFeatures & 1 != 0
    hasInstructionPrevention = (cpuid.leaf(7, 0)?.ecx ?? 0) & 1 << 2 != 0
    descriptor = try check(ckvm_ioctl_value(device.descriptor, CKVM_CREATE_VM, 0), "KVM_CREATE_VM")
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
  }

  deinit {
    if let slot = settling.withLock({ $0 }) { Self.unmapPage(slot.userspace_addr) }
    for unfinished in unfinished.withLock({ Array($0.values) }) { close(unfinished) }
    close(descriptor)
  }

  /// Makes `byteCount` bytes at `hostAddress` the guest-physical memory from address 0 on.
  public func setMemory(hostAddress: UInt64, byteCount: UInt64) throws(KVMError) {
    try setSlot(Self.memorySlot, at: 0, hostAddress: hostAddress, byteCount: byteCount)
  }

  /// A new vCPU's descriptor, or that of a failed attempt.
  func makeVCPU(index: Int) throws(KVMError) -> Int32 {
    if let descriptor = unfinished.withLock({ $0.removeValue(forKey: index) }) { return descriptor }
    return try check(ckvm_ioctl_value(descriptor, CKVM_CREATE_VCPU, UInt(index)), "KVM_CREATE_VCPU")
  }

  /// Keeps the descriptor of a vCPU whose set-up failed.
  func keepUnfinished(_ vcpu: Int32, index: Int) { unfinished.withLock { $0[index] = vcpu } }

  /// kHz of the time-stamp counter of new vCPUs; 0 if KVM does not report it.
  public var timestampFrequency: UInt64 { UInt64(max(0, ckvm_ioctl_value(descriptor, CKVM_GET_TSC_KHZ, 0))) }

  /// Makes KVM forget every translation and every cached page table of this machine, by adding and deleting a
  /// one-page slot at `unusedAddress` (about 1 ms). Needed only before a page-table page is reused for another purpose.
  public func flushTranslations(unusedAddress: UInt64) throws(KVMError) {
    let address = try Self.mapPage()
    defer { Self.unmapPage(address) }
    try setSlot(Self.flushSlot, at: unusedAddress, hostAddress: address, byteCount: 4096)
    try setSlot(Self.flushSlot, at: unusedAddress, hostAddress: address, byteCount: 0)
  }

  /// Waits until KVM has completed every emulation, on all vCPUs, that uses translations looked up before the call.
  /// KVM emulates within a read-side section of SRCU, which KVM_RUN leaves while the guest runs
  /// (vcpu_enter_guest in arch/x86/kvm/x86.c), and each change of a slot waits for such sections to end
  /// (kvm_swap_active_memslots in virt/kvm/kvm_main.c). Adding a slot or changing its flags drops no translation.
  /// Takes about 10 µs.
  /// - Parameter unusedAddress: the same in each call, and different from that of flushes.
  public func settle(unusedAddress: UInt64) throws(KVMError) {
    try settling.withLock { (slot) throws(KVMError) in
      var region = kvm_userspace_memory_region()
      region.slot = Self.settleSlot
      region.guest_phys_addr = unusedAddress
      region.memory_size = 4096
      if let slot {
        region.userspace_addr = slot.userspace_addr
        region.flags = slot.flags ^ Self.logsWrites
      } else {
        region.userspace_addr = try Self.mapPage()
      }
      slot = region
      try setSlot(region)
    }
  }

  private static func mapPage() throws(KVMError) -> UInt64 {
    guard
      let page = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe page != MAP_FAILED
    else { throw KVMError(call: "mmap", errno: Errno(rawValue: errno)) }
    return UInt64(UInt(bitPattern: page))
  }

  private static func unmapPage(_ address: UInt64) {
    unsafe munmap(UnsafeMutableRawPointer(bitPattern: UInt(address)), 4096)
  }

  private func setSlot(_ region: kvm_userspace_memory_region) throws(KVMError) {
    var region = region
    try check(unsafe ckvm_ioctl(descriptor, CKVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION")
  }

  private func setSlot(_ slot: UInt32, at address: UInt64, hostAddress: UInt64, byteCount: UInt64) throws(KVMError) {
    var region = kvm_userspace_memory_region()
    region.slot = slot
    region.guest_phys_addr = address
    region.memory_size = byteCount
    region.userspace_addr = hostAddress
    try setSlot(region)
  }
}

extension CPUIDTable {
  /// XCR0 bits of leaf 0xD that a task may use: x87, SSE, AVX and AVX-512. Others (AMX, PKRU) need more than a
  /// register save area in the guest library.
  var extendedFeatures: UInt64 {
    let allowed: UInt64 = 0b1110_0111
    guard let leaf = leaf(0xd, 0) else { return 0 }
    return (UInt64(leaf.edx) << 32 | UInt64(leaf.eax)) & allowed
  }

  func leaf(_ function: UInt32, _ index: UInt32) -> kvm_cpuid_entry2? {
    let count = unsafe Int(pointer.pointee.nent)
    let entries = unsafe ckvm_cpuid_entries(pointer)
    for position in 0..<count {
      let entry = unsafe entries[position]
      if entry.function == function && entry.index == index { return entry }
    }
    return nil
  }
}
