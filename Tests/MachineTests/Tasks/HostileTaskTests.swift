// Tasks that attempt everything forbidden. Other tasks must not notice.

import GuestImages
import KVM
import Machine
import PhysicalMemory
import Synchronization
import Testing

extension OnKVM {
  @Suite struct HostileTaskTests {
    /// Tests of exceptions that QEMU's TCG does not raise, or raises as others (docs/internals/notes/backends.md).
    private static let mistranslated = ["vector_division", "debug_trap", "invalidate_caches"]

    @Test(
      "whatever the end of a task, the next task on its vCPU starts with clean state",
      arguments: [
        "odd_exits", "exceptions", "pager_limits",
      ])
    func nothingIsLeft(name: String) throws {
      let image = try #require(GuestImages.named(name))
      try withMachine { machine in
        let program = try machine.bundled(name)
        let state = try machine.bundled("start_state")
        for test in ProgramInfo(try ELFImage(bytes: image.bytes)).tests where test.copies == 1 {
          guard !HostProcessor.isEmulatedByQEMU || !Self.mistranslated.contains(test.name) else { continue }
          let (end, _) = try machine.run(program, [test.name])
          #expect(test.expectedStatuses.contains(end.exitStatus), "\(test.name): \(end)")
          let transcript = Transcript()
          let (clean, _) = try machine.run(state, ["clean"], console: transcript.console)
          #expect(clean.exitStatus == 0, "after \(test.name): \(transcript.text)")
        }
        #expect(machine.server.statistics.claimedFrames == 0)
      }
    }

    @Test("random instructions harm only the task that executes them")
    func randomInstructions() throws {
      try withMachine { machine in
        let random = try machine.bundled("random_code")
        let state = try machine.bundled("start_state")
        for seed in 0..<rounds(300) {
          let task = try machine.launch(random, arguments: ["run", "\(seed)"]) { _ in }
          if task.wait(seconds: 0.1) == nil { task.stop(.timeLimit) }
          let end = try #require(task.wait(seconds: patience), "seed \(seed) cannot be stopped")
          if case .failed(let reason) = end { Issue.record("seed \(seed): \(reason)") }
          let transcript = Transcript()
          let (clean, _) = try machine.run(state, ["clean"], console: transcript.console)
          #expect(clean.exitStatus == 0, "after seed \(seed): \(transcript.text)")
        }
        #expect(machine.server.statistics.claimedFrames == 0)
      }
    }

    /// KVM writes the memory operand of a string input from a port only when the vCPU is entered again. When that
    /// happened after the address space had been reused, the write hit the memory of the slot's next task: a few times
    /// in as many launches as here.
    @Test("an uncompleted string input from a port is not written to another task's memory")
    func unfinishedStrings() throws {
      try withMachine { machine in
        let program = try machine.bundled("odd_exits")
        let harmed = Mutex<[String]>([])
        try concurrently(8) { index in
          for _ in 0..<rounds(600) {
            let transcript = Transcript()
            let name = index % 2 == 0 ? "in_pages" : "untouched"
            let end = try? machine.run(program, [name], console: transcript.console).end
            let expected = index % 2 == 0 ? 141 : 0
            if end?.exitStatus != Int32(expected) { harmed.withLock { $0.append(transcript.text) } }
          }
        }
        #expect(harmed.withLock { $0 } == [])
      }
    }
  }
}
