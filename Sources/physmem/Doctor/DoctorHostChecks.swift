// Host properties, apart from KVM, that limit or slow the machine: CPU, kernel, huge pages, memory, limits.

/// The maximum of vCPUs of one machine (KVM_CAP_MAX_VCPUS on x86-64), each with a thread and a descriptor.
private let mostVCPUs = 1024
/// Descriptors and threads of the command apart from those of vCPUs.
private let reservedForCommand = 64

func hostChecks(_ facts: DoctorFacts) -> [DoctorCheck] {
  [
    cpuCheck(facts), kernelCheck(facts), hugePageCheck(facts), memoryCheck(facts), overcommitCheck(facts),
    poolCheck(facts), descriptorCheck(facts), threadCheck(facts), mappingCheck(facts),
  ]
}

/// A file that should exist is missing.
private func unreadable(_ name: String, _ path: String) -> DoctorCheck {
  .warning(name, "unknown: \(path) cannot be read", advice: "mount /proc and /sys")
}

// MARK: CPU and kernel

private func cpuCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let file = "/proc/cpuinfo"
  guard let flags = facts.value(of: "flags", in: file)?.split(separator: " ") else { return unreadable("CPU", file) }
  let model = ["vendor_id", "model name"].compactMap { facts.value(of: $0, in: file) }.joined(separator: " ")
  guard flags.contains("xsave") else {
    return .missing(
      "CPU",
      "\(model), without xsave",
      advice: "use a CPU that has it, or give it to the virtual machine that this runs in (cpu model \"host\")"
    )
  }
  let extensions = ["xsave", "xsaveopt", "xsavec", "xsaves", "avx", "avx2", "avx512f"]
  return .ok("CPU", "\(model): " + extensions.filter { flags.contains(Substring($0)) }.joined(separator: " "))
}

private func kernelCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let file = "/proc/sys/kernel/osrelease"
  guard let line = facts.text(file)?.split(separator: "\n").first else { return unreadable("kernel", file) }
  let numbers = line.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
  guard numbers.count == 2 else { return unreadable("kernel", file) }
  let version = (numbers[0], numbers[1])
  if version < (5, 14) {
    return .missing("kernel", "Linux \(line)", advice: "run Linux 5.14 or newer, for MADV_POPULATE_WRITE")
  }
  if version < (6, 1) {
    return .warning(
      "kernel",
      "Linux \(line)",
      advice: "run Linux 6.1 or newer: superpages are made by MADV_COLLAPSE"
    )
  }
  return .ok("kernel", "Linux \(line)")
}

/// The pool is shared memory, and MADV_COLLAPSE makes huge pages of it with every setting except "deny".
/// Source: Documentation/admin-guide/mm/transhuge.rst.
private func hugePageCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let folder = "/sys/kernel/mm/transparent_hugepage"
  guard let enabled = facts.choice(folder + "/enabled") else {
    return .warning(
      "huge pages",
      "no transparent huge pages in this kernel",
      advice: "superpages will be slow: run a kernel with CONFIG_TRANSPARENT_HUGEPAGE"
    )
  }
  let shared = facts.choice(folder + "/shmem_enabled") ?? "unknown"
  let detail = "transparent: \(enabled), of shared memory: \(shared)"
  return shared == "deny"
    ? .warning("huge pages", detail, advice: "echo advise | sudo tee \(folder)/shmem_enabled")
    : .ok("huge pages", detail)
}

// MARK: Memory

private func memoryCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let file = "/proc/meminfo"
  guard let total = kibibytes("MemTotal", facts), let available = kibibytes("MemAvailable", facts) else {
    return unreadable("memory", file)
  }
  var detail = "\(available >> 10) MiB available of \(total >> 10)"
  var usable = available
  let group = facts.groupLimit("memory.max", controller: "memory", "memory.limit_in_bytes")
  if let group, group >> 10 < total {
    detail += ", control group limited to \(group >> 20) MiB"
    usable = min(usable, group >> 10)
  }
  return usable >= 512 << 10
    ? .ok("memory", detail)
    : .warning("memory", detail, advice: "give the machine less with --memory, or free some: it takes what tasks touch")
}

private func kibibytes(_ key: String, _ facts: DoctorFacts) -> Int? {
  facts.value(of: key, in: "/proc/meminfo")?.split(separator: " ").first.flatMap { Int($0) }
}

private func overcommitCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let file = "/proc/sys/vm/overcommit_memory"
  switch facts.number(file) {
  case 0?: return .ok("overcommit", "heuristic (0)")
  case 1?: return .ok("overcommit", "always (1)")
  case 2?:
    return .warning(
      "overcommit",
      "never (2): memory is refused at the commit limit",
      advice: "sudo sysctl vm.overcommit_memory=0, or keep --memory well below CommitLimit of /proc/meminfo"
    )
  default: return unreadable("overcommit", file)
  }
}

