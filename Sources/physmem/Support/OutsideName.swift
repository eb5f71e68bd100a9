// Names and arguments from outside: bytes, of which nobody knows whether they are text.

internal import ArgumentParser
internal import CStart
internal import Machine
internal import OutputFiles
internal import SystemPackage

/// ArgumentParser takes arguments as text. A byte that is none travels as a scalar of its own behind all planes that
/// have characters, U+10FF80 to U+10FFFF, and so do the bytes of these scalars themselves: nothing is lost on the way.
enum ArgumentText {
  /// What the process was started with, without its own name.
  static func all() -> [String] {
    // SAFETY: strings that end with a NUL and stay for as long as the process.
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

  /// Nil: the bytes do not begin with one.
  private static func firstScalar(_ bytes: ArraySlice<UInt8>) -> Unicode.Scalar? {
    for width in 1...4 where width <= bytes.count {
      if let text = String(validating: bytes.prefix(width), as: UTF8.self) { return text.unicodeScalars.first }
    }
    return nil
  }

  private static func isStandIn(_ scalar: Unicode.Scalar) -> Bool { scalar.value >= 0x10_ff80 }

  /// Only bytes above 0x7f are ever none of a character's.
  private static func standIn(_ byte: UInt8) -> Unicode.Scalar { Unicode.Scalar(0x10_ff00 + UInt32(byte)) ?? "?" }
}

/// The name of a file or program, or an argument, as it came. Its description is fit for a terminal.
struct OutsideName: Equatable, Sendable, CustomStringConvertible, ExpressibleByArgument {
  let bytes: [UInt8]

  init(bytes: [UInt8]) { self.bytes = bytes }

  /// Also of text from the command line.
  init(_ text: some StringProtocol) { bytes = ArgumentText.bytes(text) }
  init?(argument: String) { self.init(argument) }

  var description: String { visibleName(bytes) }

  /// Nil: it is no text.
  var text: String? { String(validating: bytes, as: UTF8.self) }

  var hasSlash: Bool { bytes.contains(UInt8(ascii: "/")) }

  var path: FilePath {
    // SAFETY: a string that ends with a NUL, and is copied.
    unsafe FilePath(platformString: bytes.map { CInterop.PlatformChar(bitPattern: $0) } + [0])
  }

  /// Which file it leads to; nil: there is none.
  var identity: FileIdentity? { FileIdentity(path: bytes) }
}
