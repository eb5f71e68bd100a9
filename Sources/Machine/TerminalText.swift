// Text out of a file that nobody vouches for, on its way to a terminal.

/// The bytes as UTF-8 text that cannot move a cursor, change a colour or pose as another line: whatever is
/// not printable is `?`, and what is longer than `limit` Unicode scalars is cut.
func printableText(_ bytes: ArraySlice<UInt8>, limit: Int = 256) -> String {
  // No scalar takes more than four bytes: bytes beyond cannot show, and need no decoding.
  let text = String(decoding: bytes.prefix(limit * 4), as: UTF8.self)
  var result = ""
  for scalar in text.unicodeScalars.prefix(limit) {
    result.unicodeScalars.append(isPrintable(scalar) ? scalar : "?")
  }
  return result
}

private func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
  if scalar.isASCII { return scalar.value >= 0x20 && scalar.value < 0x7f }
  if scalar == "\u{fffd}" { return false }
  switch scalar.properties.generalCategory {
  case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: return false
  default: return true
  }
}
