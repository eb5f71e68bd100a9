// The machine on a real /dev/kvm. Serialised: each test makes a virtual machine of its own.

import Glibc
import GuestImages
import KVM
import Machine
import PhysicalMemory
import Synchronization
import Testing

/// Why these tests cannot run here; nil if they can.
let noKVM: String? = {
  do {
    _ = try KVMDevice()
    return nil
  } catch {
    return "needs a usable /dev/kvm: \(error)"
  }
}()

/// Number of repetitions of a test whose failure is random or accumulates. Fewer where QEMU's TCG translates each
/// instruction, which takes a hundred times as long.
func rounds(_ count: Int) -> Int { HostProcessor.isEmulatedByQEMU ? count / 10 : count }

/// Seconds: longer than any wait of a test on any machine. It only ends tests that hang.
let patience = 1200.0

/// How many times slower this machine is than an idle one.
let slowness: Int = {
  let start = monotonicNanoseconds()
  try? withMachine { machine in _ = try machine.run(machine.bundled("hello")) }
  return 1 + Int((monotonicNanoseconds() - start) / 20_000_000)
}()

/// Guest milliseconds during which a test acts, scaled for a slow machine.
func milliseconds(_ count: Int) -> String { "\(count * min(slowness, 20))" }

/// Polls until the condition holds, for at most `patience`.
func becomesTrue(_ condition: () -> Bool) -> Bool {
  let limit = monotonicNanoseconds() + UInt64(patience * 1e9)
  while !condition() {
    guard monotonicNanoseconds() < limit else { return false }
    usleep(1000)
  }
  return true
}

/// A task's console output.
final class Transcript: Sendable {
  private let bytes = Mutex<[UInt8]>([])
  var console: Console { { text in self.bytes.withLock { $0 += text } } }
  var text: String { bytes.withLock { String(decoding: $0, as: UTF8.self) } }
}

/// Runs `body` on a machine and always shuts it down. The machine must be as empty at the end as at the start.
func withMachine(
  _ configuration: MachineConfiguration = MachineConfiguration(), _ body: (Machine) throws -> Void
) throws {
  let machine = try Machine(configuration)
  defer { machine.shutDown() }
  try body(machine)
  #expect(machine.server.checkInvariants() == [])
}

extension Machine {
  func bundled(_ name: String) throws -> Program {
    let image = try #require(GuestImages.named(name), "no bundled program \(name)")
    return try load(name: name, bytes: image.bytes)
  }

  @discardableResult
  func run(
    _ program: Program, _ arguments: [String] = [], _ parameters: TaskParameters = TaskParameters(),
    console: @escaping Console = { _ in }
  ) throws -> (end: TaskEnd, task: GuestTask) {
    let task = try launch(program, arguments: arguments, parameters: parameters, console: console)
    let end = try #require(task.wait(seconds: patience), "the task did not end")
    return (end, task)
  }
}

@Test("every test record of the bundled test programs is valid")
func bundledTests() throws {
  var count = 0
  for image in GuestImages.all where image.group == "tests" {
    let info = ProgramInfo(try ELFImage(bytes: image.bytes))
    #expect(info.malformedTests == 0, "\(image.name)")
    #expect(!info.tests.isEmpty, "\(image.name)")
    count += info.tests.count
  }
  #expect(count > 200)
}

@Suite(.serialized, .enabled(if: noKVM == nil, Comment(rawValue: noKVM ?? "")))
enum OnKVM {}

extension OnKVM {
  @Suite struct TaskTests {
    @Test("a task's output, arguments and exit status")
    func hello() throws {
      try withMachine { machine in
        let transcript = Transcript()
        let (end, _) = try machine.run(machine.bundled("hello"), console: transcript.console)
        #expect(end.exitStatus == 0)
        #expect(transcript.text.hasPrefix("Hello"))
      }
    }

    @Test("R1 R6: 10,000 launches leave nothing behind")
    func launchesLeakNothing() throws {
      try withMachine { machine in
        let noop = try machine.bundled("noop")
        try machine.run(noop)
        let before = machine.server.statistics
        let count = rounds(10_000)
        for _ in 0..<count { try machine.run(noop) }
        let after = machine.server.statistics
        #expect(after.freeFrames == before.freeFrames)
        #expect(after.tableFrames == before.tableFrames)
        #expect(after.contents == before.contents)
        #expect(after.containers == before.containers)
        #expect(after.claimedFrames == 0)
        #expect(after.tasksCreated == count + 1)
      }
    }

