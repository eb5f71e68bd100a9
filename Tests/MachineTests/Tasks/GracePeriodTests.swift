// Frames wait until vCPUs leave KVM; on a real /dev/kvm.

import Glibc
import GuestMemory
import Machine
import PhysicalMemory
import Testing

extension OnKVM {
  @Suite struct GracePeriodTests {
    @Test("Safety: a frame taken from a running task waits until its vCPU leaves KVM, if necessary by a kick")
    func waits() throws {
      try withMachine(MachineConfiguration(memory: 16 << 20)) { machine in
        let task = try machine.launch(try machine.bundled("spin")) { _ in }
        var hasWaited = false
        // Frames that the task has not touched do not wait.
        while !hasWaited {
          let movable = machine.server.frameUses().enumerated().filter { $0.element == .movable }.map(\.offset)
          for frame in movable where !hasWaited {
            #expect(machine.server.moveSomeFrame(UInt64(frame)))
            hasWaited = machine.server.waitingFrames > 0
          }
        }
        while machine.server.waitingFrames > 0 { usleep(1000) }
        task.stop(.machineEnd)
        _ = task.wait()
      }
    }
  }
}
