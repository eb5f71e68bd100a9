// Numbers on the command line: sizes in bytes, counts and seconds.

internal import ArgumentParser

/// A size in bytes: digits, and K, M, G or T for powers of 1,024. nil if it is not one, or overflows Int.
func byteCount(_ text: String) -> Int? {
  let units: [Character: Int] = ["K": 10, "M": 20, "G": 30, "T": 40]
  guard let last = text.last else { return nil }
  let shift = units[Character(last.uppercased())]
  let digits = shift == nil ? text[...] : text.dropLast()
  // Int's initializer takes a sign.
  guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let number = Int(digits) else { return nil }
  let (result, overflow) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
  return overflow ? nil : result
}

/// The shortest text that `byteCount` reads back as the same size.
func sizeText(_ bytes: Int) -> String {
  for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] where bytes >= 1 << shift {
    if bytes & ((1 << shift) - 1) == 0 { return "\(bytes >> shift)\(unit)" }
  }
  return "\(bytes)"
}

/// For an option that takes a size.
func parseSize(_ text: String, in bounds: ClosedRange<Int>) throws -> Int {
  guard let bytes = byteCount(text), bounds.contains(bytes) else {
    throw ValidationError(
      "a size is a number of bytes, or one with K, M, G or T, from \(sizeText(bounds.lowerBound)) to "
        + "\(sizeText(bounds.upperBound)), such as 256M"
    )
  }
  return bytes
}

/// For an option that takes a count.
func parseCount(_ text: String, of unit: String, in bounds: ClosedRange<Int>) throws -> Int {
  guard let count = Int(text), bounds.contains(count) else {
    let range =
      bounds.upperBound == .max ? "from \(bounds.lowerBound) on" : "from \(bounds.lowerBound) to \(bounds.upperBound)"
    throw ValidationError("give a number of \(unit) \(range)")
  }
  return count
}

/// For an option that takes a time, which may be a fraction.
func parseSeconds(_ text: String) throws -> Double {
  guard let seconds = Double(text), seconds > 0, seconds.isFinite else {
    throw ValidationError("give a number of seconds greater than 0, such as 10 or 0.5")
  }
  return seconds
}

/// "1 second", "10 seconds", "0.5 seconds".
func secondsText(_ seconds: Double) -> String {
  if seconds == 1 { return "1 second" }
  return (seconds == seconds.rounded() && seconds < 1e15 ? "\(Int(seconds))" : "\(seconds)") + " seconds"
}
