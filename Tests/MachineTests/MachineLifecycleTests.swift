// The machine's threads: concurrent callers; early, repeated and concurrent ends; hosts without threads or descriptors.

import Glibc
import Machine
import PhysicalMemory
import Synchronization
import Testing

extension OnKVM {
  @Suite struct MachineLifecycleTests {
    @Test("after shutdown nothing is launched, and a second shutdown does nothing")
    func endedTwice() throws {
      let machine = try Machine()
      let spin = try machine.bundled("spin")
      let task = try machine.launch(spin) { _ in }
      machine.shutDown()
      guard case .stopped(.machineEnd) = task.wait() else {
        Issue.record("ended as \(task.wait())")
        return
      }
      machine.shutDown()
      let error = #expect(throws: MachineError.self) { _ = try machine.launch(spin) { _ in } }
      #expect(error?.description == "the machine was shut down: make another one")
      machine.shutDown()
      #expect(machine.server.checkInvariants() == [])
      #expect(machine.server.statistics.tasks == 0)
      #expect(machine.server.statistics.claimedFrames == 0)
    }

    @Test("several threads shut the machine down while others launch tasks: every started task ends")
    func endedWhileLaunching() throws {
      for delay in [0, 200, 1000, 5000, 20000] as [UInt32] {
        let machine = try Machine(MachineConfiguration(memory: 64 << 20))
        let spin = try machine.bundled("spin")
        let tasks = Mutex<[GuestTask]>([])
        try concurrently(6) { index in
          if index < 2 {
            usleep(delay)
            machine.shutDown()
            return
          }
          while let task = try? machine.launch(spin, console: { _ in }) { tasks.withLock { $0.append(task) } }
        }
        for task in tasks.withLock({ $0 }) { #expect(task.wait(seconds: patience) != nil, "a task was forgotten") }
        #expect(machine.server.statistics.tasks == 0)
        #expect(machine.server.checkInvariants() == [])
      }
    }

    @Test("several threads launch tasks concurrently")
    func manyLaunchers() throws {
      try withMachine { machine in
        let noop = try machine.bundled("noop")
        let ended = Atomic<Int>(0)
        try concurrently(8) { _ in
          for _ in 0..<50 where (try? machine.run(noop).end.exitStatus) == 0 { ended.add(1, ordering: .relaxed) }
        }
        #expect(ended.load(ordering: .relaxed) == 400)
        #expect(machine.server.statistics.tasksCreated == 400)
      }
    }

    @Test("several threads stop a task at any point of its life; it ends once")
    func stoppedAtAnyMoment() throws {
      try withMachine { machine in
        for (name, argument) in [("spin", ""), ("sleep", "100000000"), ("noop", ""), ("nullcall", "1000000000")] {
          let program = try machine.bundled(name)
          for delay in 0..<40 {
            let task = try machine.launch(program, arguments: [argument]) { _ in }
            try concurrently(3) { index in
              if delay > 0 { usleep(UInt32(delay * 25)) }
              task.stop(index == 0 ? .timeLimit : .machineEnd)
            }
            let end = try #require(task.wait(seconds: patience), "\(name) did not end")
            switch end {
            case .stopped, .exited(status: 0): break
            default: Issue.record("\(name) ended as \(end)")
            }
            // Later waits return the same end.
            #expect(task.wait(seconds: 0)?.exitStatus == end.exitStatus)
            task.stop(.machineEnd)
          }
        }
        // A late kick may hit the vCPU's next task, which must not be affected.
        let (end, _) = try machine.run(machine.bundled("hello"))
        #expect(end.exitStatus == 0)
        #expect(machine.server.statistics.claimedFrames == 0)
      }
    }

    @Test("a task can be stopped in the middle of a call that would take minutes")
    func stoppedInLongCall() throws {
      try withMachine { machine in
        let task = try machine.launch(machine.bundled("odd_exits"), arguments: ["long_write", "very"]) { _ in }
        #expect(task.wait(seconds: 1) == nil)
        task.stop(.timeLimit)
        let end = try #require(task.wait(seconds: patience), "the call went on")
        #expect(end.exitStatus == 192)
      }
    }

    @Test(
      "R25, R37: without a mapping cache a fault handler maps its own pages; an unresolved fault in it is fatal",
      arguments: [("in_the_handler", 0), ("fault_in_handler", 142)] as [(String, Int32)])
    func faultsInTheHandler(_ name: String, _ status: Int32) throws {
      try withMachine { machine in
        let program = try machine.bundled("mapped_again")
        #expect(try machine.run(program, [name], TaskParameters(keepsMappings: false)).end.exitStatus == status)
      }
    }

    @Test("a task can be stopped while its handler resolves pointers of its calls")
    func stoppedAmongPointers() throws {
      try withMachine { machine in
        let program = try machine.bundled("odd_exits")
        for delay in 0..<100 {
          let task = try machine.launch(
            program, arguments: ["wild_pointers_forever", "forever"], parameters: TaskParameters(keepsMappings: false)
          ) { _ in }
          usleep(UInt32(2000 + delay * 7))
          task.stop(.timeLimit)
          let end = try #require(task.wait(seconds: patience), "the kick was lost")
          #expect(end.exitStatus == 192)
        }
      }
    }

    @Test("a launch fails if the host has no thread or descriptor left, and a later one succeeds")
    func hostRunsOut() async {
      // Limits apply to the whole process, so this runs in its own process.
      await #expect(processExitsWith: .success) {
        let machine = try Machine()
        let noop = try machine.bundled("noop")
        let before = machine.server.statistics
        for (shortage, call) in [(withoutDescriptors, "KVM_CREATE_VCPU"), (withoutThreads, "pthread_create")] {
          try shortage {
            for _ in 0..<3 {
              let error = #expect(throws: MachineError.self) { _ = try machine.launch(noop) { _ in } }
              #expect(error?.description.contains(call) == true, "\(String(describing: error))")
            }
          }
        }
        #expect(machine.server.statistics.tasks == 0)
        #expect(machine.server.statistics.claimedFrames == 0)
        // Beside the tables kept for the slot's next task, one vCPU page is left, whose vCPU waits for a thread.
        machine.server.releaseClosedSpaces()
        #expect(machine.server.statistics.tableFrames == before.tableFrames + 1)
        try machine.run(noop)
        #expect(machine.server.checkInvariants() == [])
        machine.shutDown()
      }
    }
  }
}

