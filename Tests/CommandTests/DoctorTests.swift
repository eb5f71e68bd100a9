// The doctor on simulated machines: one that is fine, and others with one problem.

import KVM
import SystemPackage
import Testing

@testable import physmem

@Suite struct DoctorTests {
  /// A machine as a set of files. A directory exists if a file in it does.
  private struct Machine {
    var files = [
      "/proc/cpuinfo":
        "vendor_id\t: GenuineIntel\nmodel name\t: A CPU\nflags\t\t: lm nx vmx xsave avx\n\nflags\t: no\n",
      "/proc/sys/kernel/osrelease": "6.8.0-31-generic\n",
      "/proc/meminfo": "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n",
      "/proc/sys/vm/overcommit_memory": "0\n",
      "/proc/sys/vm/max_map_count": "65530\n",
      "/proc/sys/kernel/threads-max": "60000\n",
      "/proc/self/cgroup": "0::/user.slice\n",
      "/proc/self/limits": """
      Limit                     Soft Limit           Hard Limit           Units
      Max file size             unlimited            unlimited            bytes
      Max address space         unlimited            unlimited            bytes
      Max data size             unlimited            unlimited            bytes
      Max stack size            8388608              unlimited            bytes
      Max processes             30000                30000                processes
      Max open files            4096                 1048576              files

      """,
      "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
      "/sys/kernel/mm/transparent_hugepage/shmem_enabled": "always within_size advise [never] deny force\n",
      "/sys/module/kvm_intel/parameters/ept": "Y\n",
    ]
    var capabilities: [Capability: Int] = [
      .userMemory: 1, .extendedCPUID: 1, .xsave: 1, .extendedControlRegisters: 1, .tscFrequency: 1,
      .syncRegisters: 7, .immediateExit: 1, .recommendedVCPUs: 8, .maximumVCPUs: 1024,
    ]
    var apiVersion = 12
    var opening: Errno?
    var making: Errno?
    var isTranslated = false

    var checks: [DoctorCheck] { report.checks }

    var report: DoctorReport {
      DoctorReport(
        DoctorFacts(
          text: { files[$0] },
          exists: { path in files.keys.contains { $0 == path || $0.hasPrefix(path + "/") } },
          openKVM: {
            if let opening { return .failure(opening) }
            return .success(
              KVMFacts(
                apiVersion: apiVersion,
                capability: { capabilities[$0] ?? 0 },
                tryMachine: { making.map { ("KVM_CREATE_VM", $0) } }
              )
            )
          },
          isTranslated: isTranslated
        )
      )
    }

    /// The only check that is not ok.
    func finding(_ location: SourceLocation = #_sourceLocation) throws -> DoctorCheck {
      let findings = checks.filter { $0.verdict != .ok }
      #expect(findings.count == 1, sourceLocation: location)
      return try #require(findings.first, sourceLocation: location)
    }

    func check(_ name: String) throws -> DoctorCheck { try #require(checks.first { $0.name == name }) }
  }

  private func machine(_ change: (inout Machine) -> Void) -> Machine {
    var machine = Machine()
    change(&machine)
    return machine
  }

  @Test func `A good machine passes all checks`() {
    let report = Machine().report
    #expect(report.checks.allSatisfy { $0.verdict == .ok && $0.advice.isEmpty && !$0.detail.isEmpty })
    #expect(Set(report.checks.map(\.name)).count == report.checks.count)
    #expect(report.isOK)
    #expect(report.text.hasSuffix("\n\nthis machine can run physmem"))
    #expect(!report.text.contains("what to do"))
  }

  @Test(
    arguments: [
      (.noSuchFileOrDirectory, "does not exist", "modprobe kvm_intel"),
      (.operationNotSupportedByDevice, "has no driver", "modprobe kvm_intel"),
      (.permissionDenied, "may not be opened", "kvm group"), (.notPermitted, "may not be opened", "kvm group"),
      (.ioError, "Input/output error", "dmesg"),
    ] as [(Errno, String, String)]
  )
  func `Without a usable device nothing runs`(error: Errno, detail: String, advice: String) throws {
    let machine = machine { $0.opening = error }
    let finding = try machine.finding()
    #expect(finding.name == "/dev/kvm" && finding.verdict == .missing)
    #expect(finding.detail.contains(detail) && finding.advice.contains(advice))
    #expect(!machine.report.isOK)
    #expect(machine.report.text.hasSuffix("\nthis machine cannot run physmem, because of: /dev/kvm"))
    #expect(!machine.checks.contains { $0.name.hasPrefix("KVM_CAP") })
  }

  @Test(arguments: [("lm svm xsave", "kvm_amd"), ("lm xsave", "enable virtualization")])
  func `The module to load depends on the CPU`(flags: String, advice: String) throws {
    let machine = machine {
      $0.opening = .noSuchFileOrDirectory
      $0.files["/proc/cpuinfo"] = "flags : \(flags)\n"
    }
    #expect(try machine.finding().advice.contains(advice))
  }

