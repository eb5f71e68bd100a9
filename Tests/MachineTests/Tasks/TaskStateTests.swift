// State of the processor that a task can reach and that this host's KVM may leave as it is (docs/internals/notes/task-state.md).

import GuestImages
import KVM
import Machine
import PhysicalMemory
import Testing

extension OnKVM {
  @Suite struct TaskStateTests {
    /// As the machine test of registers does, with tasks that have protection keys: on a KVM that does not keep them from
    /// tasks, or where the machine lets tasks have them.
    @Test(
      "protection keys are clear for each task, and a task that denies itself its pages dies", arguments: [false, true])
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

    @Test("the report of a task that executes syscall says where that was")
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
