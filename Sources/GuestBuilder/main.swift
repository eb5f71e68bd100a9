// Builds guest programs. Two uses:
//   GuestBuilder embed --clang PATH --guest DIR --contract DIR --objects DIR -o FILE.swift
//     builds all bundled programs and writes them as one Swift file; the package's plugin runs it.
//   GuestBuilder cc --guest DIR --contract DIR --objects DIR -- ARGUMENTS OF scripts/guest-cc
//     builds a user's program.

import Foundation

/// The options before `--`, each with one value, and what follows `--`.
struct Invocation {
  let use: String
  private(set) var options: [String: String] = [:]
  private(set) var rest: [String] = []

  init(_ arguments: [String]) throws {
    var arguments = arguments[...]
    use = arguments.popFirst() ?? ""
    while let option = arguments.popFirst() {
      if option == "--" {
        rest = Array(arguments)
        break
      }
      guard let value = arguments.popFirst() else { throw BuildError.usage("\(option) needs a value.") }
      options[option] = value
    }
  }

  func value(of option: String) throws -> String {
    guard let value = options[option] else { throw BuildError.usage("\(option) is missing.") }
    return value
  }

  func compiler(with toolchain: Toolchain) throws -> GuestCompiler {
    try GuestCompiler(
      toolchain: toolchain,
      guest: value(of: "--guest"),
      contract: value(of: "--contract"),
      objects: value(of: "--objects")
    )
  }
}

func build() async throws {
  let invocation = try Invocation(Array(CommandLine.arguments.dropFirst()))
  switch invocation.use {
  case "embed":
    let clang = URL(fileURLWithPath: try invocation.value(of: "--clang")).resolvingSymlinksInPath()
    let toolchain = try Toolchain(root: clang.appending(path: "../.."))
    var compiler = try invocation.compiler(with: toolchain)
    try await compiler.embed(to: invocation.value(of: "-o"))
  case "cc":
    let program = try UserProgram(arguments: invocation.rest)
    var compiler = try invocation.compiler(with: .installed())
    try await compiler.prepare()
    try await program.build(with: compiler)
  default:
    throw BuildError.usage("the first argument is either embed or cc.")
  }
}

do {
  try await build()
} catch {
  let failure = error as? BuildError ?? .environment("\(error)")
  if !failure.message.isEmpty {
    try? FileHandle.standardError.write(contentsOf: Data("guest-cc: \(failure.message)\n".utf8))
  }
  exit(failure.status)
}
