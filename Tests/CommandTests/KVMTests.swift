// The command with machines, serialized so that benchmarks and time limits are meaningful.

import Foundation
import KVM
import Machine
import PhysicalMemory
import SystemPackage
import Testing

@testable import physmem

/// Why no machine can be created here; nil if it can.
private let obstacle: String? = {
  do throws(Errno) {
    _ = try KVMDevice()
    return nil
  } catch { return "\(error)" }
}()

@Suite(.serialized, .enabled(if: obstacle == nil, "needs a usable /dev/kvm: \(obstacle ?? "it is usable")"))
struct KVMTests {
  // MARK: run

  @Test func `The command passes on a task's output and status`() throws {
    let hello = try CommandResult("run", "hello", "--help", "--stats", "a b", "--", "")
    #expect(hello.status == 0 && hello.error == "")
    #expect(
      hello.output
        == "Hello from task 1.\nargument 1: --help\nargument 2: --stats\nargument 3: a b\nargument 4: --\nargument 5: \n"
    )
    #expect(try CommandResult("run", "tests/stack", "no-such-case").status == 64)
    let other = try CommandResult("run", "--memory", "8M", "--fault-around=1", "--timeout=600", "--", "examples/hello")
    #expect(other.status == 0 && other.output == "Hello from task 1.\n")
  }

  @Test func `A task that dies is reported`() throws {
    let result = try CommandResult("run", "tests/stack", "overflow")
    #expect(result.status == 142)
    #expect(result.error.hasPrefix("tests/stack: task 1 died: page fault: write to 0x"))
    #expect(result.error.contains("the stack overflowed") && result.error.contains(/\n  #0  0x[0-9a-f]+ depth/))
    #expect(result.error.contains(/\n +rax 0x/) && result.error.hasSuffix("\n"))
  }

  @Test func `A handler's stack overflow is reported`() throws {
    let result = try CommandResult("run", "tests/pager_limits", "handler_overflows")
    #expect(result.status == 142)
    #expect(result.error.contains(", the guard below the fault handler's stack: the stack overflowed\n"))
  }

  @Test func `The counts of a task's faults agree in its statistics, the server's and the trace`() throws {
    let result = try CommandResult(
      shell:
        "f=$(mktemp) && \"$0\" run --stats=json --trace \"$f\" selfpager 40 10 >/dev/null && cat \"$f\" && rm \"$f\"")
    let statistics = try object(result.error)
    let task = try #require(statistics["task"] as? [String: Int])
    let server = try #require(statistics["server"] as? [String: Int])
    for (name, count) in task { #expect(server[name] == count, "\(name)") }
    #expect(task.keys.sorted() == ["delivered_faults", "faults", "pages_served", "spurious_faults"])
    #expect((task["delivered_faults"] ?? 0) > 30)
    let events = try #require(try object(result.output)["traceEvents"] as? [[String: Any]])
    let faults = events.filter { $0["name"] as? String == "fault" }
    let pages = faults.compactMap { ($0["args"] as? [String: Int])?["pages"] }
    #expect(
      faults.count == task["faults", default: 0] + task["spurious_faults", default: 0]
        + task["delivered_faults", default: 0])
    // Some pages were served for pointer arguments of calls.
    #expect(pages.count == faults.count && pages.reduce(0, +) <= task["pages_served", default: 0])
    #expect(pages.count { $0 == 0 } >= task["delivered_faults", default: 0])
  }

  @Test func `A trace`() throws {
    let result = try CommandResult(shell: "f=$(mktemp) && \"$0\" run --trace \"$f\" hello && cat \"$f\" && rm \"$f\"")
    #expect(result.status == 0 && result.output.contains("\"traceEvents\":["))
    #expect(result.output.contains("\"name\":\"fault\"") && result.output.contains("\"name\":\"call\""))
    #expect(try CommandResult("run", "--trace", "/nowhere/trace", "hello").status == 64)
  }

  @Test func `A trace does not replace an input`() throws {
    let result = try CommandResult(
      shell:
        "cd $(mktemp -d) && echo program >p && ln p q && \"$0\" run --trace q ./p; s=$?; cat p; rm -r $PWD; exit $s")
    #expect(result.status == 64 && result.output == "program\n")
    #expect(result.error == "physmem: q: is read by this command and would be replaced: name another file\n")
  }

  @Test func `Names and arguments that are not text`() throws {
    let result = try CommandResult(
      shell: "exec \"$0\" run hello \"$(printf 'a\\351b')\" | od -An -tx1 | tr -d ' \\n'")
    #expect(result.output.hasSuffix("61e9620a"))
    let report = try CommandResult(
      shell:
        "cd $(mktemp -d); n=$(printf '\\351\\033'); \"$0\" run --trace \"$n\" hello && ls | od -An -tx1; rm -r $PWD")
    #expect(report.output.hasSuffix(" e9 1b 0a\n"))
  }

  @Test func `The parent's signal settings have no effect`() throws {
    let ignored = try CommandResult(shell: "trap '' CHLD USR1; exec \"$0\" bench launch --quick")
    #expect(ignored.status == 0 && ignored.output.contains("launch.cold"))
  }

  @Test func `Signals from outside interrupt nothing`() throws {
    let result = try CommandResult(
      // exec keeps the shell's pid and ignored signals: before the command sets them up, the signal would kill it.
      shell: "trap '' USR1; (while kill -USR1 $$; do :; done) 2>/dev/null & exec \"$0\" test stack/guard_read")
    #expect(result.status == 0 && result.output == "1 passed, 0 failed\n")
  }

  @Test func `Little address space is enough for a small machine`() throws {
    let result = try CommandResult(shell: "ulimit -v 500000; exec \"$0\" run --memory 1M hello")
    #expect(result.status == 0 && result.output == "Hello from task 1.\n")
    let large = try CommandResult(shell: "ulimit -v 500000; exec \"$0\" run --memory 1G hello")
    #expect(large.status == 1 && large.error.hasPrefix("physmem: making the pool failed (Cannot allocate memory)"))
    let tables = try CommandResult(shell: "ulimit -v 135500000; exec \"$0\" run --memory 64G hello")
    #expect(
      tables.status == 1 && tables.error.hasPrefix("physmem: the limit on address space, 132324 MiB, leaves no room"))
  }

  @Test func `Each failure to load has its own message`() throws {
    let small = try CommandResult(
      "run", "--memory", "1M", "--with", "other=fileserver", "--with", "more=cache", "hungry")
    #expect(small.status == 64 && small.error.contains("cache needs 128 frames and the pool has"))
  }

  @Test func `A time limit`() throws {
    let result = try CommandResult("run", "--timeout", "0.2", "nullcall", "1000000000000")
    #expect(result.status == 192)
    #expect(result.error == "physmem: nullcall did not end within 0.2 seconds and was stopped\n")
  }

  /// A full pipe without a reader, as the shell's descriptor 3.
  private static let fullPipe = "d=$(mktemp -d) && mkfifo $d/p && exec 3<>$d/p && head -c 65536 /dev/zero >&3"

  @Test(arguments: [">&3", "2>&3 >&3"])
  func `A time limit holds if the output is not read`(streams: String) throws {
    let result = try CommandResult(
      shell: "\(Self.fullPipe); timeout 60 \"$0\" run --timeout 0.2 hello \(streams); s=$?; rm -r $d; exit $s")
    #expect(result.status == 192)
    let isTold = !streams.contains("2>")
    #expect(result.error == (isTold ? "physmem: hello did not end within 0.2 seconds and was stopped\n" : ""))
  }

  @Test func `A time limit holds if the report of a companion that died is not read`() throws {
    let result = try CommandResult(
      shell:
        "\(Self.fullPipe); timeout 60 \"$0\" run --timeout 20 --with other=broken broken calls 2>&3; s=$?; rm -r $d; exit $s"
    )
    #expect(result.status == 142 && result.output == "The call ended with PM_ECANCELED.\n")
  }

  @Test(arguments: ["INT", "TERM"])
  func `A signal ends the command`(signal: String) throws {
    let result = try CommandResult(shell: "timeout -s \(signal) 0.3 \"$0\" run nullcall 1000000000000")
    #expect(result.status == 124 && result.error == "" && result.output == "")
  }

  @Test func `Contracts`() throws {
    #expect(try CommandResult("run", "--guaranteed", "100", "hello").status == 0)
    #expect(try CommandResult("run", "--guaranteed", "1", "--extra", "hello").status == 0)
    let few = try CommandResult("run", "--guaranteed", "1", "hello")
    #expect(few.status == 64 && few.error.contains("is limited to 1: use a larger --guaranteed, or --extra"))
    let many = try CommandResult("run", "--guaranteed", "1000000", "hello")
    #expect(many.status == 64 && many.error.hasPrefix("physmem: 1000000 frames cannot be guaranteed, only "))
    let long = try CommandResult("run", "hello", String(repeating: "x", count: 100_000))
    #expect(long.status == 64 && long.error.hasPrefix("physmem: the arguments are longer than"))
  }

  @Test func `A policy`() throws {
    func run(_ text: String, _ task: String) throws -> CommandResult {
      try CommandResult(
        shell:
          "f=$(mktemp) && printf '\(text)' > \"$f\" && \"$0\" run --policy \"$f\" \(task); s=$?; rm \"$f\"; exit $s")
    }
    let alone = try run("contract 500 fixed\\ngrace 0\\n", "contract 700 extra")
    #expect(alone.status == 0 && alone.error == "")
    #expect(alone.output.contains(/under contract: 700 frames guaranteed/))
    let bad = try run("contract some fixed\\n", "contract")
    #expect(bad.status == 64 && bad.output == "")
    #expect(bad.error == "policy line 1: some is no size: give frames, or bytes with K or M, such as 64, 256K or 1M.\n")
    let missing = try CommandResult("run", "--policy", "/nowhere/policy", "hello")
    #expect(missing.status == 64 && missing.error.hasPrefix("physmem: /nowhere/policy: cannot be read ("))
    #expect(try CommandResult("run", "--policy", "/", "hello").error.contains("is not a regular file"))
    let large = try run("%070000d", "hello")
    #expect(large.status == 64 && large.error.contains("has 70000 bytes: a policy may have 61440"))
    #expect(try run("a\\000b", "hello").error.contains("is not text"))
    // A byte order mark before the first line must not hide that line.
    let marked = try run("\\357\\273\\277contract 500 fixed\\n", "contract 700 extra")
    #expect(marked.status == 0 && marked.output.contains("at the start: 500 frames guaranteed"))
    let companion = try CommandResult("run", "--with", "policy=policy-server", "--timeout", "600", "contract")
    #expect(companion.status == 0 && companion.error == "")
  }

  @Test func `Exceeding the limit of file sizes fails with a message`() throws {
    let directory = try TemporaryDirectory()
    // sh(1) counts in units of 512 bytes: 32 MiB; bash(1) in 1,024.
    func run(_ limit: Int, _ arguments: String) throws -> CommandResult {
      try CommandResult(
        shell: "cd \(directory.path) && truncate -s 128M image && ulimit -f \(limit) && exec \"$0\" run \(arguments)")
    }
    let disk = "--memory 16M --disk image --with disk=blockdriver diskclient"
    let far = try run(65536, "\(disk) 204800 far")
    #expect(far.status == 1 && far.output.hasSuffix("diskclient: the driver's answer: PM_EIO\n"))
    let sentence = "a write to image, sector 204800, failed: File too large; the request failed"
    #expect(far.error == "physmem: disk 0, driven by task 1: \(sentence)\n")
    let near = try run(65536, "\(disk) 0 near")
    #expect(near.status == 0 && near.error == "")
    #expect(try CommandResult(shell: "head -c 4 \(directory.path)/image").output == "near")
    let pool = try run(4, "hello")
    #expect(pool.status == 1 && pool.output == "")
    #expect(pool.error.hasPrefix("physmem: making the pool failed (File too large): run `physmem doctor`"))
  }

  @Test func `Statistics are on standard error`() throws {
    let text = try CommandResult("run", "--stats", "hello")
    #expect(text.status == 0 && text.output == "Hello from task 1.\n")
    #expect(text.error.contains(/(?m)^server +tasks created +1$/) && text.error.contains(/(?m)^task +faults +\d+$/))
    let json = try CommandResult("run", "--stats=json", "hello")
    let object = try object(json.error)
    let server = try #require(object["server"] as? [String: Int])
    #expect(server["frames"] == 65536 && server["split_by_copies"] == 0 && server["pages_served_by_superpages"] == 0)
    #expect((object["task"] as? [String: Int])?["pages_served"] != nil)
  }

  @Test func `A task that keeps frames is dropped, as the statistics show`() throws {
    let result = try CommandResult(
      shell:
        "f=$(mktemp) && printf 'rogue 400 extra\\nhungry 2000 fixed\\n' > \"$f\" && \"$0\" run --memory 16M --timeout 600 --stats=json "
        + "--policy \"$f\" --with hungry=hungry rogue; s=$?; rm \"$f\"; exit $s")
    #expect(result.status == 194)
    #expect(result.output.contains(/^rogue: has \d+ frames\nrogue: \d+ frames are asked for, and not given\n/))
    #expect(result.error.contains(/rogue: task \d+ died: dropped by the server: \d+ frames were asked back and not/))
    let line = try #require(result.error.split(separator: "\n").last { $0.hasPrefix("{") })
    let server = try #require(try object(String(line))["server"] as? [String: Int])
    #expect(server["tasks_dropped"] == 1 && (server["upcalls"] ?? 0) >= 1 && server["allocated_frames"] != nil)
    #expect(server["released_frames"] == 0 && server["frames_expired"] == 0 && server["frames_given_back"] != nil)
  }

  @Test func `Other tasks are started first, and write to standard error`() throws {
    // Long enough for the others to end.
    let result = try CommandResult("run", "--with", "first=hello", "--with=second=noop", "nullcall", "20000")
    #expect(result.status == 0 && result.output == "" && result.error == "Hello from task 1.\n")
    #expect(try CommandResult("run", "--with=first=noop", "hello").output == "Hello from task 2.\n")
    let unknown = try CommandResult("run", "--with", "first=nope", "hello")
    #expect(unknown.status == 64 && unknown.error.contains("no bundled program nope") && unknown.output == "")
  }

  @Test func `The death of a companion is reported, and makes the command fail`() throws {
    let died = try CommandResult("run", "--with", "other=broken", "broken", "calls")
    #expect(died.status == 142 && died.output == "The call ended with PM_ECANCELED.\n")
    #expect(died.error.hasPrefix("other: broken: task 1 died: page fault: write to 0x8"))
    // The main task's own status takes precedence.
    let both = try CommandResult("run", "--with", "fileserver=broken", "--timeout", "0.3", "spin")
    #expect(both.status == 192)
  }

  @Test func `A server drops unwanted capabilities`() throws {
    // Four capabilities in each call: more than a task has handles.
    let result = try CommandResult("run", "--with", "server=fileserver", "fileclient", "17000")
    #expect(
      result.status == 0 && result.error == "" && result.output.contains("The file's page 4 : page 4, line 0, second"))
  }

  @Test func `The same program is loaded once`() throws {
    let result = try CommandResult(
      ["run"] + (0..<200).flatMap { ["--with", "n\($0)=noop"] } + ["--memory", "16M", "--stats=json", "noop"])
    #expect(result.status == 0)
    let line = try #require(result.error.split(separator: "\n").last { $0.hasPrefix("{") })
    let server = try #require(try object(String(line))["server"] as? [String: Int])
    #expect(server["tasks_created"] == 201)
    // One container for the program, and one for each task that has not ended yet.
    let containers = try #require(server["containers"]), tasks = try #require(server["tasks"])
    #expect(containers - tasks < 10)
  }

  @Test func `A task's output without a reader`() throws {
    let quiet = try CommandResult(shell: "{ \"$0\" run hello; echo $? >&2; } | true")
    // The task may have written before the reader ended.
    #expect(quiet.error == "141\n" || quiet.error == "0\n")
    let closed = try CommandResult(shell: "exec \"$0\" run hello >&-")
    #expect(closed.status == 1 && closed.error.hasPrefix("physmem: standard output cannot be written (Bad file"))
  }

  // MARK: test

  @Test func `Guest-side tests pass, and are reported`() throws {
    let directory = try TemporaryDirectory()
    let file = "\(directory.path)/junit.xml"
    let result = try CommandResult("test", "stack/guard", "--junit", file)
    #expect(result.status == 0 && result.error == "" && result.output == "2 passed, 0 failed\n")
    let xml = try String(contentsOfFile: file, encoding: .utf8)
    #expect(xml.contains(#"<testsuite name="stack" tests="2" failures="0""#) && xml.contains(#"name="guard_read""#))
    let verbose = try CommandResult("test", "-v", "stack/guard")
    #expect(verbose.output.contains(/(?m)^stack\/guard_read   passed +\d+ ms  \w/))
    let json = try CommandResult("test", "--json", "stack/guard")
    #expect(try object(json.output)["passed"] as? Int == 2 && json.error == "2 passed, 0 failed\n")
  }

  @Test func `A failed case is reported with its output`() throws {
    let program = try #require(BundledProgram.all().first { $0.name == "stack" })
    var pace = TestPace()
    func run(_ test: GuestTest) -> TestResult {
      TestResult(
        TestCase(program: program, test: test), configuration: MachineConfiguration(), parameters: TaskParameters(),
        pace: &pace, timeLimit: { 120 * $0.slowness })
    }
    let result = run(GuestTest(name: "none", expectedStatuses: [0, 3], copies: 2, summary: ""))
    #expect(result.failure == "status 64 instead of 0 or 3")
    #expect(result.output == "stack has no case none\nstack has no case none\n")
    let wrong = GuestTest(name: "overflow", expectedStatuses: [0], copies: 1, summary: "")
    #expect(
      run(wrong).failure?.hasPrefix("status 142 instead of 0\nstack: task 1 died") == true
    )
  }

  // MARK: bench

  @Test func `Benchmarks as JSON`() throws {
    let result = try CommandResult("bench", "--quick", "--json", "alloc", "hypercall")
    #expect(result.status == 0 && result.error == "")
    let object = try object(result.output)
    let host = try #require(object["host"] as? [String: Any])
    #expect(Set(host.keys) == ["cpu", "kernel", "kvm", "cores", "build"] && host["cores"] as? Int ?? 0 > 0)
    let benchmarks = try #require(object["benchmarks"] as? [[String: Any]])
    let sizes = ["256M", "64G", "1T"]
    #expect(
      benchmarks.compactMap { $0["name"] as? String }
        == ["hypercall"] + sizes.flatMap { ["alloc.take.\($0)", "alloc.give.\($0)"] } + ["start.256M", "start.64G"]
    )
    for benchmark in benchmarks {
      #expect(benchmark["unit"] as? String == "ns" && benchmark["count"] as? Int ?? 0 > 0)
      #expect(["page", "operation", "frame"].contains(benchmark["per"] as? String))
      let values = ["min", "p50", "p90", "p99", "max"].compactMap { (benchmark[$0] as? NSNumber)?.doubleValue }
      #expect(values.count == 5 && values == values.sorted() && values[0] > 0)
    }
  }

  @Test func `Benchmarks as a table`() throws {
    let result = try CommandResult("bench", "--quick", "fault", "launch")
    #expect(result.status == 0 && result.error == "")
    for name in ["fault.around1", "fault.around16", "fault.auto", "launch.warm", "launch.cold"] {
      #expect(result.output.contains("\n\(name) "))
    }
  }

  private func object(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }
}