    @Test("a task with many page tables returns all of them")
    func tablesComeBack() throws {
      try withMachine { machine in
        let touch = try machine.bundled("touch")
        try machine.run(touch, ["16384", "seq", "1"])
        machine.server.releaseClosedSpaces()
        let before = machine.server.statistics
        for _ in 0..<rounds(60) { try machine.run(touch, ["16384", "seq", "1"]) }
        machine.server.releaseClosedSpaces()
        #expect(machine.server.statistics.freeFrames == before.freeFrames)
        #expect(machine.server.statistics.tableFrames == before.tableFrames)
      }
    }

    @Test("R6, R16: tasks of one program share one copy of its text")
    func textIsShared() throws {
      try withMachine { machine in
        let spin = try machine.bundled("spin")
        let first = try machine.launch(spin) { _ in }
        let one = machine.server.statistics
        let others = try (0..<10).map { _ in try machine.launch(spin) { _ in } }
        let eleven = machine.server.statistics
        // Each task has one private stack page and no text page.
        #expect(eleven.contents - one.contents == 10)
        for task in [first] + others {
          task.stop(.machineEnd)
          _ = task.wait()
        }
      }
    }

    @Test("a spinning task and a sleeping task can be stopped")
    func stop() throws {
      try withMachine { machine in
        for name in ["spin", "sleep"] {
          let task = try machine.launch(machine.bundled(name), arguments: ["1000000"]) { _ in }
          #expect(task.wait(seconds: 0.05) == nil)
          task.stop(.timeLimit)
          let end = try #require(task.wait(seconds: patience))
          guard case .stopped(.timeLimit) = end else {
            Issue.record("ended as \(end)")
            continue
          }
          #expect(end.exitStatus == 192)
        }
        #expect(machine.server.statistics.claimedFrames == 0)
      }
    }

    @Test("a vCPU carries no state from one task to the next")
    func registersAreReset() throws {
      try withMachine { machine in
        let program = try machine.bundled("start_state")
        for _ in 0..<3 {
          let (left, _) = try machine.run(program, ["dirty"])
          #expect(left.exitStatus == 7)
          let transcript = Transcript()
          let (end, _) = try machine.run(program, ["clean"], console: transcript.console)
          #expect(end.exitStatus == 0, "\(transcript.text)")
        }
      }
    }

    @Test("1,000 tasks at once")
    func thousandTasks() throws {
      try withMachine { machine in
        let sleep = try machine.bundled("sleep")
        let tasks = try (0..<1000).map { _ in try machine.launch(sleep, arguments: ["300"]) { _ in } }
        for task in tasks { #expect(task.wait(seconds: patience)?.exitStatus == 0) }
        #expect(machine.server.statistics.tasks == 0)
      }
    }

    @Test("launching more tasks than vCPUs fails with one sentence and leaks nothing")
    func tooManyTasks() throws {
      try withMachine(MachineConfiguration(memory: 1 << 30)) { machine in
        let sleep = try machine.bundled("sleep")
        var tasks: [GuestTask] = []
        let error = #expect(throws: MachineError.self) {
          while tasks.count < 2000 { tasks.append(try machine.launch(sleep, arguments: ["100000"]) { _ in }) }
        }
        #expect(error?.description.contains("tasks are running") == true, "\(String(describing: error))")
        for task in tasks { task.stop(.machineEnd) }
        for task in tasks { _ = task.wait() }
        #expect(machine.server.statistics.claimedFrames == 0)
      }
    }

    @Test("loading into too small a pool fails and states what is needed")
    func tooSmall() throws {
      try withMachine(MachineConfiguration(memory: MachineConfiguration.leastMemory)) { machine in
        let image = try machine.bundled("sleep")
        var tasks: [GuestTask] = []
        let error = #expect(throws: MachineError.self) {
          while tasks.count < 100 { tasks.append(try machine.launch(image, arguments: ["100000"]) { _ in }) }
        }
        #expect(error?.description.contains("--memory") == true, "\(String(describing: error))")
        for task in tasks { task.stop(.machineEnd) }
        for task in tasks { _ = task.wait() }
        #expect(machine.server.statistics.claimedFrames == 0)
      }
    }

