// The host of a benchmark run: the facts needed to compare its values with others.

internal import Glibc

struct BenchmarkHost {
  let cpu: String
  let kernel: String
  /// The kind of KVM and of paging.
  let kvm: String
  let cores: Int
  /// "release" or "debug".
  let build: String

  init(_ facts: DoctorFacts) {
    cpu = facts.value(of: "model name", in: "/proc/cpuinfo") ?? "unknown"
    kernel = facts.text("/proc/sys/kernel/osrelease")?.split(separator: "\n").first.map(String.init) ?? "unknown"
    kvm = pagingCheck(facts).detail
    cores = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    #if DEBUG
      build = "debug"
    #else
      build = "release"
    #endif
  }

  var text: String {
    let warning = build == "debug" ? "; a debug build, many times slower than one with -c release" : ""
    return "\(cpu), \(cores) \(cores == 1 ? "core" : "cores"), Linux \(kernel), KVM: \(kvm)\(warning)"
  }

  var json: JSONValue {
    [
      "cpu": .string(cpu), "kernel": .string(kernel), "kvm": .string(kvm), "cores": .integer(cores),
      "build": .string(build),
    ]
  }
}
