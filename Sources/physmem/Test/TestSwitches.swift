// Switches that make the server do at random what it may do at any time, for `physmem run` and `physmem test`.

internal import ArgumentParser
internal import Machine
internal import PhysicalMemory

struct TestSwitches: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Unmap a random page at this interval.", valueName: "microseconds"),
    transform: { UInt64(try parseCount($0, of: "microseconds", in: 1...1_000_000_000)) }
  )
  var revokeEvery: UInt64?

  @Option(
    help: ArgumentHelp(
      "Move a random page's content to another frame at this interval.",
      valueName: "microseconds"),
    transform: { UInt64(try parseCount($0, of: "microseconds", in: 1...1_000_000_000)) }
  )
  var moveEvery: UInt64?

  @Flag(help: "Defragment all the time.")
  var defragment = false

  @Flag(help: "Keep no mappings: tasks map pages again themselves after the server has unmapped them.")
  var noMappingCache = false

  func apply(to configuration: inout MachineConfiguration) {
    configuration.revocationInterval = revokeEvery
    configuration.moveInterval = moveEvery
    if defragment { configuration.defragmentation = .continuous }
  }
  func apply(to parameters: inout TaskParameters) { parameters.keepsMappings = !noMappingCache }
}
