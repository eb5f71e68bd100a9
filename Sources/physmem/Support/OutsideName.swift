// Names and arguments from outside: bytes that may not be text.

internal import ArgumentParser
internal import CStart
internal import Machine
internal import OutputFiles
internal import SystemPackage

/// ArgumentParser takes arguments as text. A byte that is not UTF-8 is encoded as a scalar beyond all planes with
/// characters, U+10FF80 to U+10FFFF, and so are the bytes of these scalars themselves: the encoding is lossless.
enum ArgumentText {
  /// The process's arguments, without its own name.
  static func all() -> [String] {
    // SAFETY: strings that end with a NUL and live as long as the process.
    (1..<max(1, Int(cstart_argument_count()))).map { index in
      let argument = unsafe cstart_argument(Int32(index))
      var bytes: [UInt8] = []
      while case let byte = unsafe argument[bytes.count], byte != 0 { bytes.append(UInt8(bitPattern: byte)) }
      return text(bytes)
    }
  }

  static func text(_ bytes: [UInt8]) -> String {
    var text = ""
    var rest = bytes[...]
    while let first = rest.first {
      if let scalar = firstScalar(rest), !isStandIn(scalar) {
        text.unicodeScalars.append(scalar)
        rest = rest.dropFirst(UTF8.width(scalar))
      } else {
        text.unicodeScalars.append(standIn(first))
        rest = rest.dropFirst()
      }
    }
    return text
  }

  static func bytes(_ text: some StringProtocol) -> [UInt8] {
    text.unicodeScalars.flatMap { scalar in
      isStandIn(scalar) ? [UInt8(truncatingIfNeeded: scalar.value)] : Array(String(scalar).utf8)
    }
  }

  /// Returns nil if the bytes do not begin with one.
  private static func firstScalar(_ bytes: ArraySlice<UInt8>) -> Unicode.Scalar? {
    for width in 1...4 where width <= bytes.count {
      if let text = String(validating: bytes.prefix(width), as: UTF8.self) { return text.unicodeScalars.first }
    }
    return nil
  }

  private static func isStandIn(_ scalar: Unicode.Scalar) -> Bool { scalar.value >= 0x10_ff80 }

  /// Only bytes above 0x7f are ever invalid.
  private static func standIn(_ byte: UInt8) -> Unicode.Scalar { Unicode.Scalar(0x10_ff00 + UInt32(byte)) ?? "?" }
}

/// The name of a file or program, or an argument, as given. Its description is safe for a terminal.
struct OutsideName: Equatable, Sendable, CustomStringConvertible, ExpressibleByArgument {
  let bytes: [UInt8]

  init(bytes: [UInt8]) { self.bytes = bytes }

  /// Also for text from the command line.
  init(_ text: some StringProtocol) { bytes = ArgumentText.bytes(text) }
  init?(argument: String) { self.init(argument) }

  var description: String { visibleName(bytes) }

  /// Nil if it is not text.
  var text: String? { String(validating: bytes, as: UTF8.self) }

  var hasSlash: Bool { bytes.contains(UInt8(ascii: "/")) }

  var path: FilePath {
    // SAFETY: a string that ends with a NUL, and is copied.
    unsafe FilePath(platformString: bytes.map { CInterop.PlatformChar(bitPattern: $0) } + [0])
  }

  /// The identity of the file at that path; nil if there is none.
  var identity: FileIdentity? { FileIdentity(path: bytes) }
}
