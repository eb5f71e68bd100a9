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

  @Option(
    help: ArgumentHelp(
      "Move a page's content to another frame at random each time so many microseconds have gone by.",
      valueName: "microseconds"),
    transform: { UInt64(try parseCount($0, of: "microseconds", in: 1...1_000_000_000)) }
  )
  var moveEvery: UInt64?

  @Flag(help: "Move contents together all the time, so that free frames lie together.")
  var defragment = false

  @Flag(help: "Let tasks map pages again by themselves when the server has unmapped them.")
  var noMappingCache = false

  func apply(to configuration: inout MachineConfiguration) {
    configuration.revocationInterval = revokeEvery
    configuration.moveInterval = moveEvery
    if defragment { configuration.defragmentation = .continuous }
  }
  func apply(to parameters: inout TaskParameters) { parameters.keepsMappings = !noMappingCache }
}
