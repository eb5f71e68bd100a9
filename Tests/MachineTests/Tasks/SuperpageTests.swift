// Superpages on a real /dev/kvm: that they are made, and that they survive use by a task.

import Glibc
import GuestMemory
import Machine
import PhysicalMemory
import Testing

extension OnKVM {
  @Suite struct SuperpageTests {
    private func blocksReady(_ machine: Machine) -> Bool {
      machine.prepareFrames()
      return machine.hasHugePages
    }

    @Test("sequential access is served by superpages if the host has huge pages, otherwise by pages")
    func touched() throws {
      try withMachine(MachineConfiguration(memory: 256 << 20)) { machine in
        let hasHugePages = blocksReady(machine)
        let touch = try machine.bundled("touch")
        #expect(try machine.run(touch, ["4096", "seq", "1"]).end.exitStatus == 0)
        #expect((machine.server.statistics.superpagesMapped > 0) == hasHugePages)
        #expect(machine.server.statistics.superpages.current == 0)
        #expect(
          try machine.run(touch, ["4096", "seq", "1"], TaskParameters(faultAround: .fixed(512))).end.exitStatus == 0)
      }
    }

    @Test("without blocks there are no superpages")
    func none() throws {
      var configuration = MachineConfiguration(memory: 256 << 20)
      configuration.blocks = 0
      try withMachine(configuration) { machine in
        machine.prepareFrames()
        let touch = try machine.bundled("touch")
        #expect(try machine.run(touch, ["4096", "seq", "1"]).end.exitStatus == 0)
        #expect(machine.server.statistics.superpagesMapped == 0)
      }
    }

    @Test("pages touched in random order are gathered in the background and promoted to superpages")
    func gathered() throws {
      var configuration = MachineConfiguration(memory: 256 << 20)
      configuration.moveInterval = 2000
      try withMachine(configuration) { machine in
        guard blocksReady(machine) else { return }
        let task = try machine.launch(machine.bundled("count"), arguments: ["1024", "60000"]) { _ in }
        let limit = time(nil) + Int(patience)
        // Random moves scatter the contents; then the background thread gathers them.
        while task.wait(seconds: 0.01) == nil, time(nil) < limit, machine.server.statistics.superpagesPromoted == 0 {}
        let statistics = machine.server.statistics
        #expect(statistics.superpagesGathered > 0 && statistics.superpagesPromoted > 0)
        task.stop(.machineEnd)
        #expect(task.wait(seconds: patience) != nil)
      }
    }

    @Test("each split of a superpage is counted once by cause; unmapping a whole one is not counted")
    func counted() throws {
      try withMachine(MachineConfiguration(memory: 256 << 20)) { machine in
        guard blocksReady(machine) else { return }
        let (split, touch) = try (machine.bundled("split"), machine.bundled("touch"))
        #expect(try machine.run(split, ["8"]).end.exitStatus == 0)
        #expect(machine.server.statistics.superpagesMapped == 8)
        #expect(machine.server.statistics.superpages.splits == [.copied: 8])
        #expect(try machine.run(touch, ["4096", "seq", "1"]).end.exitStatus == 0)
        #expect(machine.server.statistics.superpages.split == 8)
      }
    }

    @Test("a task that counts in every page loses no count while its superpages are split and promoted")
    func splitAndPromoted() throws {
      try withMachine(MachineConfiguration(memory: 256 << 20)) { machine in
        guard blocksReady(machine) else { return }
        let task = try machine.launch(machine.bundled("count"), arguments: ["1024", "3000"]) { _ in }
        let first = PageNumber(containing: 0x2000_0000_0000)
        var promoted = 0
        var random: UInt64 = 1
        let limit = time(nil) + Int(patience)
        while task.wait(seconds: 0.002) == nil, time(nil) < limit {
          random = random &* 6_364_136_223_846_793_005 &+ 1
          for _ in 0..<8 { _ = machine.server.revokeSomeFrame(random >> 20) }
          for region in 0..<2 where machine.promote(TaskSlot(0), first.advanced(by: 512 * region)) { promoted += 1 }
        }
        #expect(task.wait(seconds: patience)?.exitStatus == 0)
        let statistics = machine.server.statistics
        #expect(promoted > 0)
        #expect(statistics.superpagesPromoted == UInt64(promoted))
        #expect(statistics.superpages.splits[.withdrawn, default: 0] > 0)
        #expect(statistics.superpages.flushes > 0)
        #expect(statistics.strayWrites == 0)
      }
    }
  }
}
