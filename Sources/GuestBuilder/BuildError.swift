// The ways in which building guests fails. Each is one sentence for the person at the terminal.

struct BuildError: Error {
  let message: String
  /// What the process exits with.
  let status: Int32

  /// Wrong arguments; 64 is EX_USAGE.
  static func usage(_ message: String) -> BuildError { BuildError(message: message, status: 64) }

  /// Something that should be on this machine is not, or does not work.
  static func environment(_ message: String) -> BuildError { BuildError(message: message, status: 69) }

  /// A compiler or the linker has said what is wrong; nothing to add.
  static func toolFailed(status: Int32) -> BuildError { BuildError(message: "", status: status == 0 ? 1 : status) }
}
