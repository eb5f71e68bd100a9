// scripts/guest-cc: the files it writes, and those it does not touch.

import Foundation
import Testing

@testable import physmem

@Suite struct GuestCompilerTests {
  private let folder: TemporaryDirectory

  init() throws {
    folder = try TemporaryDirectory()
    _ = try shell(
      "echo 'int main(void) { return 0; }' >p.c && ln -s p.c link && ln p.c hard && mkfifo pipe && mkdir folder")
  }

  /// Runs a line of sh(1) in the folder, with the script as `$guest_cc` and temporary files in `tmp`.
  private func shell(_ line: String) throws -> CommandResult {
    let package = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..").standardized.path
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    return try CommandResult(
      shell:
        "cd \(folder.path) && mkdir -p tmp && export PATH='\(path)' HOME=\(folder.path) TMPDIR=\(folder.path)/tmp && "
        + "guest_cc='\(package)/scripts/guest-cc' && { \(line); }")
  }

  @Test(
    arguments: [
      ("p.c", "has the name of a source"), ("x.h", "has the name of a source"), ("link", "is read by this command"),
      ("hard", "is read by this command"), ("./folder/../link", "is read by this command"),
      ("pipe", "is not a regular file"), ("/dev/null", "is not a regular file"), ("folder", "is a directory"),
      ("nowhere/p.elf", "No such file or directory"),
    ]
  )
  func `Only a replaceable file is replaced`(output: String, reason: String) throws {
    let before = try shell("ls -l . /dev/null; cat p.c").output
    let result = try shell("$guest_cc p.c -o \(output)")
    #expect(result.status == 64 && result.error.contains("guest-cc: \(output): "))
    #expect(result.error.contains(reason) && result.error.split(separator: "\n").count == 1)
    #expect(try shell("ls -l . /dev/null; cat p.c").output == before)
  }

  @Test func `No source can be the output`() throws {
    let result = try shell(
      "echo 'int f(void) { return 1; }' >q.c; ln q.c r; $guest_cc p.c q.c -o r; s=$?; cat q.c; exit $s")
    #expect(result.status == 64 && result.output == "int f(void) { return 1; }\n")
  }

  @Test func `A program is complete and executable, and nothing else is left`() throws {
    let result = try shell("$guest_cc p.c -o p.elf && \"$0\" run p.elf && stat -c %a p.elf && ls -A tmp")
    #expect(result.status == 0 && result.output == "755\n")
    #expect(try shell("echo 'int main(' >bad.c; $guest_cc bad.c -o p.elf; \"$0\" run p.elf; ls -A tmp").output == "")
  }

  @Test(arguments: ["TERM", "HUP"])
  func `An interrupted build leaves nothing behind`(signal: String) throws {
    // The header is a pipe, which the compiler reads until the signal kills it.
    let result = try shell(
      "mkfifo slow.h; echo '#include \"slow.h\"' >s.c; $guest_cc s.c -o s.elf & p=$!; "
        + "until [ -n \"$(ls -A tmp)\" ]; do sleep 0.05; done; kill -\(signal) $p; wait $p; echo $?; ls -A tmp; ls s.elf; timeout 2 sh -c ': >slow.h'"
    )
    #expect(result.output == (signal == "TERM" ? "143\n" : "129\n"))
  }

  @Test func `A name that is not text is rejected with a message`() throws {
    let result = try shell("$guest_cc \"$(printf 'x\\351.c')\" -o x.elf")
    #expect(result.status == 64 && result.error.contains("is not UTF-8: rename the file."))
    let escape = try shell("$guest_cc \"$(printf 'x\\033\\n.c')\" -o x.elf")
    #expect(escape.status == 64 && escape.error.split(separator: "\n").count == 1 && !escape.error.contains("\u{1b}"))
  }
}
