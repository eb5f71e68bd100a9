// Tasks that do everything they must not, and what other tasks notice of it: nothing.

import GuestImages
import KVM
import Machine
import PhysicalMemory
import Synchronization
import Testing

extension OnKVM {
  @Suite struct HostileTaskTests {
    /// What QEMU's translator does not raise, or raises as another exception (docs/internals/notes/backends.md).
    private static let mistranslated = ["vector_division", "debug_trap"]

    @Test(
      "however a task ends, the next one on its vCPU begins as if there had been none",
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

    @Test("random instructions harm the task that executes them, and nobody else")
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

    /// What KVM writes to memory for a string from a port, it writes only when the vCPU is entered again. When that came
    /// after the address space was given away, it landed in the memory of the slot's next task, a few times in as many
    /// launches as these.
    @Test("a string from a port that was never read does not land in another task's memory")
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
