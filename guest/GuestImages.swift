// The bundled guest programs, as embedded by the build.

/// All bundled guest programs.
public enum GuestImages {
  /// Ordered by group and name; names differ from each other.
  public static var all: [GuestImage] { embedded }

  /// - Returns: the program of that name, if there is one.
  public static func named(_ name: String) -> GuestImage? { embedded.first { $0.name == name } }
}

/// One guest program: an ELF image.
public struct GuestImage: Sendable {
  /// The name to run it by: its source file's, without the extension.
  public let name: String
  /// The folder it comes from: `tests`, `examples`, `servers` or `bench`.
  public let group: String
  let base64: StaticString

  /// The ELF image. Each access decodes it anew.
  public var bytes: [UInt8] {
    base64.withUTF8Buffer { text in
      // SAFETY: the buffer is a string literal's, which is never freed.
      unsafe decodeBase64(text.span)
    }
  }
}

/// Decodes base64. The build wrote `text`, so its length is a multiple of 4 and its characters are not checked.
private func decodeBase64(_ text: Span<UInt8>) -> [UInt8] {
  var padding = 0
  while padding < text.count, text[text.count - 1 - padding] == UInt8(ascii: "=") { padding += 1 }
  return [UInt8](capacity: text.count / 4 * 3) { bytes in
    for group in 0..<text.count / 4 {
      var bits: UInt32 = 0
      for index in group * 4..<group * 4 + 4 { bits = bits << 6 | UInt32(base64Values[Int(text[index])]) }
      bytes.append(UInt8(truncatingIfNeeded: bits >> 16))
      bytes.append(UInt8(truncatingIfNeeded: bits >> 8))
      bytes.append(UInt8(truncatingIfNeeded: bits))
    }
    bytes.removeLast(padding)
  }
}

/// The six bits of each base64 character.
private let base64Values: InlineArray<256, UInt8> = {
  var values = InlineArray<256, UInt8>(repeating: 0)
  var next: UInt8 = 0
  for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8 {
    values[Int(letter)] = next
    next += 1
  }
  return values
}()
