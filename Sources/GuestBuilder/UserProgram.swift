// Builds one program from a user's sources, anywhere on the machine: scripts/guest-cc runs it.

import Foundation
import OutputFiles

struct UserProgram {
  private(set) var sources: [String] = []
  private var output: OutputFile?
  private(set) var optionsOfC: [String] = ["-O2"]
  private(set) var optionsOfSwift: [String] = ["-Osize"]
  private(set) var keepsDebugInformation = false

  static let usage = "usage: guest-cc SOURCE.c|SOURCE.swift… -o PROGRAM.elf [-O0…-O3|-Os] [-g] [-D…] [-I…] [-W…]"

  init(arguments: [String]) throws {
    var rest = arguments[...]
    var name: String?
    func value(of option: String) throws -> String {
      guard let value = rest.popFirst() else { throw BuildError.usage("\(option) needs a value; \(Self.usage)") }
      return value
    }
    while let argument = rest.popFirst() {
      switch argument {
      case "-o": name = try value(of: "-o")
      case "-D", "-I": try take(option: argument + value(of: argument))
      case _ where argument.hasPrefix("-"): try take(option: argument)
      default: try take(source: argument)
      }
    }
    guard !sources.isEmpty else { throw BuildError.usage("no source file was given; \(Self.usage)") }
    guard let name else { throw BuildError.usage("no output was given; \(Self.usage)") }
    output = try Self.output(name, sources: sources)
  }

  /// Never replaces a source, under whatever name, nor a possible header of one.
  private static func output(_ name: String, sources: [String]) throws -> OutputFile {
    for ending in [".c", ".h", ".swift"] where name.hasSuffix(ending) {
      throw BuildError.usage("\(name): has the name of a source: name a program's file, such as program.elf.")
    }
    do throws(OutputError) {
      return try OutputFile(Array(name.utf8), inputs: Set(sources.compactMap { FileIdentity(path: Array($0.utf8)) }))
    } catch {
      throw BuildError.usage("\(name): \(error).")
    }
  }

  private mutating func take(source: String) throws {
    guard source.hasSuffix(".c") || source.hasSuffix(".swift") else {
      throw BuildError.usage("\(source) is neither a .c nor a .swift file.")
    }
    var isFolder: ObjCBool = false
    // SAFETY: the variable outlives the call.
    guard unsafe FileManager.default.fileExists(atPath: source, isDirectory: &isFolder), !isFolder.boolValue,
      FileManager.default.isReadableFile(atPath: source)
    else { throw BuildError.usage("\(source) does not exist or cannot be read.") }
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
      throw BuildError.usage("unknown option \(option); \(Self.usage)")
    }
  }

  /// - Parameter scratch: a folder for intermediate files; its creator removes it.
  func build(with compiler: GuestCompiler, scratch: String) async throws {
    guard let output else { return }
    var steps = try sources.filter { $0.hasSuffix(".c") }.enumerated().map { index, source in
      try compiler.compileC(source, options: optionsOfC, output: "\(scratch)/\(index).o")
    }
    let swift = sources.filter { $0.hasSuffix(".swift") }
    if !swift.isEmpty {
      let output = scratch + "/swift.o"
      steps.append(try compiler.compileSwift(swift, module: "Program", options: optionsOfSwift, output: output))
    }
    try await BuildStep.run(steps)
    let image = scratch + "/program.elf"
    let link = compiler.link(steps.map(\.output), to: image, keepDebugInformation: keepsDebugInformation)
    try await link.run()
    guard let bytes = FileManager.default.contents(atPath: image) else {
      throw BuildError.environment("\(image) cannot be read.")
    }
    do throws(OutputError) {
      try output.write(Array(bytes), isExecutable: true)
    } catch {
      throw BuildError.environment("\(String(decoding: output.path, as: UTF8.self)): \(error).")
    }
  }
}
