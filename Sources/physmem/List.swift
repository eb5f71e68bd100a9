// `physmem list`: the bundled guest programs.

internal import ArgumentParser
internal import GuestImages
internal import Machine

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the bundled guest programs.")

  @Flag(help: "Print one JSON object: {\"programs\":[{\"group\",\"name\",\"summary\",\"tests\":[…]},…]}.")
  var json = false

  func run() throws {
    let programs = try BundledProgram.all()
    StandardStream.output.write(json ? Self.json(programs).description + "\n" : Self.table(programs))
  }

  private static func table(_ programs: [BundledProgram]) -> String {
    let rows = programs.map { program -> [String] in
      let cases = program.info.tests.count
      let count = cases == 0 ? "" : cases == 1 ? "1 case" : "\(cases) cases"
      return [program.group, program.name, count, program.info.summary ?? ""]
    }
    return alignedTable([["group", "name", "tests", "summary"]] + rows)
  }

  private static func json(_ programs: [BundledProgram]) -> JSONValue {
    let objects = programs.map { program -> JSONValue in
      [
        "group": .string(program.group), "name": .string(program.name),
        "summary": program.info.summary.map { .string($0) } ?? .null,
        "tests": .array(program.info.tests.map(\.json)),
      ]
    }
    return ["programs": .array(objects)]
  }
}

extension GuestTest {
  fileprivate var json: JSONValue {
    [
      "name": .string(name), "expected": .array(expectedStatuses.map { .integer(Int($0)) }),
      "copies": .integer(copies), "summary": .string(summary),
    ]
  }
}

/// A bundled program, with its metadata.
struct BundledProgram {
  let group: String
  let name: String
  let bytes: [UInt8]
  let info: ProgramInfo

  static func all() throws(CommandFailure) -> [BundledProgram] {
    try GuestImages.all.map { image throws(CommandFailure) in
      let bytes = image.bytes
      do throws(ELFError) {
        return BundledProgram(
          group: image.group,
          name: image.name,
          bytes: bytes,
          info: ProgramInfo(try ELFImage(bytes: bytes))
        )
      } catch {
        throw .failure("the bundled program \(image.name) \(error): this build of physmem is broken, build it again")
      }
    }
  }
}
