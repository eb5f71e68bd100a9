// The value of `--disk`: a file, and its options.

internal import ArgumentParser
internal import Machine

/// IMAGE[,readonly][,address-bits=24|32|64]
struct DiskArgument: Equatable {
  let path: OutsideName
  private(set) var isReadOnly = false
  private(set) var addressBits = 64

  init(_ text: String) throws {
    var parts = text.split(separator: ",", omittingEmptySubsequences: false)[...]
    // Parsed from the end: the rest belongs to the file's name.
    options: while parts.count > 1, let option = parts.last {
      switch option {
      case "readonly": isReadOnly = true
      case "address-bits=24": addressBits = 24
      case "address-bits=32": addressBits = 32
      case "address-bits=64": addressBits = 64
      case _ where option.hasPrefix("address-bits="):
        throw ValidationError("give address-bits=24, 32 or 64, the width of the disk's addresses")
      default: break options
      }
      parts.removeLast()
    }
    path = OutsideName(parts.joined(separator: ","))
    guard !path.bytes.isEmpty else { throw ValidationError("name a file with the disk's contents") }
  }

  func open() throws(CommandFailure) -> DiskConfiguration {
    do throws(BackingFileError) {
      let file = try BackingFile(path.path, isReadOnly: isReadOnly)
      return DiskConfiguration(file: file, addressBits: addressBits) { sentence in
        // The disk waits for this, and its users must not wait for a slow reader of standard error.
        attempt(seconds: 0.1) { complain(sentence) }
      }
    } catch {
      throw .usage("\(path): \(error)")
    }
  }
}
