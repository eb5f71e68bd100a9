// Builds every bundled program and writes one Swift file that holds their images.

import Foundation

/// A bundled program: the sources that share a name in one of the guest's folders, such as guest/tests/heap.c, or
/// guest/tests/swift.swift with guest/tests/swift.c.
struct GuestProgram {
  let name: String
  let group: String
  var sources: [String]
}

extension GuestCompiler {
  static let groups = ["tests", "examples", "servers", "bench"]

  /// - Returns: the bundled programs, ordered by group and name.
  func programs() throws -> [GuestProgram] {
    var programs: [GuestProgram] = []
    for group in Self.groups {
      let sources = files(in: group, where: { $0.hasSuffix(".c") || $0.hasSuffix(".swift") })
      let named = Dictionary(grouping: sources) {
        URL(fileURLWithPath: $0).deletingPathExtension().lastPathComponent
      }
      for (name, sources) in named.sorted(by: { $0.key < $1.key }) {
        guard !programs.contains(where: { $0.name == name }) else {
          throw BuildError.usage("two guest programs are named \(name): rename one of their source files.")
        }
        programs.append(GuestProgram(name: name, group: group, sources: sources))
      }
    }
    return programs
  }

  /// What all programs of a group are linked with: the C files of its folder's subfolder `support`.
  private func support(of group: String) throws -> [BuildStep] {
    try files(in: group + "/support", where: { $0.hasSuffix(".c") }).map {
      try compileC($0, options: Self.strict + ["-O2"])
    }
  }

  private func compile(_ program: GuestProgram) throws -> [BuildStep] {
    var steps = try program.sources.filter { $0.hasSuffix(".c") }
      .map { try compileC($0, options: Self.strict + ["-O2"]) }
    let swift = program.sources.filter { $0.hasSuffix(".swift") }
    if !swift.isEmpty {
      steps.append(
        try compileSwift(swift, module: "Program_" + program.name, options: Self.strictSwift + ["-Osize"])
      )
    }
    return steps
  }

  /// Builds everything and writes the Swift file.
  mutating func embed(to generated: String) async throws {
    try await prepare()
    let programs = try programs()
    let compilations = try programs.map(compile)
    let supports = try Dictionary(uniqueKeysWithValues: Self.groups.map { ($0, try support(of: $0)) })
    try await BuildStep.run(supports.values.flatMap { $0 } + compilations.flatMap { $0 })
    let links = try zip(programs, compilations).map { program, steps in
      try link((steps + supports[program.group, default: []]).map(\.output), named: program.name)
    }
    try await BuildStep.run(links)
    var text = """
      // Made by GuestBuilder from the sources in guest/.
      extension GuestImages {
        static let embedded: [GuestImage] = [

      """
    for (program, image) in zip(programs, links.map(\.output)) {
      guard let bytes = FileManager.default.contents(atPath: image) else {
        throw BuildError.environment("\(image) cannot be read.")
      }
      let literal = bytes.base64EncodedString()
      text += "    GuestImage(name: \"\(program.name)\", group: \"\(program.group)\", base64: \"\(literal)\"),\n"
    }
    text += "  ]\n}\n"
    do {
      try text.write(toFile: generated, atomically: true, encoding: .utf8)
    } catch {
      throw BuildError.environment("\(generated) cannot be written.")
    }
    let steps = supports.values.flatMap { $0 } + compilations.flatMap { $0 } + links
    removeResults(except: Set(steps.map(\.output) + library))
  }

  /// Results of sources as they were before are of no use any more.
  private func removeResults(except kept: Set<String>) {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: objects)) ?? []
    for name in names where name != "modules" {
      let path = "\(objects)/\(name)"
      let owner = name.hasSuffix(".module") ? String(path.dropLast(".module".count)) : path
      if !kept.contains(owner) { try? FileManager.default.removeItem(atPath: path) }
    }
  }
}
