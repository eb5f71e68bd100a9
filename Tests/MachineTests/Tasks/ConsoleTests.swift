// Waits in the host that depend on others: a console that accepts no text, a device that does not answer. Stopping the
// task must end them.

import CKVM
import Glibc
import PhysicalMemory
import SystemPackage
import Synchronization
import Testing

@testable import Machine

/// A console that blocks until the test lifts the blockage.
private final class Blockage: Sendable {
  private let isLifted = Atomic<Bool>(false)
  private let calls = Atomic<Int>(0)

  func stay() {
    calls.add(1, ordering: .sequentiallyConsistent)
    while !isLifted.load(ordering: .sequentiallyConsistent) { usleep(1000) }
  }

  func lift() { isLifted.store(true, ordering: .sequentiallyConsistent) }

  /// Waits until a call is blocked.
  func waitForSomebody() throws {
    for _ in 0..<60_000 where calls.load(ordering: .sequentiallyConsistent) == 0 { usleep(1000) }
    try #require(calls.load(ordering: .sequentiallyConsistent) > 0)
  }
}

extension OnKVM {
  @Suite struct ConsoleTests {
    @Test("a task can be stopped while its console is blocked", arguments: [StopReason.timeLimit, .machineEnd])
    func stopped(reason: StopReason) throws {
      try withMachine { machine in
        let blockage = Blockage()
        defer { blockage.lift() }
        let task = try machine.launch(machine.bundled("hello")) { _ in blockage.stay() }
        try blockage.waitForSomebody()
        #expect(task.wait(seconds: 0.05) == nil)
        task.stop(reason)
        let end = task.wait(seconds: 60)
        guard case .stopped(reason) = end else {
          Issue.record("\(String(describing: end))")
          return
        }
        #expect(machine.server.statistics.tasks == 0)
        // Other tasks have consoles of their own.
        let transcript = Transcript()
        let (other, _) = try machine.run(machine.bundled("hello"), console: transcript.console)
        #expect(other.exitStatus == 0 && transcript.text == "Hello from task 2.\n")
      }
    }

    @Test("the machine can be shut down while a console is blocked, and the text may arrive later") func machineEnds()
      throws
    {
      let blockage = Blockage()
      let transcript = Transcript()
      let machine = try Machine()
      let task = try machine.launch(machine.bundled("hello")) {
        blockage.stay()
        transcript.console($0)
      }
      try blockage.waitForSomebody()
      let isDown = attempt(seconds: 60) { machine.shutDown() }
      #expect(isDown && task.wait(seconds: 60)?.exitStatus == 193)
      blockage.lift()
      for _ in 0..<60_000 where transcript.text == "" { usleep(1000) }
      #expect(transcript.text == "Hello from task 1.\n")
    }

    @Test("R30: a task that does not return frames is dropped while its console is blocked") func dropped() throws {
      var configuration = MachineConfiguration(memory: 16 << 20)
      configuration.reclaim.timeLimit = 20_000_000
      try withMachine(configuration) { machine in
        let blockage = Blockage()
        defer { blockage.lift() }
        let hello = try machine.bundled("hello")
        let rogue = try machine.launch(
          machine.bundled("rogue"), parameters: TaskParameters(guaranteed: 400, mayUseExtra: true, hasContract: true)
        ) { _ in blockage.stay() }
        // The task writes when it has borrowed everything.
        try blockage.waitForSomebody()
        let transcript = Transcript()
        let isDone = attempt(seconds: 60) {
          let parameters = TaskParameters(guaranteed: 200, mayUseExtra: false, hasContract: true)
          _ = try? machine.run(hello, [], parameters, console: transcript.console)
        }
        #expect(isDone && transcript.text.hasPrefix("Hello from task "))
        #expect(rogue.wait(seconds: 60)?.exitStatus == 194)
        #expect(machine.server.statistics.tasksDropped == 1)
      }
    }

    @Test("a driver can be stopped while its disk does not answer, and frees the disk when it does") func disk()
      throws
    {
      // SAFETY: the name is a literal.
      let file = FileDescriptor(rawValue: unsafe memfd_create("disk", 0))
      try file.resize(to: 1 << 20)
      let blockage = Blockage()
      defer { blockage.lift() }
      var configuration = MachineConfiguration(memory: 64 << 20)
      // The disk's own thread reports rejections, and blocks in the report.
      configuration.disks = [
        DiskConfiguration(file: BackingFile(file, sectorCount: 2048)) { _ in blockage.stay() }
      ]
      try withMachine(configuration) { machine in
        let program = try machine.bundled("disk_queue")
        // The driver breaks its queue, and waits for the device to be reset.
        let driver = try machine.launch(program, arguments: ["broken_chains"]) { _ in }
        try blockage.waitForSomebody()
        #expect(driver.wait(seconds: 0.05) == nil)
        driver.stop(.timeLimit)
        #expect(driver.wait(seconds: 60)?.exitStatus == 192)
        let device = TaskReference(slot: TaskSlot(1), id: TaskID(99))
        #expect(throws: CallFailure.busy) { try machine.devices.claim(device, 0) }
        blockage.lift()
        var isClaimed = false
        for _ in 0..<60_000 where !isClaimed {
          isClaimed = (try? machine.devices.claim(device, 0)) != nil
          usleep(1000)
        }
        machine.devices.leave(device)
        #expect(isClaimed)
      }
    }
  }
}
