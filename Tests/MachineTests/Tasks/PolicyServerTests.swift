// The bundled policy server and its clients, on a real machine (R4, R7, R10, R13, R14).

import Glibc
import Machine
import PhysicalMemory
import Testing

/// A running policy server on a machine, and tasks of the program `contract`.
private struct PolicyBed {
  let machine: Machine
  let policy: GuestTask
  let transcript = Transcript()
  let contract: Program
  let keepsMappings: Bool

  init(_ machine: Machine, _ text: String?, keepsMappings: Bool = true) throws {
    self.machine = machine
    self.keepsMappings = keepsMappings
    contract = try machine.bundled("contract")
    policy = try machine.launch(
      machine.bundled("policy-server"), arguments: text.map { [$0] } ?? [],
      parameters: TaskParameters(name: "policy", keepsMappings: keepsMappings), console: transcript.console)
    try wait { machine.server.statistics.policyCommits > 0 }
  }

  func wait(_ condition: () -> Bool) throws {
    let isTrue = becomesTrue(condition)
    try #require(isTrue, "\(transcript.text)")
  }

  func launch(_ name: String, _ arguments: [String], _ transcript: Transcript) throws -> GuestTask {
    try machine.launch(
      contract, arguments: arguments, parameters: TaskParameters(name: name, keepsMappings: keepsMappings),
      console: transcript.console)
  }

  /// Runs `contract`.
  /// - Returns: the guarantees it reports, with those of its contracts, and its exit status.
  func run(_ name: String, _ arguments: String...) throws -> (guaranteed: [Int], status: Int32?) {
    let transcript = Transcript()
    let end = try launch(name, arguments, transcript).wait(seconds: patience)
    let numbers = transcript.text.split(separator: "\n").compactMap { line in
      line.firstMatch(of: /: (\d+) frames guaranteed/).flatMap { Int($0.1) }
    }
    return (Array(arguments.isEmpty ? numbers[...] : numbers.dropFirst()), end?.exitStatus)
  }
}

extension OnKVM {
  @Suite struct PolicyServerTests {
    /// `contract` needs about 50 frames to start; the quotas here are larger.
    private static let file = """
      # who gets what
      alpha 300 fixed
      beta  4M  extra  # 1024 frames
      default 100 extra
      grace 20
      """

    @Test("R7, R14: a task gets the entry of the file for its name, or the default", arguments: [false, true])
    func quotas(isDisturbed: Bool) throws {
      try withMachine(MachineConfiguration(revocationInterval: isDisturbed ? 100 : nil)) { machine in
        let bed = try PolicyBed(machine, Self.file, keepsMappings: !isDisturbed)
        for (name, guaranteed) in [("alpha", 300), ("beta", 1024), ("gamma", 100), ("alph", 100), ("alpha2", 100)] {
          // A launch waits a limited time for the policy server: on a busy machine a task may start without it.
          var found: [Int] = []
          for _ in 0..<50 where found != [guaranteed] { found = try bed.run(name).guaranteed }
          #expect(found == [guaranteed], "\(name)")
        }
        #expect(bed.policy.wait(seconds: 0) == nil, "\(bed.transcript.text)")
      }
    }

    @Test("R4, R14: contracts are granted, rejected, and expire to the file's entry", arguments: [false, true])
    func contracts(isDisturbed: Bool) throws {
      try withMachine(MachineConfiguration(revocationInterval: isDisturbed ? 100 : nil)) { machine in
        let bed = try PolicyBed(machine, Self.file, keepsMappings: !isDisturbed)
        #expect(try bed.run("alpha", "5000", "extra") == ([5000], 0))
        let (found, status) = try bed.run("alpha", "5000", "fixed", "30")
        #expect(found.last == 300 && status == 0)
        #expect(try bed.run("alpha", "100000000", "extra") == ([], 2))
        #expect(try bed.run("gamma", "18446744073709551615", "fixed") == ([], 2))
        #expect(bed.policy.wait(seconds: 0) == nil, "\(bed.transcript.text)")
        #expect(machine.server.statistics.tasks == 1)
      }
    }

