// Superpages on a real /dev/kvm: that there are any, and what becomes of them under a task that uses them.

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

    @Test("sequential touches are served by superpages where the host has huge pages, and by pages where it has not")
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

    @Test("what a task touched in no order is moved together in the background, and becomes superpages under it")
    func gathered() throws {
      var configuration = MachineConfiguration(memory: 256 << 20)
      configuration.moveInterval = 2000
      try withMachine(configuration) { machine in
        guard blocksReady(machine) else { return }
        let task = try machine.launch(machine.bundled("count"), arguments: ["1024", "60000"]) { _ in }
        let limit = time(nil) + Int(patience)
        // Contents that are moved at random are in no order; then, in the background, they are.
        while task.wait(seconds: 0.01) == nil, time(nil) < limit, machine.server.statistics.superpagesPromoted == 0 {}
        let statistics = machine.server.statistics
        #expect(statistics.superpagesGathered > 0 && statistics.superpagesPromoted > 0)
        task.stop(.machineEnd)
        #expect(task.wait(seconds: patience) != nil)
      }
    }

    @Test("superpages that are split are counted once each, with why; those that are unmapped whole are not")
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

    @Test("superpages are split and made again under a task that counts in every page: it never misses a count")
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
