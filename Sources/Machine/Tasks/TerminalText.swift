// Text out of a file, or a name, that nobody vouches for, on its way to a terminal.

/// The bytes as UTF-8 text that cannot move a cursor, change a colour or pose as another line: whatever is
/// not printable is `?`, and what is longer than `limit` Unicode scalars is cut.
package func printableText(_ bytes: ArraySlice<UInt8>, limit: Int = 256) -> String {
  // No scalar takes more than four bytes: bytes beyond cannot show, and need no decoding.
  let text = String(decoding: bytes.prefix(limit * 4), as: UTF8.self)
  var result = ""
  for scalar in text.unicodeScalars.prefix(limit) {
    result.unicodeScalars.append(isPrintable(scalar) ? scalar : "?")
  }
  return result
}

/// A name as bytes from outside, so that a person can tell which one it is, and a terminal is left alone: as it is
/// where all of it shows, in quotes where it is empty or has blanks, else as a shell reads it, `$'\x1b[31m'`.
package func visibleName(_ bytes: some Collection<UInt8>) -> String {
  if let text = String(validating: bytes, as: UTF8.self), text.unicodeScalars.allSatisfy(isPrintable) {
    return text.isEmpty || text.contains(where: \.isWhitespace) ? "'\(text)'" : text
  }
  return "$'" + bytes.map(visibleByte).joined() + "'"
}

private func visibleByte(_ byte: UInt8) -> String {
  switch byte {
  case UInt8(ascii: "\n"): return "\\n"
  case UInt8(ascii: "'"), UInt8(ascii: "\\"): return "\\" + String(Unicode.Scalar(byte))
  case 0x20..<0x7f: return String(Unicode.Scalar(byte))
  default:
    let digits = String(byte, radix: 16)
    return "\\x" + (digits.count < 2 ? "0" : "") + digits
  }
}

private func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
  if scalar.isASCII { return scalar.value >= 0x20 && scalar.value < 0x7f }
  if scalar == "\u{fffd}" { return false }
  switch scalar.properties.generalCategory {
  case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: return false
  default: return true
  }
}