/// Address space that the command needs for any pool: its code, tables, and the first threads' stacks.
private let ownAddressSpace = 256 << 20

/// The pool is one file in memory, mapped twice; the server's tables are private memory, at most a twentieth of it.
private func poolCheck(_ facts: DoctorFacts) -> DoctorCheck {
  guard let file = facts.limit("Max file size"), let space = facts.limit("Max address space") else {
    return unreadable("pool size", "/proc/self/limits")
  }
  let data = facts.limit("Max data size")?.soft ?? .max
  let sizes = [
    (file.soft, "RLIMIT_FSIZE", "ulimit -f unlimited"),
    (max(0, space.soft - ownAddressSpace) / 41 * 20, "RLIMIT_AS", "ulimit -v unlimited"),
    (max(0, min(data, .max >> 6) - ownAddressSpace) * 20, "RLIMIT_DATA", "ulimit -d unlimited"),
  ].map { (bytes: $0, name: $1, command: $2) }
  guard let least = sizes.min(by: { $0.bytes < $1.bytes }), least.bytes < 4 << 40 else {
    return .ok("pool size", "not limited (RLIMIT_FSIZE, RLIMIT_AS, RLIMIT_DATA)")
  }
  return .warning(
    "pool size", "less than \(least.bytes >> 20) MiB (\(least.name))",
    advice: "\(least.command), or give the machine less with --memory")
}

// MARK: Limits for many tasks

private func descriptorCheck(_ facts: DoctorFacts) -> DoctorCheck {
  guard let limit = facts.limit("Max open files") else { return unreadable("descriptors", "/proc/self/limits") }
  let wanted = mostVCPUs + reservedForCommand
  let raise =
    limit.hard >= wanted
    ? "ulimit -n \(wanted)" : "raise the hard limit in /etc/security/limits.conf, then ulimit -n \(wanted)"
  return enough(
    "descriptors",
    limit.soft,
    "RLIMIT_NOFILE",
    for: max(0, limit.soft - reservedForCommand),
    wanted: wanted,
    advice: raise
  )
}

/// The number of stacks that fit; nil if there is no limit.
private func threadsInAddressSpace(_ facts: DoctorFacts) -> Int? {
  guard let space = facts.limit("Max address space")?.soft, space < .max else { return nil }
  // Without a limit glibc gives each thread 2 MiB.
  let stack = facts.limit("Max stack size")?.soft ?? 8 << 20
  return max(0, space - ownAddressSpace) / (stack == .max ? 2 << 20 : max(stack, 16 << 10))
}

private func threadCheck(_ facts: DoctorFacts) -> DoctorCheck {
  guard let processes = facts.limit("Max processes") else { return unreadable("threads", "/proc/self/limits") }
  let sources = [
    (processes.soft, "RLIMIT_NPROC", "ulimit -u"), (facts.number("/proc/sys/kernel/threads-max"), "threads-max", ""),
    (facts.groupLimit("pids.max", controller: "pids", "pids.max"), "control group", ""),
    (threadsInAddressSpace(facts), "RLIMIT_AS", "ulimit -v"),
  ].compactMap { value, name, command in value.map { (value: $0, name: name, command: command) } }
  let least = sources.min { $0.value < $1.value } ?? (processes.soft, "RLIMIT_NPROC", "")
  let wanted = mostVCPUs + reservedForCommand
  let advice =
    switch least.name {
    case "RLIMIT_NPROC": "ulimit -u \(wanted)"
    case "RLIMIT_AS": "ulimit -v unlimited, or a smaller stack of each thread with ulimit -s"
    case "threads-max": "sudo sysctl kernel.threads-max=\(wanted * 4)"
    default: "raise pids.max of the control group (in a container: --pids-limit \(wanted))"
    }
  return enough(
    "threads",
    least.value,
    least.name,
    for: max(0, least.value - reservedForCommand),
    wanted: wanted,
    advice: advice
  )
}

/// A vCPU maps its run area, its thread's stack and that stack's guard.
private func mappingCheck(_ facts: DoctorFacts) -> DoctorCheck {
  let file = "/proc/sys/vm/max_map_count"
  guard let count = facts.number(file) else { return unreadable("mappings", file) }
  let each = 4
  let wanted = mostVCPUs * each + 1024
  return enough(
    "mappings",
    count,
    "vm.max_map_count",
    for: max(0, count - 1024) / each,
    wanted: wanted,
    advice: "sudo sysctl vm.max_map_count=65530"
  )
}

private func enough(
  _ name: String,
  _ value: Int,
  _ source: String,
  for tasks: Int,
  wanted: Int,
  advice: String
) -> DoctorCheck {
  let detail = "\(value == .max ? "unlimited" : String(value)) (\(source))"
  return value >= wanted
    ? .ok(name, detail) : .warning(name, "\(detail), enough for about \(tasks) tasks", advice: advice)
}
