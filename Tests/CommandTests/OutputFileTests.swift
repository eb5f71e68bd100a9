// Files that the command writes: whole or not at all, replacing only regular files, and never its inputs.

import Foundation
import OutputFiles
import SystemPackage
import Testing

@testable import physmem

@Suite struct OutputFileTests {
  private let folder: TemporaryDirectory
  private var path: String { folder.path }

  init() throws {
    folder = try TemporaryDirectory()
    _ = try CommandResult(
      shell:
        "cd \(folder.path) && printf old >file && chmod 640 file && ln -s file link && ln file hard && mkdir folder"
        + " && mkfifo pipe && ln -s nowhere dangling && ln -s pipe topipe")
  }

  private func write(_ name: String, _ text: String, inputs: [String] = [], isExecutable: Bool = false) throws {
    let inputs = Set(inputs.compactMap { FileIdentity(path: Array("\(path)/\($0)".utf8)) })
    try OutputFile(Array("\(path)/\(name)".utf8), inputs: inputs).write(Array(text.utf8), isExecutable: isExecutable)
  }

  private func shell(_ line: String) throws -> String {
    try CommandResult(shell: "cd \(path) && \(line)").output
  }

  @Test func `A new file`() throws {
    try write("new", "text")
    #expect(try shell("cat new; ls -A | grep -c physmem") == "text0\n")
  }

  @Test func `A file is replaced, and keeps its mode; processes that have it open see the old one`() throws {
    #expect(try shell("exec 3<file; echo; cat hard") == "\nold")
    try write("file", "new", isExecutable: true)
    #expect(try shell("cat file hard; stat -c %a file") == "newold750\n")
  }

  @Test func `A link stays, and its target is replaced`() throws {
    try write("link", "new")
    #expect(try shell("readlink link; cat file") == "file\nnew")
  }

  @Test(
    arguments: [
      ("folder", .directory), ("new/", .directory), ("pipe", .notRegular), ("topipe", .notRegular),
      ("dangling", .danglingLink), ("nowhere/new", .folder(ENOENT)), ("file/new", .system(ENOTDIR)),
    ] as [(String, OutputError)]
  )
  func `Only regular files are replaced`(name: String, error: OutputError) throws {
    let before = try shell("ls -lA")
    #expect(throws: error) { try write(name, "new") }
    #expect(try shell("ls -lA") == before)
  }

  @Test(arguments: ["file", "link", "hard", "folder/../file", "./file"])
  func `An input is not replaced, under any name`(name: String) throws {
    for input in ["file", "link", "hard"] {
      #expect(throws: OutputError.input) { try write(name, "new", inputs: ["folder", input]) }
    }
    #expect(try shell("cat file") == "old")
  }

  @Test func `A failed write keeps the old file`() throws {
    let status = try CommandResult(
      shell: "cd \(path) && (ulimit -f 0; exec \"$0\" test stack/guard_read --junit file >/dev/null 2>&1); echo $?")
    // The machine cannot be created either, which the report would say.
    #expect(status.output == "1\n")
    #expect(try shell("cat file; ls -A | grep -c physmem") == "old0\n")
  }
}
