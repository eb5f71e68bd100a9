// Messages about wrong usage, and the help. None of this needs KVM.

import Testing

@testable import physmem

@Suite struct UsageTests {
  @Test(
    arguments: [
      (["foo"], "there is no command foo (see `physmem help`)"),
      (["help", "foo"], "there is no command foo (see `physmem help`)"),
      ([""], "there is no command '' (see `physmem help`)"),
      (["--foo"], "unknown option '--foo' (see `physmem help`)"),
      (["run"], "missing expected argument '<task>' (see `physmem help run`)"),
      (["run", "--"], "missing expected argument '<task>' (see `physmem help run`)"),
      (["run", "--memry", "1M", "noop"], "unknown option '--memry', did you mean '--memory' (see `physmem help run`)"),
      (["run", "--memory"], "missing value for '--memory <size>' (see `physmem help run`)"),
      (
        ["run", "--disk", "/nowhere/x", "noop"],
        "/nowhere/x: does not exist: make it first, for example with truncate"
      ),
      (
        ["run", "--disk", "/", "noop"],
        "/: is not a regular file: name a file with the disk's contents"
      ),
      (
        ["run", "--disk", "/dev/null,readonly", "noop"],
        "/dev/null: is not a regular file: name a file with the disk's contents"
      ),
      (
        ["run", "--disk", "/nowhere/a,b,readonly", "noop"],
        "/nowhere/a,b: does not exist: make it first, for example with truncate"
      ),
      (
        ["run"] + (0...64).flatMap { _ in ["--disk", "x"] } + ["noop"],
        "give --disk at most 64 times (see `physmem help run`)"
      ),
      (["run", "nope"], "there is no bundled program nope: see `physmem list`, or name a program's file"),
      (["run", ""], "there is no bundled program '': see `physmem list`, or name a program's file"),
      (["run", "/"], "/: is a directory: name a program's file"),
      (["run", "/dev/null"], "/dev/null: is not a regular file: name a program's file"),
      (
        ["run", "./nope"], "there is no file ./nope: name a program's file, or a bundled program (see `physmem list`)"
      ),
      (
        ["run", "tests/nope"],
        "there is no file tests/nope: name a program's file, or a bundled program (see `physmem list`)"
      ),
      (
        ["test", "no such case"],
        "no test case's name contains 'no such case': see `physmem list` for the programs with tests"
      ),
      (
        ["test", "--junit", "/nowhere/x"],
        "/nowhere/x: cannot be written (No such file or directory): name a file in a folder that can be written to"
      ),
      (
        ["bench", "alloc", "nope"],
        "there is no benchmark nope: name some of fault hypercall upcall launch alloc cow move superpage reclaim ipc disk"
      ),
      (["run", "--trace", "/", "hello"], "/: is a directory: name a file"),
      (
        ["test", "--junit", "/dev/null"],
        "/dev/null: is not a regular file: name one that may be replaced, or a new one"
      ),
      (["list", "extra"], "unexpected argument 'extra' (see `physmem help list`)"),
      (["doctor", "--nope"], "unknown option '--nope' (see `physmem help doctor`)"),
    ] as [([String], String)]
  )
  func `Bad usage is one sentence, and exits with 64`(arguments: [String], sentence: String) throws {
    let result = try CommandResult(arguments)
    #expect(result.error == "physmem: \(sentence)\n")
    #expect(result.output == "" && result.status == 64)
  }

  @Test(
    arguments: [
      ("--memory", "5Q", "from 1M to 4T, such as 256M"), ("--memory", "1023K", "from 1M to 4T, such as 256M"),
      ("--memory", "5T", "from 1M to 4T, such as 256M"), ("--memory", "", "from 1M to 4T, such as 256M"),
      ("--guaranteed", "-1", "missing value"), ("--guaranteed", "x", "frames from 0 to 1073741824"),
      ("--timeout", "0", "greater than 0"), ("--timeout", "nan", "greater than 0"),
      ("--timeout", "inf", "greater than 0"), ("--timeout", "1e400", "greater than 0"),
      ("--deadline", "0", "milliseconds from 1 to 10000"), ("--deadline", "10001", "milliseconds from 1 to 10000"),
      ("--deadline", "1.5", "milliseconds from 1 to 10000"),
      ("--fault-around", "0", "pages from 1 to 512, or auto"),
      ("--fault-around", "513", "pages from 1 to 512, or auto"),
      ("--fault-around", "some", "pages from 1 to 512, or auto"),
      ("--disk", "", "name a file"), ("--disk", ",readonly", "name a file"),
      ("--disk", "x,address-bits=16", "address-bits=24, 32 or 64"), ("--disk", "x,address-bits=", "24, 32 or 64"),
      ("--with", "x", "a name and a task"), ("--with", "=x", "a name and a task"),
      ("--with", "x=", "a name and a task"),
    ]
  )
  func `Values are checked`(option: String, value: String, reason: String) throws {
    let result = try CommandResult("run", option, value, "noop")
    #expect(result.error.hasPrefix("physmem: ") && result.error.hasSuffix("(see `physmem help run`)\n"))
    #expect(result.error.contains(reason) && result.error.count { $0.isNewline } == 1)
    #expect(result.output == "" && result.status == 64)
  }

