// Reclaim from running tasks, for tasks that start, claim their guarantee, or end meanwhile (R3, R5, R28–R31), with the
// programs of docs/reference/reclaim.md.

import Glibc
import Machine
import PhysicalMemory
import Testing

/// A machine in which one task has borrowed all frames that no other task has.
private struct ReclaimBed {
  let machine: Machine
  let borrower: GuestTask
  let transcript = Transcript()
  let hello: Program
  let hungry: Program

  static func configuration(timeLimit: UInt64 = 100_000_000 * UInt64(min(slowness, 20))) -> MachineConfiguration {
    var configuration = MachineConfiguration(memory: 16 << 20)
    configuration.reclaim.timeLimit = timeLimit
    return configuration
  }

  init(_ machine: Machine, _ name: String, _ arguments: [String] = []) throws {
    self.machine = machine
    // Loaded first: no frames are reclaimed for a program's image.
    hello = try machine.bundled("hello")
    hungry = try machine.bundled("hungry")
    borrower = try machine.launch(
      machine.bundled(name), arguments: arguments, parameters: Self.contract(400, extra: true),
      console: transcript.console)
    try waitUntilAllIsLent()
  }

  static func contract(_ guaranteed: Int, extra: Bool = false) -> TaskParameters {
    TaskParameters(guaranteed: guaranteed, mayUseExtra: extra, hasContract: true)
  }

  func wait(_ condition: () -> Bool) throws {
    let isTrue = becomesTrue(condition)
    try #require(isTrue, "\(transcript.text)")
  }

  func waitUntilAllIsLent() throws {
    try wait {
      let statistics = machine.server.statistics
      return statistics.allocatableFrames - statistics.allocatedFrames < 10
    }
  }

  func stopBorrower() {
    borrower.stop(.machineEnd)
    _ = borrower.wait()
  }
}

extension OnKVM {
  @Suite struct ReclaimTests {
    @Test("R3, R28, R31: a cache in extra frames shrinks for a task with a guarantee, and grows again") func cache()
      throws
    {
      try withMachine(ReclaimBed.configuration()) { machine in
        let bed = try ReclaimBed(machine, "cache", ["600000"])
        let before = machine.server.statistics
        let transcript = Transcript()
        let (end, _) = try machine.run(
          bed.hungry, ["0", "3", "0"], ReclaimBed.contract(2000), console: transcript.console)
        #expect(end.exitStatus == 0, "\(transcript.text)")
        try bed.waitUntilAllIsLent()
        let after = machine.server.statistics
        #expect(after.upcalls > before.upcalls && after.tasksDropped == 0)
        #expect(after.framesExpired > before.framesExpired)
        #expect(bed.borrower.wait(seconds: 0) == nil, "\(bed.transcript.text)")
        bed.stopBorrower()
        #expect(machine.server.statistics.releasedFrames == 0)
      }
    }

    @Test("R3, R28: a launch waits for frames that a task returns") func launchWaits() throws {
      try withMachine(ReclaimBed.configuration()) { machine in
        let bed = try ReclaimBed(machine, "cache", ["600000"])
        for _ in 0..<5 {
          let upcalls = machine.server.statistics.upcalls
          let (end, _) = try machine.run(bed.hello, [], ReclaimBed.contract(200))
          #expect(end.exitStatus == 0)
          #expect(machine.server.statistics.upcalls > upcalls)
          try bed.waitUntilAllIsLent()
        }
        #expect(machine.server.statistics.tasksDropped == 0)
        bed.stopBorrower()
      }
    }

    @Test("R3, R30: a launch waits for frames of a task that is dropped", arguments: ["ignores", "spins"])
    func launchOutlastsRogue(kind: String) throws {
      try withMachine(ReclaimBed.configuration()) { machine in
        let bed = try ReclaimBed(machine, "rogue", [kind])
        let (end, _) = try machine.run(bed.hello, [], ReclaimBed.contract(200))
        #expect(end.exitStatus == 0)
        let borrowersEnd = try #require(bed.borrower.wait(seconds: patience), "\(bed.transcript.text)")
        #expect(borrowersEnd.exitStatus == 194)
        if case .died(let report) = borrowersEnd {
          #expect(report.text.contains("dropped by the server:") && report.text.contains("frames were asked back"))
        } else {
          Issue.record("\(borrowersEnd)")
        }
        #expect(machine.server.statistics.tasksDropped == 1 && machine.server.statistics.allocatedFrames == 0)
      }
    }

    @Test("loading a program fails with a reason when all frames are lent") func loadRefused() throws {
      try withMachine(ReclaimBed.configuration()) { machine in
        let bed = try ReclaimBed(machine, "rogue")
        do {
          _ = try machine.bundled("swift_guest")
          Issue.record("it was loaded")
        } catch MachineError.lent(let name, let needed, let free) {
          #expect(name == "swift_guest" && needed > free)
        }
        bed.stopBorrower()
        _ = try machine.bundled("swift_guest")
      }
    }

    @Test("R28, R30: a task waiting for frames can be stopped, and the victim is not dropped for that")
    func requesterEnds() throws {
      try withMachine(ReclaimBed.configuration(timeLimit: 600_000_000_000)) { machine in
        let hungry = try machine.launch(
          machine.bundled("hungry"), arguments: ["4000", "1"], parameters: ReclaimBed.contract(2000)
        ) { _ in }
        let bed = try ReclaimBed(machine, "rogue")
        try bed.wait { machine.server.statistics.upcalls > 0 }
        #expect(hungry.wait(seconds: 0.1) == nil)
        hungry.stop(.timeLimit)
        #expect(hungry.wait(seconds: patience)?.exitStatus == 192)
        #expect(bed.borrower.wait(seconds: 0.1) == nil && machine.server.statistics.tasksDropped == 0)
        // The stopped task's frames are free now, and enough for a small task.
        let (end, _) = try machine.run(bed.hello, [], ReclaimBed.contract(55))
        #expect(end.exitStatus == 0)
        bed.stopBorrower()
      }
    }
  }
}