  @Test func `Another interface version is rejected`() throws {
    let finding = try machine { $0.apiVersion = 11 }.finding()
    #expect(finding.verdict == .missing && finding.detail == "version 11, not 12")
  }

  @Test func `A virtual machine is created`() throws {
    let busy = try machine { $0.making = .resourceBusy }.finding()
    #expect(busy.verdict == .missing && busy.detail == "cannot be made: KVM_CREATE_VM: \(Errno.resourceBusy)")
    #expect(busy.advice.contains("hypervisors"))
    #expect(try machine { $0.making = .noMemory }.finding().advice.contains("dmesg"))
  }

  @Test(
    arguments: [
      .userMemory, .extendedCPUID, .xsave, .extendedControlRegisters, .immediateExit, .syncRegisters,
    ] as [Capability]
  )
  func `A missing capability is reported`(capability: Capability) throws {
    let finding = try machine { $0.capabilities[capability] = 0 }.finding()
    #expect(finding.verdict == .missing && finding.name == capability.name && finding.detail == "not offered")
    #expect(finding.advice.contains("kernel"))
  }

  @Test(arguments: [(1, "regs"), (2, "sregs"), (6, "sregs, events")])
  func `Both regs and sregs must be shared`(bits: Int, detail: String) throws {
    let finding = try machine { $0.capabilities[.syncRegisters] = bits }.finding()
    #expect(finding.verdict == .missing && finding.detail == detail)
    #expect(machine { $0.capabilities[.syncRegisters] = 3 }.report.isOK)
  }

  @Test func `Few vCPUs and an unknown clock are warnings`() throws {
    #expect(try machine { $0.capabilities[.maximumVCPUs] = 16 }.finding().detail.hasPrefix("at most 16,"))
    #expect(try machine { $0.capabilities[.tscFrequency] = 0 }.finding().verdict == .warning)
    let unknown = machine {
      $0.capabilities[.maximumVCPUs] = 0
      $0.capabilities[.recommendedVCPUs] = 0
    }
    #expect(try unknown.finding().detail == "at most 4, one a task; 4 recommended")
    #expect(unknown.report.text.hasSuffix("\nthis machine can run physmem, with 1 warning"))
  }

  @Test(
    arguments: [
      ("kvm_pvm/parameters/verbose", "0", "software (kvm_pvm), shadow paging: ", .ok),
      ("kvm_intel/parameters/ept", "Y", "Intel VMX, nested paging (EPT): ", .ok),
      ("kvm_intel/parameters/ept", "N", "Intel VMX, shadow paging: ", .warning),
      ("kvm_amd/parameters/npt", "1", "AMD SVM, nested paging (NPT): ", .ok),
      ("kvm_amd/parameters/npt", "0", "AMD SVM, shadow paging: ", .warning),
      ("kvm_amd/parameters/other", "0", "AMD SVM, nested or shadow paging", .ok),
      ("kvm/parameters/other", "0", "unknown: no kvm_pvm, kvm_intel or kvm_amd under /sys/module", .warning),
    ] as [(String, String, String, DoctorCheck.Verdict)]
  )
  func `Kinds of paging`(file: String, text: String, detail: String, verdict: DoctorCheck.Verdict) throws {
    let machine = machine {
      $0.files["/sys/module/kvm_intel/parameters/ept"] = nil
      $0.files["/sys/module/" + file] = text + "\n"
    }
    let check = try machine.check("paging")
    #expect(check.detail.hasPrefix(detail) && check.verdict == verdict)
    // With shadow paging, creating a large pool takes long.
    #expect(check.detail.contains("1T") == detail.contains("shadow paging: "))
    #expect(machine.report.isOK)
  }

  @Test func `QEMU's translator is a warning`() throws {
    #expect(try machine { $0.isTranslated = true }.check("translator").verdict == .warning)
    #expect(!machine { _ in }.checks.contains { $0.name == "translator" })
  }

  @Test func `A CPU without xsave is missing something`() throws {
    let finding = try machine { $0.files["/proc/cpuinfo"] = "flags: lm nx vmx\n" }.finding()
    #expect(finding.name == "CPU" && finding.verdict == .missing)
  }

  @Test(
    arguments: [
      ("5.13.19", .missing), ("5.14.0", .warning), ("6.0.12-x", .warning), ("6.1", .ok), ("10.0.0", .ok),
      ("4.18.0-553.el8", .missing), ("strange", .warning),
    ] as [(String, DoctorCheck.Verdict)]
  )
  func `Kernel versions`(version: String, verdict: DoctorCheck.Verdict) throws {
    let machine = machine { $0.files["/proc/sys/kernel/osrelease"] = version + "\n" }
    #expect(try machine.check("kernel").verdict == verdict)
  }