    @Test("R14: a smaller guarantee takes effect after the grace time, a larger one at once") func grace() throws {
      try withMachine { machine in
        let bed = try PolicyBed(machine, "default 300 fixed\ngrace 1000000")
        // The second request is for one frame more, the third for fewer again.
        #expect(try bed.run("any", "500", "extra", "1000000", "3") == ([501], 0))
        #expect(try bed.run("any", "500", "extra", "1000000", "2") == ([501], 0))
      }
      try withMachine { machine in
        let bed = try PolicyBed(machine, "default 300 fixed\ngrace 0")
        #expect(try bed.run("any", "500", "extra", "1000000", "3") == ([500], 0))
      }
    }

    @Test("R8, R14: taking control turns no allocated frames into extra ones if they fit") func firstContact() throws {
      try withMachine { machine in
        let sleeper = try machine.launch(machine.bundled("sleep"), arguments: ["1000000"]) { _ in }
        let bed = try PolicyBed(machine, "default 1 fixed")
        let statistics = machine.server.statistics
        #expect(statistics.claimedFrames >= statistics.allocatedFrames)
        sleeper.stop(.machineEnd)
        _ = sleeper.wait()
        #expect(try bed.run("any").status == 0)
      }
    }

    @Test("R4, R14: if the file asks for too much, tasks get what is available, and the rest when it is free")
    func scarcity() throws {
      try withMachine(MachineConfiguration(memory: 64 << 20)) { machine in
        let bed = try PolicyBed(machine, "policy 200 fixed\ndefault 9000 fixed\ngrace 0")
        let sleep = try machine.bundled("sleep")
        let first = try machine.launch(sleep, arguments: ["1000000"]) { _ in }
        try bed.wait { machine.server.statistics.claimedFrames >= 9000 }
        let second = try machine.launch(sleep, arguments: ["1000000"]) { _ in }
        let found = try bed.run("any").guaranteed
        #expect(found.count == 1 && found[0] > 0 && found[0] < 9000)
        #expect(try bed.run("any", "1000", "extra") == ([1000], 0))
        let claimed = machine.server.statistics.claimedFrames
        #expect(claimed > 9000 && claimed < 10000)
        first.stop(.machineEnd)
        _ = first.wait()
        // The first task's 9,000 frames go to the second.
        try bed.wait { machine.server.statistics.tasks == 2 && machine.server.statistics.claimedFrames >= 9000 }
        #expect(bed.policy.wait(seconds: 0) == nil, "\(bed.transcript.text)")
        second.stop(.machineEnd)
        _ = second.wait()
      }
    }

    @Test("R13: with more tasks than entries the policy server gets a larger buffer and continues")
    func manyTasks() throws {
      try withMachine { machine in
        let bed = try PolicyBed(machine, Self.file)
        let sleep = try machine.bundled("sleep")
        var sleepers: [GuestTask] = []
        for _ in 0..<140 {
          sleepers.append(
            try machine.launch(sleep, arguments: ["1000000"], parameters: TaskParameters(name: "alpha")) { _ in })
        }
        try bed.wait { machine.server.statistics.claimedFrames >= 140 * 300 }
        #expect(try bed.run("beta", "2000", "extra") == ([2000], 0))
        #expect(bed.policy.wait(seconds: 0) == nil, "\(bed.transcript.text)")
        for task in sleepers { task.stop(.machineEnd) }
        for task in sleepers { _ = task.wait() }
        #expect(try bed.run("alpha", "50000", "fixed") == ([50000], 0))
      }
    }

