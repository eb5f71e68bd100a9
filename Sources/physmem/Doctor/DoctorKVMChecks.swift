// Whether there is a KVM, with the capabilities that the machine needs.

internal import KVM
internal import SystemPackage

/// The device, its interface and its paging.
func kvmChecks(_ facts: DoctorFacts) -> [DoctorCheck] {
  let paging = pagingCheck(facts)
  switch facts.openKVM() {
  case .failure(let error): return [unopened(error, facts), paging]
  case .success(let kvm):
    return [.ok("/dev/kvm", "can be opened"), apiCheck(kvm), machineCheck(kvm), paging] + translatorCheck(facts)
      + capabilityChecks(kvm) + [shownCheck(kvm)]
  }
}

private let device = "/dev/kvm"

private func unopened(_ error: Errno, _ facts: DoctorFacts) -> DoctorCheck {
  switch error {
  case .noSuchFileOrDirectory, .noSuchAddressOrDevice, .operationNotSupportedByDevice:
    .missing(device, error == .noSuchFileOrDirectory ? "does not exist" : "has no driver", advice: loadAdvice(facts))
  case .permissionDenied, .notPermitted:
    .missing(
      device,
      "may not be opened by this user",
      advice: "add yourself to the kvm group (sudo usermod -aG kvm $USER) and log in again; "
        + "in a container, pass it --device /dev/kvm"
    )
  default: .missing(device, "cannot be opened: \(error)", advice: "see what the kernel log says of kvm (dmesg)")
  }
}

/// How to get a /dev/kvm, as far as the CPU's flags show.
private func loadAdvice(_ facts: DoctorFacts) -> String {
  let flags = facts.value(of: "flags", in: "/proc/cpuinfo")?.split(separator: " ") ?? []
  if flags.contains("vmx") { return "load kvm_intel (sudo modprobe kvm_intel); in a container, pass --device /dev/kvm" }
  if flags.contains("svm") { return "load kvm_amd (sudo modprobe kvm_amd); in a container, pass --device /dev/kvm" }
  return "load kvm_intel or kvm_amd, or enable virtualization: in the firmware (VT-x, AMD-V), or if this is "
    + "a virtual machine, nested virtualization on its host"
}

private func apiCheck(_ kvm: KVMFacts) -> DoctorCheck {
  kvm.apiVersion == 12
    ? .ok("KVM interface", "version 12")
    : .missing(
      "KVM interface",
      "version \(kvm.apiVersion), not 12",
      advice: "run a Linux kernel's own KVM, 2.6.22 or newer"
    )
}

/// Creates a virtual machine: sandboxes and other hypervisors may let /dev/kvm be opened, and no more.
private func machineCheck(_ kvm: KVMFacts) -> DoctorCheck {
  guard let error = kvm.tryMachine() else { return .ok("virtual machine", "one with one vCPU can be made") }
  return .missing(
    "virtual machine",
    "cannot be made: \(error.call): \(error.errno)",
    advice: error.errno == .resourceBusy || error.errno == .operationNotSupportedByDevice
      ? "stop other hypervisors (VirtualBox, VMware), which may hold the CPU's virtualization"
      : "see what the kernel log says of kvm (dmesg)"
  )
}

// MARK: Capabilities

/// KVM_SYNC_X86_REGS and KVM_SYNC_X86_SREGS of <asm/kvm.h>.
private let syncRegisterBits = 0b11

private func capabilityChecks(_ kvm: KVMFacts) -> [DoctorCheck] {
  let needed: [(Capability, since: String)] = [
    (.userMemory, "2.6.20"), (.immediateExit, "4.13"), (.xsave, "2.6.36"), (.extendedControlRegisters, "2.6.36"),
    (.extendedCPUID, "2.6.25"),
  ]
  return [syncRegistersCheck(kvm)]
    + needed.map { capability, since in
      kvm.capability(capability) > 0
        ? .ok(capability.name, "present")
        : .missing(capability.name, "not offered", advice: "run a kernel that has it (Linux \(since) or newer)")
    } + [timestampCheck(kvm), vcpuCheck(kvm)]
}

private func syncRegistersCheck(_ kvm: KVMFacts) -> DoctorCheck {
  let bits = kvm.capability(.syncRegisters)
  let names = ["regs", "sregs", "events"].enumerated().filter { bits >> $0.offset & 1 == 1 }.map(\.element)
  let detail = names.isEmpty ? "not offered" : names.joined(separator: ", ")
  return bits & syncRegisterBits == syncRegisterBits
    ? .ok(Capability.syncRegisters.name, detail)
    : .missing(
      Capability.syncRegisters.name,
      detail,
      advice: "run a kernel that shares regs and sregs (Linux 4.17 or newer on x86-64)"
    )
}

private func timestampCheck(_ kvm: KVMFacts) -> DoctorCheck {
  kvm.capability(.tscFrequency) > 0
    ? .ok(Capability.tscFrequency.name, "present")
    : .warning(
      Capability.tscFrequency.name,
      "not offered: tasks do not know the frequency of the time-stamp counter",
      advice: "run a kernel that has it, or use only pm_clock_us for time"
    )
}

/// One vCPU a task. The defaults for a capability of 0 are those of the kernel's api.rst, KVM_CREATE_VCPU.
private func vcpuCheck(_ kvm: KVMFacts) -> DoctorCheck {
  let recommended = kvm.capability(.recommendedVCPUs)
  let maximum = kvm.capability(.maximumVCPUs)
  let most = maximum > 0 ? maximum : recommended > 0 ? recommended : 4
  let detail = "at most \(most), one a task; \(recommended > 0 ? recommended : 4) recommended"
  return most >= 64
    ? .ok("vCPUs", detail)
    : .warning("vCPUs", detail, advice: "start at most \(most) tasks at once, or run a kernel built for more vCPUs")
}