  @Test func `Huge pages of shared memory may be denied`() throws {
    let folder = "/sys/kernel/mm/transparent_hugepage/"
    let denied = try machine { $0.files[folder + "shmem_enabled"] = "always [deny] force\n" }.finding()
    #expect(denied.verdict == .warning && denied.advice.contains("shmem_enabled"))
    #expect(try machine { $0.files[folder + "enabled"] = nil }.finding().advice.contains("CONFIG_TRANSPARENT"))
  }

  @Test func `Little memory is a warning, even if a control group limits it`() throws {
    let little = try machine { $0.files["/proc/meminfo"] = "MemTotal: 600000 kB\nMemAvailable: 500000 kB\n" }.finding()
    #expect(little.detail == "488 MiB available of 585" && little.advice.contains("--memory"))
    let group = try machine { $0.files["/sys/fs/cgroup/user.slice/memory.max"] = "268435456\n" }.finding()
    #expect(group.detail.hasSuffix("control group limited to 256 MiB"))
    #expect(
      machine { $0.files["/sys/fs/cgroup/user.slice/memory.max"] = "max\n" }.checks.allSatisfy { $0.verdict == .ok }
    )
    let old = try machine {
      $0.files["/proc/self/cgroup"] = "4:cpu,memory:/a\n0::/\n"
      $0.files["/sys/fs/cgroup/memory/a/memory.limit_in_bytes"] = "134217728\n"
    }.finding()
    #expect(old.detail.hasSuffix("control group limited to 128 MiB"))
  }

  @Test func `Strict overcommit is a warning`() throws {
    #expect(try machine { $0.files["/proc/sys/vm/overcommit_memory"] = "2\n" }.finding().name == "overcommit")
  }

  @Test(arguments: [
    ("Max open files            4096", "Max open files            100 ", "descriptors", "about 36 tasks"),
    ("Max processes             30000", "Max processes             1000 ", "threads", "about 936 tasks"),
    ("Max file size             unlimited", "Max file size             1073741824", "pool size", "1024 MiB"),
    ("Max address space         unlimited", "Max address space         17448304640", "pool size", "7992 MiB"),
    ("Max data size             unlimited", "Max data size             1073741824 ", "pool size", "15360 MiB"),
  ])
  func `Limits of the process`(old: String, new: String, name: String, detail: String) throws {
    let machine = machine { machine in
      let lines = machine.files["/proc/self/limits"]!.split(separator: "\n")
      machine.files["/proc/self/limits"] = lines.map { $0.hasPrefix(old) ? new + $0.dropFirst(old.count) : String($0) }
        .joined(separator: "\n")
    }
    let finding = try machine.finding()
    #expect(finding.name == name && finding.verdict == .warning && finding.detail.contains(detail))
    #expect(finding.advice.contains("ulimit"))
  }

  @Test func `Little address space limits the pool and the threads`() {
    let machine = machine { machine in
      let limits = machine.files["/proc/self/limits"]!
      machine.files["/proc/self/limits"] = limits.replacing(
        "Max address space         unlimited", with: "Max address space         1073741824")
    }
    let findings = machine.checks.filter { $0.verdict != .ok }
    #expect(findings.map(\.name) == ["pool size", "threads"])
    #expect(findings.map(\.detail) == ["less than 374 MiB (RLIMIT_AS)", "96 (RLIMIT_AS), enough for about 32 tasks"])
    #expect(findings.allSatisfy { $0.advice.contains("ulimit -v") })
  }

  @Test(arguments: [
    ("/proc/sys/kernel/threads-max", "threads"), ("/sys/fs/cgroup/pids.max", "threads"),
    ("/proc/sys/vm/max_map_count", "mappings"),
  ])
  func `Limits of the system`(file: String, name: String) throws {
    let finding = try machine { $0.files[file] = "400\n" }.finding()
    #expect(finding.name == name && finding.verdict == .warning)
  }

  @Test func `A machine without proc and sys still gets a report`() {
    let report = machine { $0.files = [:] }.report
    #expect(report.isOK && report.checks.filter { $0.verdict == .warning }.count == 10)
    #expect(report.text.contains("with 10 warnings"))
  }

  @Test func `The JSON has the same findings`() throws {
    let report = machine { $0.apiVersion = 3 }.report
    guard case .object(let members) = report.json, case .array(let checks) = members[1].value else {
      Issue.record("not an object of two members")
      return
    }
    #expect(members.map(\.key) == ["ok", "checks"] && members[0].value == false)
    #expect(checks.count == report.checks.count)
    #expect(
      report.json.description.contains(
        #"{"name":"KVM interface","verdict":"missing","detail":"version 3, not 12","advice":"run "#
      )
    )
  }

  @Test func `The current machine can be checked`() {
    let report = DoctorReport(.live)
    #expect(report.checks.count >= 11)
    #expect(report.text.contains(report.isOK ? "this machine can run physmem" : "this machine cannot run physmem"))
  }
}
