// Compiling and linking a guest program: the steps, and the flags for bare-metal code.

import Foundation

/// Creates a folder and its parents, unless it exists.
func makeFolder(_ path: String) throws {
  do {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  } catch {
    throw BuildError.environment("the folder \(path) cannot be created: create it, or let this user write there.")
  }
}

struct GuestCompiler {
  let toolchain: Toolchain
  /// The folder with the headers, the library, the Swift module and the programs.
  let guest: String
  /// The folder with the contract's header, physmem/abi.h.
  let contract: String
  /// The folder for results, which are named by hashes of their inputs.
  let objects: String

  /// The library's object files, C and Swift, as built by `prepare`.
  private(set) var library: [String] = []
  private var swiftModule = ""
  private var common = Fingerprint()

  init(toolchain: Toolchain, guest: String, contract: String, objects: String) throws {
    self.toolchain = toolchain
    self.guest = guest
    self.contract = contract
    self.objects = objects
    try makeFolder(objects)
    common.add(toolchain.clang)
    let headers = files(in: "include", "include/physmem", "library", "tests", "examples", "servers/support", "swift") {
      $0.hasSuffix(".h") || $0.hasSuffix("map")
    }
    for header in headers + [contract + "/physmem/abi.h"] { try common.add(contentsOf: header) }
  }

  /// The files of some folders of the guest, sorted.
  func files(in folders: String..., where wanted: (String) -> Bool) -> [String] {
    folders.flatMap { folder in
      let path = "\(guest)/\(folder)"
      let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
      return names.sorted().filter(wanted).map { "\(path)/\($0)" }
    }
  }

  /// Compiles the library, once for all programs.
  mutating func prepare() async throws {
    var steps: [BuildStep] = []
    for source in files(in: "library", where: { $0.hasSuffix(".c") }) {
      steps.append(try compileC(source, options: ["-Os"] + Self.strict))
    }
    let sources = files(in: "swift", where: { $0.hasSuffix(".swift") })
    if !sources.isEmpty {
      let step = try compileSwift(
        sources,
        module: "Physmem",
        options: ["-Osize", "-strict-memory-safety"] + Self.strictSwift
      )
      steps.append(step)
      swiftModule = step.output + ".module"
    }
    try await BuildStep.run(steps)
    library = steps.map(\.output)
  }

  // MARK: Steps

  /// Flags for the project's own guests, optional for a user's.
  static let strict = ["-Werror"]
  static let strictSwift = ["-warnings-as-errors"]

  /// - Parameter output: the path of the result; nil for one named by a hash of its inputs; the source must then
  ///   include no headers except the guest's own.
  func compileC(_ source: String, options: [String], output: String? = nil) throws -> BuildStep {
    let arguments =
      [
        "--target=x86_64-unknown-none-elf", "-std=c23", "-nostdlibinc", "-fno-builtin",
        // One image at a fixed address, with no run-time support except the library's.
        "-fno-pic", "-mcmodel=small", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
        // The report of a task's death follows the frame pointers.
        "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer",
        "-ffunction-sections", "-fdata-sections",
        "-Wall", "-Wextra",
      ] + options + includes + ["-c", source, "-o", BuildStep.output]
    return BuildStep(
      tool: toolchain.clang,
      arguments: arguments,
      output: try output ?? place(for: stem(of: source) + ".o", arguments: arguments, sources: [source])
    )
  }

  /// Compiles `sources` as one module; the library's own module leaves a module file beside its object file.
  func compileSwift(
    _ sources: [String],
    module: String,
    options: [String],
    output: String? = nil
  ) throws -> BuildStep {
    var arguments =
      [
        "-enable-experimental-feature", "Embedded", "-target", "x86_64-unknown-none-elf", "-wmo", "-parse-as-library",
        "-swift-version", "6", "-module-name", module,
        "-Xcc", "-fno-pic", "-Xfrontend", "-function-sections", "-Xfrontend", "-disable-stack-protector",
        "-module-cache-path", objects + "/modules", "-I", guest + "/swift",
      ] + options + includes.flatMap { ["-Xcc", $0] } + sources
    if !swiftModule.isEmpty { arguments += ["-I", swiftModule] }
    let output = try output ?? place(for: module + ".o", arguments: arguments, sources: sources)
    if swiftModule.isEmpty {
      try makeFolder(output + ".module")
      arguments += ["-emit-module", "-emit-module-path", "\(output).module/\(module).swiftmodule"]
    }
    return BuildStep(tool: toolchain.swiftc, arguments: arguments + ["-c", "-o", BuildStep.output], output: output)
  }

  /// Links a program's object files with the parts of the library that they use.
  func link(_ program: [String], to output: String, keepDebugInformation: Bool = false) -> BuildStep {
    var arguments = ["-static", "-T", layout, "--gc-sections", "--build-id=none", "-z", "noexecstack"]
    // The symbols stay, for backtraces.
    if !keepDebugInformation { arguments.append("--strip-debug") }
    arguments += program + ["--start-lib"] + library + ["--end-lib", toolchain.unicodeTables]
    arguments += [toolchain.compilerRuntime, "-o", BuildStep.output]
    return BuildStep(tool: toolchain.linker, arguments: arguments, output: output)
  }

  /// The same, to a path named by a hash of the image's inputs.
  func link(_ program: [String], named name: String) throws -> BuildStep {
    let arguments = link(program, to: "").arguments
    return link(program, to: try place(for: name + ".elf", arguments: arguments, sources: [layout]))
  }

  // MARK: Parts

  private var layout: String { guest + "/library/task.ld" }
  private var includes: [String] { ["-I\(guest)/include", "-I\(contract)"] }

  private func stem(of path: String) -> String {
    URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
  }

  private func place(for name: String, arguments: [String], sources: [String]) throws -> String {
    var print = common
    for argument in arguments { print.add(argument) }
    for source in sources { try print.add(contentsOf: source) }
    return "\(objects)/\(print.text)-\(name)"
  }
}
