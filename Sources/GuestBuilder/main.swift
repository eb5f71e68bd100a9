// Builds guest programs. Two uses:
//   GuestBuilder embed --clang PATH --guest DIR --contract DIR --objects DIR -o FILE.swift
//     builds all bundled programs and writes them as one Swift file; the package's plugin runs it.
//   GuestBuilder cc --guest DIR --contract DIR --objects DIR --scratch DIR -- ARGUMENTS OF scripts/guest-cc
//     builds a user's program.

import Foundation

/// The options before `--`, each with one value, and the arguments after it.
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

/// Rejects names that are not UTF-8: as text, Swift and the compilers would get other names.
func arguments() throws -> [String] {
  // SAFETY: main's own arguments, which end with a null.
  try unsafe (1..<max(1, Int(CommandLine.argc))).compactMap { unsafe CommandLine.unsafeArgv[$0] }.map {
    guard let text = unsafe String(validatingCString: $0) else {
      throw BuildError.usage("\(unsafe String(cString: $0)): is not UTF-8: rename the file.")
    }
    return text
  }
}

func build() async throws {
  let invocation = try Invocation(arguments())
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
    try await program.build(with: compiler, scratch: invocation.value(of: "--scratch"))
  default:
    throw BuildError.usage("the first argument is either embed or cc.")
  }
}

/// Makes a name safe for a message: characters that control a terminal or end the line become question marks.
func visible(_ text: String) -> String {
  let categories: Set<Unicode.GeneralCategory> = [
    .control, .format, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
  ]
  return String(
    String.UnicodeScalarView(text.unicodeScalars.map { categories.contains($0.properties.generalCategory) ? "?" : $0 }))
}

let signalSources = RunningTools.endOnSignals()

do {
  try await build()
} catch {
  let failure = error as? BuildError ?? .environment("\(error.localizedDescription)")
  if !failure.message.isEmpty {
    try? FileHandle.standardError.write(contentsOf: Data("guest-cc: \(visible(failure.message))\n".utf8))
  }
  exit(failure.status)
}
