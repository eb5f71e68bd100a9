// Makes untrusted text, such as names from files, safe for a terminal.

/// Decodes UTF-8 into text that cannot move the cursor, change colours or pose as another line.
/// - Parameters:
///   - bytes: untrusted text.
///   - limit: Unicode scalars; the rest is cut.
/// - Returns: the text, with `?` for each scalar that is not printable.
package func printableText(_ bytes: ArraySlice<UInt8>, limit: Int = 256) -> String {
  // No scalar takes more than four bytes, so bytes beyond this cannot show.
  let text = String(decoding: bytes.prefix(limit * 4), as: UTF8.self)
  var result = ""
  for scalar in text.unicodeScalars.prefix(limit) {
    result.unicodeScalars.append(isPrintable(scalar) ? scalar : "?")
  }
  return result
}

/// Renders an untrusted name so that it is unambiguous and safe for a terminal: unchanged if all of it is printable, in
/// quotes if it is empty or has white space, otherwise as a shell literal, `$'\x1b[31m'`.
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
