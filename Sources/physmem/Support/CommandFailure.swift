// The command's failures.

internal import Machine

enum ExitStatus {
  static let failure: Int32 = 1
  /// EX_USAGE of <sysexits.h>: the request is invalid, or names something that does not exist.
  static let usage: Int32 = 64
}

/// A sentence for standard error, without its full stop, and the exit status.
struct CommandFailure: Error, Equatable {
  let sentence: String
  let status: Int32

  static func usage(_ sentence: String) -> CommandFailure {
    CommandFailure(sentence: sentence, status: ExitStatus.usage)
  }

  static func failure(_ sentence: String) -> CommandFailure {
    CommandFailure(sentence: sentence, status: ExitStatus.failure)
  }
}

extension CommandFailure {
  init(_ error: MachineError) {
    sentence = error.description
    status =
      switch error {
      // Other arguments would help.
      case .badImage, .badLayout, .tooSmall, .tooManyPrograms, .argumentsTooLong, .overcommitted, .guaranteeTooSmall:
        ExitStatus.usage
      case .noKVM, .missingCapability, .kvm, .system, .noAddressSpace, .lent, .noMemory, .tooManyTasks, .shutDown:
        ExitStatus.failure
      }
  }
}

/// A name from the user, for a sentence: in quotes if it would not show otherwise.
func quoted(_ name: String) -> String { OutsideName(name).description }
