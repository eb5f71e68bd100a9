// `physmem doctor`: can this machine run it, and what to do when not.

internal import ArgumentParser

struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Say whether this machine can run physmem, and what to do when not.",
    discussion: "Exits with 0 if it can, else with 1. A warning names what makes it slower, smaller or less private."
  )

  @Flag(help: "Print one JSON object: {\"ok\":…,\"checks\":[{\"name\",\"verdict\",\"detail\",\"advice\"},…]}.")
  var json = false

  func run() throws {
    let report = DoctorReport(.live)
    StandardStream.output.write((json ? report.json.description : report.text) + "\n")
    if !report.isOK { throw ExitCode.failure }
  }
}