/// Runs `body` while no thread can be created: each would need a stack larger than the address space.
private func withoutThreads(_ body: () throws -> Void) throws {
  // GNU extensions that the importer does not expose. Source: pthread_setattr_default_np(3).
  typealias Call = @convention(c) (UnsafeMutablePointer<pthread_attr_t>) -> Int32
  let get = unsafe unsafeBitCast(try #require(unsafe dlsym(nil, "pthread_getattr_default_np")), to: Call.self)
  let set = unsafe unsafeBitCast(try #require(unsafe dlsym(nil, "pthread_setattr_default_np")), to: Call.self)
  var attributes = pthread_attr_t()
  #expect(unsafe get(&attributes) == 0)
  var size = 0
  unsafe pthread_attr_getstacksize(&attributes, &size)
  unsafe pthread_attr_setstacksize(&attributes, 1 << 46)
  #expect(unsafe set(&attributes) == 0)
  defer {
    unsafe pthread_attr_setstacksize(&attributes, size)
    _ = unsafe set(&attributes)
  }
  try body()
}

/// Runs `body` while no file can be opened.
private func withoutDescriptors(_ body: () throws -> Void) throws {
  var limit = rlimit()
  unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  let next = unsafe open("/dev/null", O_RDONLY)
  close(next)
  var low = limit
  low.rlim_cur = rlim_t(next)
  unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &low)
  defer { unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) }
  try body()
}
