// Errors of building guests. Each is one sentence for the user.

struct BuildError: Error {
  let message: String
  /// The exit status of the process.
  let status: Int32

  /// Wrong arguments; 64 is EX_USAGE.
  static func usage(_ message: String) -> BuildError { BuildError(message: message, status: 64) }

  /// Something on this machine is missing or does not work.
  static func environment(_ message: String) -> BuildError { BuildError(message: message, status: 69) }

  /// A compiler or the linker failed and has printed its own message.
  static func toolFailed(status: Int32) -> BuildError { BuildError(message: "", status: status == 0 ? 1 : status) }
}
