// Builds one program from sources that a user names, anywhere on the machine: what scripts/guest-cc runs.

import Foundation

struct UserProgram {
  private(set) var sources: [String] = []
  private(set) var output: String?
  private(set) var optionsOfC: [String] = ["-O2"]
  private(set) var optionsOfSwift: [String] = ["-Osize"]
  private(set) var keepsDebugInformation = false

  static let usage = "usage: guest-cc SOURCE.c|SOURCE.swift… -o PROGRAM.elf [-O0…-O3|-Os] [-g] [-D…] [-I…] [-W…]"

  init(arguments: [String]) throws {
    var rest = arguments[...]
    func value(of option: String) throws -> String {
      guard let value = rest.popFirst() else { throw BuildError.usage("\(option) needs a value; \(Self.usage)") }
      return value
    }
    while let argument = rest.popFirst() {
      switch argument {
      case "-o": output = try value(of: "-o")
      case "-D", "-I": try take(option: argument + value(of: argument))
      case _ where argument.hasPrefix("-"): try take(option: argument)
      default: try take(source: argument)
      }
    }
    guard !sources.isEmpty else { throw BuildError.usage("no source file was given; \(Self.usage)") }
    guard let output else { throw BuildError.usage("no output was given; \(Self.usage)") }
    let folder = URL(fileURLWithPath: output).deletingLastPathComponent().path
    guard FileManager.default.isWritableFile(atPath: folder) else {
      throw BuildError.usage("\(output) cannot be written: \(folder) does not exist or is read-only.")
    }
  }

  private mutating func take(source: String) throws {
    guard source.hasSuffix(".c") || source.hasSuffix(".swift") else {
      throw BuildError.usage("\(source) is neither a .c nor a .swift file.")
    }
    guard FileManager.default.isReadableFile(atPath: source) else {
      throw BuildError.usage("\(source) does not exist or cannot be read.")
    }
    sources.append(source)
  }

  private mutating func take(option: String) throws {
    switch option {
    case "-g":
      keepsDebugInformation = true
      optionsOfC.append(option)
      optionsOfSwift.append(option)
    case "-O0":
      optionsOfC.append(option)
      optionsOfSwift.append("-Onone")
    case "-Os", "-Oz":
      optionsOfC.append(option)
      optionsOfSwift.append("-Osize")
    case "-O", "-O1", "-O2", "-O3":
      optionsOfC.append(option)
      optionsOfSwift.append("-O")
    case _ where option.hasPrefix("-D"):
      optionsOfC.append(option)
      // A Swift condition has no value.
      if !option.contains("=") { optionsOfSwift.append(option) }
      optionsOfSwift += ["-Xcc", option]
    case _ where option.hasPrefix("-I"):
      optionsOfC.append(option)
      optionsOfSwift += ["-Xcc", option, option]
    case _ where ["-W", "-std=", "-f", "-m"].contains(where: option.hasPrefix):
      optionsOfC.append(option)
    default:
      throw BuildError.usage("the option \(option) is not known; \(Self.usage)")
    }
  }

  func build(with compiler: GuestCompiler) async throws {
    guard let output else { return }
    let files = FileManager.default
    let scratch = files.temporaryDirectory.appending(path: "guest-cc-\(UUID().uuidString)").path
    try files.createDirectory(atPath: scratch, withIntermediateDirectories: true)
    defer { try? files.removeItem(atPath: scratch) }
    var steps = try sources.filter { $0.hasSuffix(".c") }.enumerated().map { index, source in
      try compiler.compileC(source, options: optionsOfC, output: "\(scratch)/\(index).o")
    }
    let swift = sources.filter { $0.hasSuffix(".swift") }
    if !swift.isEmpty {
      let output = scratch + "/swift.o"
      steps.append(try compiler.compileSwift(swift, module: "Program", options: optionsOfSwift, output: output))
    }
    try await BuildStep.run(steps)
    let link = compiler.link(
      steps.map(\.output),
      to: output,
      keepDebugInformation: keepsDebugInformation
    )
    try await link.run()
  }
}
