// Processor state that a task can reach and that this host's KVM may not restore (docs/internals/notes/task-state.md).

import GuestImages
import KVM
import Machine
import PhysicalMemory
import Testing

extension OnKVM {
  @Suite struct TaskStateTests {
    /// The register test with tasks that have protection keys: on a KVM that does not hide them from tasks, or where
    /// the machine enables them.
    @Test(
      "each task starts with clear protection keys; denying itself its pages kills a task", arguments: [false, true])
    func protectionKeys(areOn: Bool) throws {
      var configuration = MachineConfiguration()
      guard let device = try? KVMDevice(), !areOn || device.hasProtectionKeys else { return }
      configuration.hasProtectionKeys = areOn
      try withMachine(configuration) { machine in
        let program = try machine.bundled("start_state")
        for name in ["denies_itself", "dirty", "denies_itself_writes"] {
          let (left, _) = try machine.run(program, [name])
          #expect([0, 7, 142].contains(left.exitStatus), "\(name): \(left)")
          if areOn, name != "dirty" {
            guard case .died(let report) = left else {
              Issue.record("\(name): \(left)")
              continue
            }
            #expect(report.cause.contains("its own protection keys deny"))
          }
          let transcript = Transcript()
          let (end, _) = try machine.run(program, ["clean"], console: transcript.console)
          #expect(end.exitStatus == 0, "after \(name): \(transcript.text)")
        }
      }
    }

    @Test("the report on a task that executes syscall gives its address")
    func systemCall() throws {
      try withMachine { machine in
        let program = try machine.bundled("exceptions")
        for name in ["system_call", "system_call_handled", "undefined"] {
          let (end, _) = try machine.run(program, [name])
          guard case .died(let report) = end else {
            Issue.record("\(name): \(end)")
            continue
          }
          #expect(report.number == 6)
          #expect(report.backtrace.first?.contains("test_\(name)+") == true, "\(report.text)")
        }
      }
    }
  }
}
