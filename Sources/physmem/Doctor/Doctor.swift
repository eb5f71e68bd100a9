// `physmem doctor`: whether this machine can run physmem, and remedies if not.

internal import ArgumentParser

struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check whether this machine can run physmem, and suggest remedies.",
    discussion: "Exits with 0 if it can, else with 1. A warning names a cause of lower speed, size or privacy."
  )

  @Flag(help: "Print one JSON object: {\"ok\":…,\"checks\":[{\"name\",\"verdict\",\"detail\",\"advice\"},…]}.")
  var json = false

  func run() throws {
    let report = DoctorReport(.live)
    StandardStream.output.write((json ? report.json.description : report.text) + "\n")
    if !report.isOK { throw ExitCode.failure }
  }
}