    @Test("R10, R14: a second policy server takes over unnoticed while clients negotiate")
    func takeOver() throws {
      try withMachine { machine in
        let bed = try PolicyBed(machine, Self.file)
        let server = try machine.bundled("policy-server")
        let kept = try bed.launch("alpha", ["4000", "fixed", "100000000", "1"], Transcript())
        #expect(kept.wait(seconds: patience)?.exitStatus == 0)
        let transcript = Transcript()
        let clients = try (0..<3).map { _ in
          try bed.launch("beta", ["2000", "extra", "1000000", "\(rounds(1000))"], transcript)
        }
        var servers = [bed.policy]
        for _ in 0..<5 {
          usleep(20_000)
          servers.append(
            try machine.launch(
              server, arguments: [Self.file], parameters: TaskParameters(name: "policy-server"),
              console: bed.transcript.console))
          let end = try #require(servers[servers.count - 2].wait(seconds: patience), "\(bed.transcript.text)")
          #expect(end.exitStatus == 0, "\(bed.transcript.text)")
        }
        for client in clients { #expect(client.wait(seconds: patience)?.exitStatus == 0, "\(transcript.text)") }
        // A task with another name does not get control.
        let (end, _) = try machine.run(server, [], TaskParameters(name: "somebody"))
        #expect(end.exitStatus == 1)
        #expect(try bed.run("alpha", "500", "extra") == ([500], 0))
        #expect(servers[servers.count - 1].wait(seconds: 0) == nil, "\(bed.transcript.text)")
      }
    }

    @Test("R10: contracts pass to the next policy server and expire there") func contractsGoOver() throws {
      try withMachine { machine in
        let bed = try PolicyBed(machine, Self.file)
        let transcript = Transcript()
        let client = try bed.launch("alpha", ["4000", "fixed", milliseconds(1500)], transcript)
        try bed.wait { transcript.text.contains("4000 frames guaranteed") }
        let second = try machine.launch(
          machine.bundled("policy-server"), arguments: ["alpha 77 fixed\ngrace 0"],
          parameters: TaskParameters(name: "policy"), console: bed.transcript.console)
        #expect(bed.policy.wait(seconds: patience)?.exitStatus == 0, "\(bed.transcript.text)")
        #expect(machine.server.statistics.claimedFrames >= 4000)
        #expect(client.wait(seconds: patience)?.exitStatus == 0)
        #expect(transcript.text.contains("when it has expired: 77 frames"), "\(transcript.text)")
        #expect(second.wait(seconds: 0) == nil, "\(bed.transcript.text)")
      }
    }

    @Test("R9: after the policy server dies its policy holds, and tasks start") func policyServerDies() throws {
      try withMachine { machine in
        let bed = try PolicyBed(machine, Self.file)
        let sleeper = try bed.machine.launch(
          machine.bundled("sleep"), arguments: ["1000000"], parameters: TaskParameters(name: "beta")
        ) { _ in }
        try bed.wait { machine.server.statistics.claimedFrames >= 1024 }
        bed.policy.stop(.timeLimit)
        _ = bed.policy.wait()
        #expect(machine.server.statistics.claimedFrames == 1024)
        // Without a policy server it gets no more than it starts with, and cannot ask for more.
        let found = try bed.run("alpha").guaranteed
        #expect(found.count == 1 && found[0] > 0 && found[0] < 300)
        #expect(try bed.run("alpha", "5000", "extra") == ([], 2))
        let transcript = Transcript()
        let (end, _) = try machine.run(
          machine.bundled("policy-server"), [], TaskParameters(name: "policy"), console: transcript.console)
        #expect(end.exitStatus == 1)
        #expect(transcript.text.contains("another task has control"))
        sleeper.stop(.machineEnd)
        _ = sleeper.wait()
      }
    }

    @Test("R14: each bad line of a file is reported, and no line of it takes effect") func badFile() throws {
      try withMachine { machine in
        let server = try machine.bundled("policy-server")
        let lines: [(String, String)] = [
          ("a 1", "is followed by two words"), ("a 1 extra fixed", "is followed by two words"),
          ("a x extra", "x is no size"), ("a 1G extra", "1G is no size"), ("a -1 extra", "-1 is no size"),
          ("a 99999999999999999999 extra", "is no size"), ("a 999999999999999M extra", "is no size"),
          ("a 1 some", "some is neither extra nor fixed"), ("grace", "grace is followed by"),
          ("grace x", "grace is followed by"), ("b 1 extra\nb 2 fixed", "b was there before"),
          (String(repeating: "n", count: 64) + " 1 extra", "at most 63 bytes"),
        ]
        for (text, sentence) in lines {
          let transcript = Transcript()
          let (end, _) = try machine.run(server, ["\n" + text], console: transcript.console)
          #expect(end.exitStatus == 64)
          #expect(transcript.text.contains(sentence), "\(text): \(transcript.text)")
          #expect(transcript.text.hasPrefix("policy line \(text.contains("\n") ? 3 : 2): "), "\(transcript.text)")
        }
        for text in ["", "\n", "# nothing", "a 1 extra # b", "default 0 fixed\r\ngrace 0\r\n", "\ta\t1K\tfixed"] {
          let task = try machine.launch(server, arguments: [text], parameters: TaskParameters(name: "policy")) { _ in }
          #expect(task.wait(seconds: 0.3)?.exitStatus != 64, "\(text)")
          task.stop(.timeLimit)
          _ = task.wait()
        }
      }
    }
  }
}