  @Test(arguments: [
    ("true >f", "f: is empty: build it again with scripts/guest-cc"),
    ("echo '#!/bin/sh' >f", "f: is not an ELF file; compile a program with scripts/guest-cc"),
    ("printf '\\177ELF' >f", "f: is truncated: its headers name bytes past its end; build it or copy it again"),
    ("truncate -s 2G f", "f: has 2147483648 bytes, more than any guest program: name a program's file"),
    ("mkfifo f", "f: is not a regular file: name a program's file"),
    ("ln -s f f", "f: cannot be read (Too many levels of symbolic links): name a program's file that can"),
    ("mkdir f", "f: is a directory: name a program's file"),
  ])
  func `Files that are not programs`(make: String, sentence: String) throws {
    // Some files are checked before the machine is created, some after; both must give the message.
    let directory = try TemporaryDirectory()
    let result = try CommandResult(shell: "cd \(directory.path) && \(make) && exec \"$0\" run f")
    #expect(result.error == "physmem: \(sentence)\n" && result.output == "" && result.status == 64)
  }

  @Test func `A file may be named like an option or a bundled program`() throws {
    let directory = try TemporaryDirectory()
    let line = { (arguments: String) in
      "cd \(directory.path) && : >--help && : >noop && mkdir -p tests && : >tests/heap && exec \"$0\" run \(arguments)"
    }
    #expect(try CommandResult(shell: line("-- --help")).error.hasPrefix("physmem: --help: is empty:"))
    #expect(try CommandResult(shell: line("./--help")).error.hasPrefix("physmem: ./--help: is empty:"))
    #expect(try CommandResult(shell: line("./noop")).error.hasPrefix("physmem: ./noop: is empty:"))
    #expect(try CommandResult(shell: line("tests/heap")).error.hasPrefix("physmem: tests/heap: is empty:"))
  }

  @Test func `A file that may not be read`() throws {
    let directory = try TemporaryDirectory()
    let result = try CommandResult(shell: "cd \(directory.path) && echo x >f && chmod 0 f && exec \"$0\" run f")
    // Root may read any file.
    let reasons = ["physmem: f: cannot be read (Permission denied)", "physmem: f: is not an ELF file"]
    #expect(result.status == 64 && reasons.contains { result.error.hasPrefix($0) })
  }

  @Test(arguments: [
    ["--help"], ["-h"], ["help"], [], ["run", "--help"], ["help", "run"], ["list", "-h"], ["help", "test"],
    ["bench", "--help"], ["doctor", "--help"], ["help", "help"],
  ])
  func `Help is on standard output`(arguments: [String]) throws {
    let result = try CommandResult(arguments)
    #expect(result.status == 0 && result.error == "")
    #expect(result.output.contains("USAGE: physmem") && result.output.contains("OPTIONS:"))
  }

  @Test func `The version`() throws {
    let result = try CommandResult("--version")
    #expect(result.status == 0 && result.error == "")
    #expect(result.output.wholeMatch(of: /\d+\.\d+\.\d+\n/) != nil)
  }

  @Test func `Messages become one sentence`() {
    let sentence = { Physmem.oneSentence($0, ["run"]) }
    #expect(sentence("Unknown option.\nTry it.") == "unknown option. Try it (see `physmem help run`)")
    #expect(sentence("No 'a'. Did you mean 'b'?") == "no 'a', did you mean 'b' (see `physmem help run`)")
    #expect(Physmem.oneSentence("", []) == " (see `physmem help`)")
  }

  @Test func `Standard output without a reader`() throws {
    // A pipeline's status is that of the reader, so the writer's is printed.
    let quiet = try CommandResult(shell: "{ \"$0\" list; echo $? >&2; } | true")
    #expect(quiet.error == "141\n")
    let ignored = try CommandResult(shell: "trap '' PIPE; { \"$0\" list; echo $? >&2; } | true")
    #expect(ignored.error == "141\n")
  }

  @Test func `Standard output that cannot be written is an error`() throws {
    let closed = try CommandResult(shell: "exec \"$0\" list >&-")
    #expect(closed.status == 1 && closed.error.hasPrefix("physmem: standard output cannot be written (Bad file"))
    let full = try CommandResult(shell: "exec \"$0\" list >/dev/full")
    #expect(full.status == 1 && full.error.hasPrefix("physmem: standard output cannot be written (No space left"))
  }
}
