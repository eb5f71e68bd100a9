// Switches that make the server do at random what it may do at any time, for `physmem run` and `physmem test`.

internal import ArgumentParser
internal import Machine
internal import PhysicalMemory

struct TestSwitches: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Unmap a page at random each time so many microseconds have gone by.", valueName: "microseconds"),
    transform: { UInt64(try parseCount($0, of: "microseconds", in: 1...1_000_000_000)) }
  )
  var revokeEvery: UInt64?

  @Flag(help: "Let tasks map pages again by themselves when the server has unmapped them.")
  var noMappingCache = false

  func apply(to configuration: inout MachineConfiguration) { configuration.revocationInterval = revokeEvery }
  func apply(to parameters: inout TaskParameters) { parameters.keepsMappings = !noMappingCache }
}