    @Test("loading too many programs fails and states the limit")
    func tooManyPrograms() throws {
      try withMachine { machine in
        let bytes = ELFBuilder().bytes()
        let error = #expect(throws: MachineError.self) {
          for number in 0..<2000 { _ = try machine.load(name: "\(number)", bytes: bytes) }
        }
        let isTold = error?.description.hasPrefix("1024 programs are loaded") == true
        #expect(isTold, "\(String(describing: error))")
      }
    }

    @Test("arguments too long for the stack are rejected")
    func longArguments() throws {
      try withMachine { machine in
        let hello = try machine.bundled("hello")
        #expect(throws: MachineError.self) {
          _ = try machine.launch(hello, arguments: [String(repeating: "a", count: 1 << 20)]) { _ in }
        }
        #expect(machine.server.statistics.tasks == 0)
      }
    }

    @Test("the report on a dead task has cause, location and backtrace")
    func report() throws {
      try withMachine { machine in
        let (end, _) = try machine.run(machine.bundled("protection"), ["write_text"])
        guard case .died(let report) = end else {
          Issue.record("ended as \(end)")
          return
        }
        #expect(report.cause.hasPrefix("page fault: write to 0x4"))
        #expect(report.cause.hasSuffix("whose mapping does not permit it"))
        #expect(report.number == 14)
        #expect(report.backtrace.contains { $0.contains("main") })
        #expect(report.registers.first { $0.name == "rip" }?.value ?? 0 >= 0x400000)
      }
    }
  }

  @Suite struct FaultAroundTests {
    /// Number of faults from touching `pages` new pages, without other faults.
    func faults(_ machine: Machine, _ faultAround: FaultAround, _ order: String, pages: Int) throws -> Int {
      let touch = try machine.bundled("touch")
      let task = try machine.launch(
        touch, arguments: ["\(pages)", order, "1"], parameters: TaskParameters(faultAround: faultAround),
        isMeasured: true
      ) { _ in }
      #expect(task.wait(seconds: patience)?.exitStatus == 0)
      // The faults between the program's two marker calls.
      let samples = try #require(task.samples).samples
      let stretches = samples.split { $0.kind != .fault }
      return stretches.map(\.count).max() ?? 0
    }

    @Test("R25: fault-around of one page, of 16, and growing while access is sequential")
    func inOrder() throws {
      var configuration = MachineConfiguration()
      configuration.blocks = 0
      try withMachine(configuration) { machine in
        let one = try faults(machine, .fixed(1), "seq", pages: 1024)
        let sixteen = try faults(machine, .fixed(16), "seq", pages: 1024)
        let automatic = try faults(machine, .automatic, "seq", pages: 4096)
        #expect(one == 1024)
        #expect(sixteen == 64)
        #expect(automatic == 17)
      }
    }

    @Test("R25: random access is served one page at a time")
    func random() throws {
      try withMachine { machine in
        let count = try faults(machine, .automatic, "random", pages: 1024)
        #expect(count >= 1000 && count <= 1024)
      }
    }

    @Test("reused frames are zeroed before a task sees them, whatever the stock")
    func cleared() throws {
      for stock in [0, 4, 4096] {
        try withMachine(MachineConfiguration(memory: 8 << 20, stock: stock)) { machine in
          let swarm = try machine.bundled("swarm")
          for _ in 0..<20 {
            let (end, _) = try machine.run(swarm, ["dirty_and_leave"])
            #expect(end.exitStatus == 0)
          }
        }
      }
    }
  }
}

extension OnKVM {
  @Suite struct TableTests {
    @Test("R3: a task that exhausts page tables takes no guaranteed frame from another task")
    func greedyTables() throws {
      try withMachine(MachineConfiguration(memory: 16 << 20)) { machine in
        let modest = try machine.launch(
          machine.bundled("touch"), arguments: ["1000", "seq", "1", milliseconds(2500)],
          parameters: TaskParameters(guaranteed: 1100, hasContract: true)
        ) { _ in }
        let greedy = try machine.launch(machine.bundled("sparse"), arguments: ["1000000"]) { _ in }
        // It continues until it gets no more tables, and keeps what it has.
        #expect(
          becomesTrue {
            let statistics = machine.server.statistics
            return statistics.allocatableFrames == statistics.claimedFrames
          })
        #expect(greedy.wait(seconds: 0) == nil && modest.wait(seconds: 0) == nil)
        #expect(modest.wait(seconds: patience)?.exitStatus == 0)
        greedy.stop(.machineEnd)
        _ = greedy.wait()
      }
    }
  }
}
