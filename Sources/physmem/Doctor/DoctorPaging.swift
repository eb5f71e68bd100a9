// The kind of KVM back end, and its consequences. docs/internals/notes/backends.md has the details.

/// KVM allocates arrays for a memory slot when the slot is created.
private let slowPools = "a pool of 64G takes 20 ms to make, one of 1T some seconds"

func pagingCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let name = "paging"
  if facts.exists("/sys/module/kvm_pvm") {
    return .ok(name, "software (kvm_pvm), shadow paging: a fault costs 35 µs, and \(slowPools)")
  }
  let hardware = [
    (module: "kvm_intel", cpu: "Intel VMX", parameter: "ept"), (module: "kvm_amd", cpu: "AMD SVM", parameter: "npt"),
  ]
  for (module, cpu, parameter) in hardware where facts.exists("/sys/module/\(module)") {
    // A bool parameter reads Y or N, an int one 1 or 0.
    let value = facts.text("/sys/module/\(module)/parameters/\(parameter)")?.prefix(1)
    if value == "Y" || value == "1" {
      return .ok(name, "\(cpu), nested paging (\(parameter.uppercased())): no limits of its own")
    }
    if value == "N" || value == "0" {
      return .warning(
        name,
        "\(cpu), shadow paging: faults cost more, and \(slowPools)",
        advice: "load \(module) with \(parameter)=1, if the CPU has nested paging"
      )
    }
    return .ok(name, "\(cpu), nested or shadow paging")
  }
  return .warning(
    name,
    "unknown: no kvm_pvm, kvm_intel or kvm_amd under /sys/module",
    advice: "mount /sys, or load the module for this CPU"
  )
}

/// No check if a processor executes the instructions.
func translatorCheck(_ facts: DoctorFacts) -> [DoctorCheck] {
  guard facts.isTranslated else { return [] }
  return [
    .warning(
      "translator",
      "QEMU's (tcg): stack faults arrive as general protection faults, and timings are meaningless",
      advice: "use it only for tests; otherwise run QEMU with -accel kvm, or no QEMU"
    )
  ]
}
